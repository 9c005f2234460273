"""Two commits beside each other: what did a change cost or gain?

    python -m benchmarks.compare HEAD~1 --case char ocr

The working tree and a checkout of the other commit take turns, a process each time, so
that what the machine does meanwhile falls on both. Times are the least and the first
quartile over all turns: noise only ever adds.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.cases import tagged

_HERE = pathlib.Path(__file__).parent.parent


@dataclasses.dataclass
class Options:
    """Which commit, what to measure, and how often."""

    commit: Annotated[str, tyro.conf.Positional]
    case: tuple[str, ...] = tuple(case.name for case in tagged("bench"))
    mode: tuple[str, ...] = ("value", "value_and_grad")
    turns: int = 3
    rounds: int = 15


def main(options: Options) -> int:
    """Print a row per case and mode; 2 if there is no such commit."""
    with tempfile.TemporaryDirectory() as folder:
        other = pathlib.Path(folder) / "other"
        added = git("worktree", "add", "--detach", str(other), options.commit)
        if added.returncode:
            print(f"no commit {options.commit!r}: {added.stderr}", file=sys.stderr)
            return 2
        try:
            rows = [measure(place, options) for place in places(other, options.turns)]
        finally:
            git("worktree", "remove", "--force", str(other))
    Console(width=None if sys.stdout.isatty() else 120).print(
        table(rows[0::2], rows[1::2])
    )
    return 0


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git where this file is."""
    return subprocess.run(
        ["git", *arguments], cwd=_HERE, capture_output=True, text=True, check=False
    )


def places(other: pathlib.Path, turns: int) -> Any:
    """Yield the other checkout and this one in turns, with progress on stderr."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        yield from progress.track([other, _HERE] * turns)


def measure(place: pathlib.Path, options: Options) -> dict[tuple[str, str], Any]:
    """Run the benchmark of a checkout in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "rows.jsonl"
        command = [sys.executable, "-m", "benchmarks.run", "--impl", "blocked"]
        command += ["--case", *options.case, "--mode", *options.mode]
        command += ["--rounds", str(options.rounds), "--out", str(out)]
        environment = os.environ | {"PYTHONPATH": str(place)}
        subprocess.run(
            command, cwd=place, env=environment, stdout=subprocess.DEVNULL, check=True
        )
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    return {(row["case"], row["mode"]): row for row in rows}


def table(
    others: list[dict[tuple[str, str], Any]], ours: list[dict[tuple[str, str], Any]]
) -> Table:
    """Lay the figures out: the other commit's, and this tree's."""
    out = Table("case", "mode")
    for heading in ("other, ms", "here, ms", "here / other", "MB", "compile, s"):
        out.add_column(heading, justify="right", no_wrap=True)
    for key in ours[0]:
        sides = [[turn[key] for turn in side] for side in (others, ours)]
        times = [np.concatenate([row["seconds"] for row in side]) for side in sides]
        least = [time.min() for time in times]
        out.add_row(
            *key,
            *(
                f"{time.min() * 1e3:.2f} ({np.percentile(time, 25) * 1e3:.2f})"
                for time in times
            ),
            f"{least[1] / least[0]:.2f}",
            " → ".join(f"{side[0]['temporaries'] / 1e6:.1f}" for side in sides),
            " → ".join(
                f"{min(row['compile_s'] for row in side):.2f}" for side in sides
            ),
        )
    return out


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.compare")))
