"""Programs that Ctrl-C ends, however the tests were started.

What a shell runs in the background ignores SIGINT, and so does all that it starts.
"""

import signal


def heed_interrupts():
    """Let a child end by SIGINT: a `preexec_fn` of `subprocess`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
