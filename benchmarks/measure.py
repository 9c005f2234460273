"""Agreement first, then time: contenders take turns, so noise falls on all alike."""

import time
from typing import Any

import numpy as np

from benchmarks.contenders import Program


def agreement(result: Any, reference: Any) -> float:
    """Return the largest difference, of the loss relative, of gradients absolute."""
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(_parts(result), _parts(reference), strict=True)
    ]
    loss, expected = pairs[0]
    error = abs(float(loss) - float(expected)) / max(1.0, abs(float(expected)))
    for gradient, truth in pairs[1:]:
        error = max(error, float(np.abs(gradient - truth).max()))
    return error


def interleave(programs: dict[str, Program], rounds: int) -> dict[str, list[float]]:
    """Run every program once a round, after one round that does not count.

    In another order each round: the threads of one may still spin, and hold a core,
    when the next one starts.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    order = np.random.default_rng(0)
    for count in range(rounds + 1):
        for name in order.permutation(list(programs)):
            start = time.perf_counter()
            programs[name].run()
            if count:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _parts(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)
