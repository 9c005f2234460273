"""`python -m jax_ctc check`, on the command line."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from jax_ctc._self_check.report import Report, render
from jax_ctc._self_check.run import Say, check

_EPILOG = """\
Every implementation that runs here is compared with float64 on ragged, extreme,
confident and dead batches, run again for equal bits (a kernel 20 times), and timed
beside the others and beside Optax and PyTorch where these are installed. A bug report
begins with its output.

Exit code: 0 all that ran is right, 1 something is wrong.
"""


def add_to(commands: Any) -> None:
    """Add the command to those of the program."""
    command = commands.add_parser(
        "check",
        help="compare and time every implementation on this machine",
        description="Say whether this machine computes CTC right, and how fast.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--json", action="store_true", help="print a record in JSON instead of a table"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    with _progress() as say:
        report = check(say)
    if options.json:
        print(report.to_json())
    else:
        _print(report)
    return 0 if report.is_fine else 1


@contextlib.contextmanager
def _progress() -> Iterator[Say]:
    """Show on stderr what is being done, by `rich` or in plain lines."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ModuleNotFoundError:
        yield lambda text, share: print(f"{share:4.0%} {text}", file=sys.stderr)
        return
    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda text, share: progress.update(
            task, description=text, completed=share
        )


def _print(report: Report) -> None:
    """Print a table, or plain text where rich is not installed."""
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        print(report)
        return
    # A pipe has no width of its own, and a cut figure is no figure.
    Console(width=None if sys.stdout.isatty() else 120).print(render(report))
