"""The front door: options, exit codes, and what to say when something is missing.

    python -m examples.speech                    # speech, where espeak-ng is installed
    python -m examples.speech --audio tones      # a chord per letter

Only the standard library is imported before `main`, so that neither a missing
package nor Ctrl-C during the slow imports ends in a traceback.
"""

import sys

from examples.front_door import explain_missing
from examples.handwriting.interrupt import on_interrupt


def main() -> int:
    """Runs the example; returns 0, 1 (a package is missing) or 2 (a bad option)."""
    on_interrupt(lambda: "stopped while starting; nothing was changed")
    try:
        import tyro

        from examples.handwriting.demo import find_fault
        from examples.sharded.checkpoints import find_other_run
        from examples.speech import demo
    except ModuleNotFoundError as error:
        return explain_missing(error)
    options = tyro.cli(demo.Options, prog="python -m examples.speech")
    fault = demo.find_fault(options) or find_fault(
        options.updates, options.seed, options.out, demo.PICTURES
    )
    fault = fault or find_other_run(options.out, demo.settings(options))
    if fault:
        print(fault, file=sys.stderr)
        return 2
    progress = demo.Progress()
    on_interrupt(lambda: demo.describe_interruption(options, progress))
    demo.run(options, progress)
    return 0


if __name__ == "__main__":
    sys.exit(main())
