"""What a contender hands over: something to run, and what building it took."""

from collections.abc import Callable
from typing import Any, NamedTuple

MODES = ("value", "value_and_grad")


class OnDevice(NamedTuple):
    """What an accelerator was busy with in one run."""

    ms: float
    launches: float


class Program(NamedTuple):
    """One contender, ready to run on one batch."""

    run: Callable[[], Any]  # returns when the result is there
    lower_s: float | None
    compile_s: float | None
    temporaries: int | None  # bytes, where a compiler tells
    needs: int | None = None  # bytes that a run takes, arguments aside
    # The most bytes that a kernel has held since the last call; no compiler tells.
    kernel_bytes: Callable[[], int] | None = None
    # Runs it a few times under a profiler, where there is an accelerator.
    profile: Callable[[], OnDevice] | None = None
    # Makes a result NumPy's, which no run is to wait for.
    fetch: Callable[[Any], Any] = lambda result: result
