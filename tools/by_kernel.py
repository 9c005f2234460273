"""Milliseconds on an NVIDIA GPU of each CUDA kernel, as JAX's profiler saw them.

    python -m tools.by_kernel

A line for each problem, value alone and value and gradient. To compare commits, run it
in a worktree of each, in turns, on one card.
"""

import collections
import functools
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ctc._lattice.problem import Problem, build
from jax_ctc._recursion import cuda

# Utterances, frames, classes, labels.
PROBLEMS = {
    "char": (32, 1000, 32, 100),
    "medium": (16, 1000, 32, 200),
    "long_form": (4, 4000, 32, 600),
    "few classes": (8, 2000, 5, 400),
    "one_utterance": (1, 800, 32, 80),
    "many labels": (2, 3000, 128, 1500),
    "most labels": (2, 6500, 128, 3000),
    "word pieces": (16, 400, 1024, 50),
    "big vocabulary": (8, 250, 8192, 40),
}
_RUNS = 10


def problem(batch: int, frames: int, classes: int, labels: int) -> Problem:
    """Make utterances that fill their frames and labels, of random scores."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(batch, frames, classes)).astype(np.float32)
    ids = rng.integers(1, classes, (batch, labels)).astype(np.int32)
    full = np.ones(batch, np.int32)
    return build(
        *map(jnp.asarray, (scores, ids, frames * full, labels * full, full > 0)),
        blank_id=0,
        num_classes=classes,
    )


def by_kernel(run: Callable[[], Any]) -> dict[str, float]:
    """Return the milliseconds of each kernel in one run."""
    found: dict[str, float] = collections.defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(_RUNS):
                run()
        [path] = pathlib.Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines if "GPU" in plane.name else ():
                # A line for each stream; others repeat it.
                for event in line.events if line.name.startswith("Stream") else ():
                    found[event.name] += event.duration_ns / 1e6 / _RUNS
    return dict(found)


def main() -> int:
    """Print a line for each problem; 1 where there is no GPU."""
    if jax.default_backend() != "gpu":
        print("JAX runs on no GPU here", file=sys.stderr)
        return 1
    for name, sizes in PROBLEMS.items():
        given = problem(*sizes)
        for function in (cuda.forward, cuda.forward_backward):
            program = jax.jit(functools.partial(function, normalise=True))

            def run(program: Any = program, given: Problem = given) -> Any:
                return jax.block_until_ready(program(given))

            run()
            times = by_kernel(run)
            parts = ", ".join(f"{kernel} {ms:.4f}" for kernel, ms in times.items())
            print(f"{name} {function.__name__}: {sum(times.values()):.4f} ms ({parts})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
