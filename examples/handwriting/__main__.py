"""The front door: options, exit codes, and what to say when something is missing.

Only the standard library is imported before `main`, so that neither a missing
package nor Ctrl-C during the slow imports ends in a traceback.
"""

import sys

from examples.front_door import explain_missing
from examples.handwriting.interrupt import on_interrupt


def main() -> int:
    """Runs the demo; returns 0, 1 (a package is missing) or 2 (a bad option)."""
    on_interrupt(lambda: "stopped while starting; nothing was saved")
    try:
        import tyro

        from examples.handwriting import demo
    except ModuleNotFoundError as error:
        return explain_missing(error)
    options = tyro.cli(demo.Options, prog="python -m examples.handwriting")
    fault = demo.find_fault(options.steps, options.seed, options.out, demo.PICTURES)
    if fault:
        print(fault, file=sys.stderr)
        return 2
    progress = demo.Progress()
    on_interrupt(lambda: demo.describe_interruption(options, progress))
    demo.run(options, progress)
    return 0


if __name__ == "__main__":
    sys.exit(main())
