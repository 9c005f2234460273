"""Ctrl-C: one clear line and exit code 130, wherever the program happens to be.

Python's own way, a KeyboardInterrupt, is raised inside whatever line is running. In
the middle of an import or a compilation some libraries swallow it, some turn it into
an error of their own, and unwinding past running XLA threads can crash the process. So
Ctrl-C gets a handler that says its line and leaves at once.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable

EXIT_CODE = 130  # what shells report for a program ended by Ctrl-C
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it


def on_interrupt(describe: Callable[[], str]) -> None:
    """From now on, Ctrl-C prints `describe()` and ends the process."""

    def leave(*_) -> None:
        with contextlib.suppress(RuntimeError):  # stopped in the middle of a print
            sys.stdout.flush()
        if sys.stdout.isatty():
            os.write(1, SHOW_CURSOR)
        os.write(2, f"\n{describe()}\n".encode())
        os._exit(EXIT_CODE)

    signal.signal(signal.SIGINT, leave)
