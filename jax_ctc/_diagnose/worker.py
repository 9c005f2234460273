"""A thread that does one job after another, and that Ctrl-C does not wait for.

A thread of `concurrent.futures` is waited for at the end of the program, whatever ended
it. A diagnosis takes seconds: worth waiting for at the end of a training, and not where
somebody has pressed Ctrl-C.
"""

import atexit
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable

_GRACE = 0.2  # seconds for a job to come to a checkpoint
_STEP = 0.1  # seconds of a wait, see `_wait`


class LetGo(BaseException):
    """Ends a job that nobody waits for any more; no error, so nothing catches it."""


_LOCAL = threading.local()


def checkpoint() -> None:
    """End the job that this is part of, if nobody waits for it any more.

    Raises:
        LetGo: nobody does.
    """
    is_let_go = getattr(_LOCAL, "is_let_go", None)
    if is_let_go is not None and is_let_go.is_set():
        raise LetGo


class Worker:
    """See above. Errors of jobs are kept until somebody asks for them."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._errors: list[Exception] = []
        self._thread: threading.Thread | None = None
        self._is_let_go = threading.Event()

    def submit(self, job: Callable[[], None]) -> None:
        """Have a job done after those before it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
            atexit.register(self._at_exit)
        self._jobs.put(job)

    def finish(self) -> None:
        """Wait until all jobs are done; raise the first error, once."""
        self._jobs.put(None)
        if self._thread is not None:
            try:
                self._wait(self._thread)
            except KeyboardInterrupt:
                self.let_go()
                raise
            atexit.unregister(self._at_exit)
        errors, self._errors = self._errors, []
        if errors:
            raise errors[0]

    def drop(self) -> None:
        """Do no job but the one that is being done."""
        while not self._jobs.empty():
            self._jobs.get_nowait()
        self._jobs.put(None)

    def let_go(self) -> None:
        """Do no more of any job than up to where it checks."""
        self._is_let_go.set()
        self.drop()

    def _run(self) -> None:
        _LOCAL.is_let_go = self._is_let_go
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except LetGo:
                return
            except Exception as error:  # noqa: BLE001
                self._errors.append(error)

    @staticmethod
    def _wait(thread: threading.Thread) -> None:
        """Wait for its end, a step at a time.

        A Ctrl-C that comes when a lock is about to be waited for does not wake whoever
        then waits: Python sees to it when the wait is over.
        """
        while thread.is_alive():
            thread.join(_STEP)

    def _at_exit(self) -> None:
        """Wait for the last report, unless the program was interrupted."""
        assert self._thread is not None
        atexit.unregister(self._at_exit)  # so that what is left are the others
        kind = getattr(sys, "last_type", None)  # of the error that ended it, if any
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            self._jobs.put(None)
            self._wait(self._thread)
            return
        self.let_go()
        self._thread.join(_GRACE)
        if self._thread.is_alive():
            _end_interrupted()


def _end_interrupted() -> None:
    """End the program as Python ends it after Ctrl-C, but without taking it apart.

    A thread that comes back from a compilation into an interpreter that is being taken
    apart makes the process abort (until Python 3.14). Everything that a program relies
    on is done: what others have registered, and what is yet to be written.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
