"""What a GPU did during a JAX program, from the trace of JAX's own profiler."""

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.contenders.program import OnDevice

_RUNS = 5


def profiled(run: Callable[[], Any]) -> OnDevice:
    """Run a program a few times, and read what each run took of the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(_RUNS):
                run()
        [path] = pathlib.Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        # A line for each stream; others repeat it by module and by operation.
        events = [
            event.duration_ns
            for plane in planes
            if "GPU" in plane.name
            for line in plane.lines
            if line.name.startswith("Stream")
            for event in line.events
        ]
    return OnDevice(sum(events) / 1e6 / _RUNS, len(events) / _RUNS)
