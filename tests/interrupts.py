"""Programs that Ctrl-C ends, however the tests were started.

What a shell runs in the background ignores SIGINT, and so does all that it starts: a
new program keeps what is ignored, and forgets only what is handled.
"""

import contextlib
import signal


@contextlib.contextmanager
def interrupts_heeded():
    """Start a program in here, and SIGINT ends it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
