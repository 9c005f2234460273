"""The check itself: compare, repeat, compile, time."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ctc._checks.status import Status
from jax_ctc._loss.losses import ctc_loss, ctc_loss_with_status
from jax_ctc._recursion import implementations
from jax_ctc._recursion.contract import Implementation
from jax_ctc._self_check.batches import BLANK, Batch, long_batch, small_batches
from jax_ctc._self_check.float64 import loss_and_gradient
from jax_ctc._self_check.report import Checked, Comparison, Report
from jax_ctc._self_check.rivals import RIVALS
from jax_ctc._self_check.where import where

_ROUNDS = 7
# Runs whose bits are compared. What threads of a kernel race for shows in some of them.
_REPEATS, _REPEATS_OF_A_KERNEL = 2, 20
_SECONDS = 150  # after this no other round is timed; what is begun then takes a while
_PAUSE = 0.02  # threads of the one before may still spin

# Of a gradient entry, at most 1. `scan` is in log space, which costs digits.
_GRADIENT_ATOL = {"scan": 5e-4}
_DEFAULT_ATOL = 1e-5

# On a GPU XLA adds up the derivative of a gather in any order.
_IN_ANY_ORDER = {("scan", "gpu")}

Say = Callable[[str, float], Any]  # what is being done, and how much of all is done


def check(say: Say = lambda text, share: None) -> Report:
    """Run the whole check, in under four minutes on most machines."""
    start = time.perf_counter()
    batches, timed = small_batches(), long_batch()
    say("float64", 0.0)
    exact = {batch.name: _exact(batch) for batch in (*batches, timed)}
    found, programs = [], {}
    candidates = implementations()
    for number, one in enumerate(candidates):
        checked = Checked(
            one.name,
            is_default=one.is_default,
            declines=one.declines,
            has_run_on=one.has_run_on,
        )
        if one.declines is None:
            say(one.name, 0.05 + 0.7 * number / len(candidates))
            comparisons = [
                _compare(one, batch, *exact[batch.name]) for batch in (*batches, timed)
            ]
            programs[one.name], seconds = _compile(one.name, timed)
            checked = dataclasses.replace(
                checked,
                comparisons=tuple(comparisons),
                compile_s=seconds,
                has_one_order=_has_one_order(one.name),
            )
        found.append(checked)
    for name, prepare in RIVALS.items():
        say(name, 0.8)
        begin = time.perf_counter()
        try:
            programs[name] = prepare(timed)
        except ImportError:
            continue
        seconds = time.perf_counter() - begin if name == "optax" else None
        found.append(Checked(name, is_rival=True, compile_s=seconds))
    say("timing", 0.85)
    seconds = _time(programs, start + _SECONDS)
    found = [
        dataclasses.replace(one, seconds=tuple(seconds.get(one.name, ())))
        for one in found
    ]
    say("done", 1.0)
    return Report(where(), tuple(found))


def _exact(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return loss [B] and gradient [B, T, V] in float64; zeros where flagged."""
    loss = np.zeros(len(batch.logits))
    gradient = np.zeros(batch.logits.shape)
    for b, (logits, labels, frames, count) in enumerate(
        zip(*batch.arrays, strict=True)
    ):
        if batch.status[b] == 0:
            loss[b], gradient[b, :frames] = loss_and_gradient(
                logits[:frames], labels[:count], BLANK
            )
    return loss, gradient


@functools.partial(jax.jit, static_argnames="name")
def _score(name: str, logits: jax.Array, *rest: jax.Array) -> Any:
    def total(logits: jax.Array) -> Any:
        loss, status = ctc_loss_with_status(
            logits, *rest, blank_id=BLANK, implementation=name
        )
        # Each utterance has a gradient of its own, whatever the others are.
        return jnp.sum(jnp.where(status == 0, loss, 0)), (loss, status)

    gradient, (loss, status) = jax.grad(total, has_aux=True)(logits)
    return loss, gradient, status


def _compare(
    one: Implementation, batch: Batch, loss: np.ndarray, gradient: np.ndarray
) -> Comparison:
    """Hold one implementation against float64, and against itself."""
    arrays = tuple(map(jnp.asarray, batch.arrays))
    repeats = _REPEATS if one.platform is None else _REPEATS_OF_A_KERNEL
    first, *others = (
        [np.asarray(x) for x in _score(one.name, *arrays)] for _ in range(repeats)
    )
    faults = []
    is_fine = batch.status == 0
    loss_error = np.abs(first[0] - loss)[is_fine]
    gradient_error = np.abs(first[1] - gradient)
    frames = batch.logits.shape[1]
    ulps = loss_error / np.spacing(np.maximum(loss[is_fine], 1).astype(np.float32))
    allowed = 4 * np.spacing(np.abs(loss[is_fine]).astype(np.float32)) + frames * 1e-7
    if not (loss_error <= allowed).all():
        faults.append(f"loss off by {loss_error.max():.1e} nats")
    atol = _GRADIENT_ATOL.get(one.name, _DEFAULT_ATOL)
    if not (gradient_error <= atol).all():
        faults.append(f"gradient off by {gradient_error.max():.1e}")
    if (first[1][~is_fine] != 0).any():
        faults.append("a dead utterance has a gradient")
    if (first[2] != batch.status).any():
        wrong = int(np.flatnonzero(first[2] != batch.status)[0])
        faults.append(
            f"utterance {wrong} is called {Status(int(first[2][wrong]))!r}, but is"
            f" {Status(int(batch.status[wrong]))!r}"
        )
    differ = sum(
        any(a.tobytes() != b.tobytes() for a, b in zip(first, other, strict=True))
        for other in others
    )
    if differ and _has_one_order(one.name):
        faults.append(f"bits differ in {differ} of {len(others)} more runs")
    return Comparison(
        batch.name,
        float(ulps.max(initial=0)),
        float(gradient_error.max()),
        tuple(faults),
    )


def _has_one_order(name: str) -> bool:
    return (name, jax.default_backend()) not in _IN_ANY_ORDER


def _compile(name: str, batch: Batch) -> tuple[Callable[[], Any], float]:
    """Return value and gradient of a batch as a program, and the time to compile it."""

    def loss(logits: jax.Array, *rest: jax.Array) -> jax.Array:
        losses = ctc_loss(logits, *rest, blank_id=BLANK, implementation=name)
        return losses.sum()

    arrays = tuple(map(jnp.asarray, batch.arrays))
    start = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*arrays).compile()
    seconds = time.perf_counter() - start
    return lambda: jax.block_until_ready(compiled(*arrays)), seconds


def _time(
    programs: dict[str, Callable[[], Any]], until: float
) -> dict[str, list[float]]:
    """Run all of them in turns, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(_ROUNDS + 1):
        for name, run in programs.items():
            if number > 1 and time.perf_counter() > until:
                continue
            time.sleep(_PAUSE)
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds
