"""Agreement first, then time: contenders take turns, so noise falls on all alike."""

import time
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from benchmarks.contenders import CONTENDERS, Program, missing
from benchmarks.memory import available, shortage
from tests.cases import Case
from tests.oracle import batch_loss_and_gradient

# optax is off by 1e-2 in the gradient of long utterances; a wrong loss is off by more.
_AGREEMENT = 5e-2
# Seconds for one contender on one batch, or a rival of minutes would take hours.
_PATIENCE = 60
# Before each turn: threads of the one before may still hold a core. Whatever waits goes
# to sleep, processors too: the first run after it does not count, or is what counts.
_PAUSE = 0.02
# That do count: a GPU's clocks take longer to rise, and the time is their mean.
_RUNS_OF_A_TURN = {"gpu": 5}


class Bench:
    """One batch, for every contender and mode; its float64 gradient is found once."""

    def __init__(
        self,
        case: Case,
        labels: dict[str, Any],
        precise: bool = True,
        is_cold: bool = False,
    ):
        """Make the batch.

        Args:
            case: whose batch it is.
            labels: what every row says besides: the name of the case or the sweep.
            precise: whether gradients are held against float64 ones.
            is_cold: whether the first run after a pause is what is timed.
        """
        self.batch, self.is_cold = case.make(), is_cold
        sizes = ("batch", "frames", "classes", "labels")
        self.about = labels | {size: getattr(case, size) for size in sizes}
        self.truth = None
        if precise:
            self.truth = batch_loss_and_gradient(*self.batch)[1]

    def measure(
        self,
        mode: str,
        names: Iterable[str],
        rounds: int,
        trusted: frozenset[str] | set[str] = frozenset(),
    ) -> list[dict[str, Any]]:
        """Return one row per contender; one that is missing or fails says so.

        Who is trusted is timed even where it disagrees: it has agreed on smaller
        batches, so it is called rightly, and what is off is its own float32.
        """
        rows, programs, spent, reference = [], {}, {}, None
        for name in names:
            row = self.about | {"mode": mode, "impl": name}
            rows.append(row)
            row["note"] = missing(name)
            if row["note"]:
                continue
            try:
                program = CONTENDERS[name](self.batch, mode)
                row["lower_s"], row["compile_s"] = program.lower_s, program.compile_s
                row["temporaries"] = program.temporaries
                row["note"] = shortage(program, available())
                if row["note"]:
                    continue
                if program.kernel_bytes:
                    program.kernel_bytes()
                start = time.perf_counter()
                result = program.run()
                spent[name] = time.perf_counter() - start
                result = program.fetch(result)
                if program.kernel_bytes:
                    row["kernel_bytes"] = program.kernel_bytes()
            except Exception as error:  # a row in the table, not the end
                lines = str(error).splitlines() or [""]
                row["note"] = f"failed: {type(error).__name__}: {lines[0][:80]}"
                continue
            reference = result if reference is None else reference
            row["difference"] = agreement(result, reference)
            if mode == "value_and_grad" and self.truth is not None:
                row["gradient_error"] = gradient_error(result, self.truth)
            if not row["difference"] <= _AGREEMENT:
                if name not in trusted:
                    row["note"] = "disagrees: not timed"
                    continue
                row["note"] = f"differs by {row['difference']:.1g}"
            programs[name] = program
        seconds = interleave(programs, rounds, spent, is_cold=self.is_cold)
        for row in rows:
            program = programs.get(row["impl"])
            if program and program.profile:
                seen = program.profile()
                if seen.launches:  # another profiler may have been there first
                    row["device_ms"], row["launches"] = seen
            if row["impl"] in seconds:
                times = row["seconds"] = seconds[row["impl"]]
                row["ratio"] = ratio(times, next(iter(seconds.values())))
                if len(times) < rounds:
                    slow = f"slow: {len(times)} of {rounds} rounds"
                    row["note"] = "; ".join(filter(None, (row["note"], slow)))
        return [{k: v for k, v in row.items() if v is not None} for row in rows]


def agreement(result: Any, reference: Any) -> float:
    """Return the largest difference, of the loss relative, of gradients absolute."""
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(_parts(result), _parts(reference), strict=True)
    ]
    loss, expected = pairs[0]
    error = abs(float(loss) - float(expected)) / max(1.0, abs(float(expected)))
    for gradient, truth in pairs[1:]:
        error = float(np.maximum(error, np.abs(gradient - truth).max()))  # NaN stays
    return error


def gradient_error(result: Any, truth: np.ndarray) -> float:
    """Return the largest error of an entry of the gradient of the sum of losses.

    An entry belongs to one utterance then, and is at most 1; run was the mean.
    """
    gradient = np.asarray(result[1], np.float64)
    return float(np.abs(len(truth) * gradient - truth).max())


def interleave(
    programs: dict[str, Program],
    rounds: int,
    spent: dict[str, float] | None = None,
    *,
    is_cold: bool = False,
) -> dict[str, list[float]]:
    """Run every program once a round, after one round that does not count.

    In another order each round, so that noise falls on all alike. Who has spent a
    minute, `spent` before included, takes no further turn once it has been timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    spent = dict.fromkeys(programs, 0.0) | (spent or {})
    order = np.random.default_rng(0)
    for count in range(rounds + 1):
        for name in order.permutation(list(programs)):
            if spent[name] > _PATIENCE and (count == 0 or seconds[name]):
                continue
            time_taken = turn(programs[name], is_cold=is_cold)
            spent[name] += time_taken
            if count:
                seconds[name].append(time_taken)
    return seconds


def turn(program: Program, *, is_cold: bool = False) -> float:
    """Return the seconds of a run; of a machine that is awake, or of a cold one."""
    time.sleep(_PAUSE)
    if not is_cold:
        program.run()
    runs = 1 if is_cold else _RUNS_OF_A_TURN.get(jax.default_backend(), 1)
    start = time.perf_counter()
    for _ in range(runs):
        program.run()
    return (time.perf_counter() - start) / runs


def ratio(theirs: list[float], ours: list[float]) -> float:
    """Return their fastest round over ours, of the rounds that both ran.

    Noise only ever adds, and to a short time it adds more.
    """
    both = min(len(theirs), len(ours))
    return min(theirs[:both]) / min(ours[:both])


def held(row: dict[str, Any]) -> int:
    """Return the bytes that a run holds besides arguments and results."""
    return row["temporaries"] + row.get("kernel_bytes", 0)


def _parts(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)
