"""Class scores to the scores of states: normalise, gather V to S, lay out by frame.

A recursion reads a chunk of frames at a time, and of a chunk the few scores that it
needs: neither log-probabilities nor a one-hot of T * U * V exist. Here are the
library's only transposes, from batch-major scores to time-major lattice rows.

    log p_t(v)   = scores[t, v] - peak_t - log(1 + rest_t)  peak_t: over all classes
    log_emission = scores[t, v] - best_t                    best_t: over the needed ones
    log_shift    = best_t - peak_t - log(1 + rest_t)        added back once per frame

Two scores that compete in a frame are subtracted from the nearer of two references:
measured from `best_t` their difference survives rounding even when both lie far below
the frame's winner, and logits offset by 1e4 cost nothing.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice import normaliser
from jax_ctc._lattice.frames import gather, rows_of, rows_of_chunk, stored
from jax_ctc._lattice.normaliser import Normaliser
from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers.masks import is_inside, positions
from jax_ctc._numbers.precision import accumulator

# Finite scores may lie further apart than float32 reaches. Far beyond what counts as
# possible, and yet a sum over any number of frames stays finite.
_LEAST_SHIFT = -1e30


class LogEmissions(NamedTuple):
    """The scores of K frames, each frame shifted so that its best needed class is 0.

    Padded frames emit blank with probability 1 and every label with probability 0:
    blank[N] + label[N-1], what the loss reads, then stays what it was, without a
    select on the state, and garbage in those frames is never looked at.
    """

    blank: Float[Array, "K B G"]  # G = 1, or U + 1: one for each gap between labels
    label: Float[Array, "K B U"]
    log_shift: Float[Array, "K B"]  # log p of a frame = its score + its log_shift
    is_bad: Bool[Array, " B"]  # a live frame holds NaN, +inf, or -inf only


class Seen(NamedTuple):
    """What is read of K frames, as the scores lie; that of several sides is stacked."""

    blank: Float[Array, "B K G"]
    label: Float[Array, "B K U"]
    here: Normaliser
    is_live: Bool[Array, "B K"]


def look(problem: Problem, start: Int[Array, ""] | int, size: int) -> Seen:
    """Read frames start .. start + size - 1; those at or past T are padding."""
    first, num_rows = rows_of_chunk(start, size, problem.scores.shape[1])
    scores = rows_of(problem.scores, first, num_rows)
    frames = start + positions(size)
    rows = jnp.minimum(frames - first, num_rows - 1)
    return Seen(
        gather(scores, rows, problem.blank_ids),
        gather(scores, rows, problem.label_ids),
        Normaliser(*(jnp.take(x, rows, axis=1) for x in normaliser.of(scores))),
        frames[None, :] < problem.logit_lengths[:, None],
    )


def of(seen: Seen, *, normalise: bool) -> LogEmissions:
    """Return what was seen as emissions."""
    blank, label, here, is_live = seen
    if blank.shape[2] != 1:
        blank = stored(blank)
    log = lay_out(blank, stored(label), here if normalise else None, is_live)
    return log._replace(is_bad=is_bad(here, is_live))


def read_all(problem: Problem, *, normalise: bool) -> LogEmissions:
    """Read every frame, in a way that JAX differentiates to any order.

    A `where` on a result still sends 0 * NaN through the side not taken, so padding
    and bad utterances are replaced before any arithmetic.
    """
    scores = problem.scores.astype(accumulator(problem.scores.dtype))
    is_live = is_inside(problem.logit_lengths, scores.shape[1])
    found = is_bad(normaliser.of(lax.stop_gradient(scores)), is_live)
    is_read = is_live & ~found[:, None]
    clean = jnp.where(is_read[:, :, None], scores, 0)
    here = normaliser.of(clean) if normalise else None
    rows = positions(scores.shape[1])
    blank = gather(clean, rows, problem.blank_ids)
    label = gather(clean, rows, problem.label_ids)
    log = lay_out(blank, label, here, is_live)
    return log._replace(is_bad=found)


def lay_out(
    blank: Float[Array, "B K G"],
    label: Float[Array, "B K U"],
    here: Normaliser | None,
    is_live: Bool[Array, "B K"],
) -> LogEmissions:
    """Shift and mask the needed scores of K frames, and lay them out by frame.

    Without normalisers scores are taken as they are.
    """
    best = best_of(blank, label)
    is_read = is_live[:, :, None]
    blank = jnp.where(is_read, blank - best[:, :, None], 0)
    label = jnp.where(is_read, label - best[:, :, None], -jnp.inf)
    return LogEmissions(
        blank=jnp.moveaxis(blank, 1, 0),
        label=jnp.moveaxis(label, 1, 0),
        log_shift=jnp.where(is_live, log_shift(best, here), 0).T,
        is_bad=jnp.zeros_like(is_live[:, 0]),
    )


def log_shift(
    best: Float[Array, "B K"], here: Normaliser | None
) -> Float[Array, "B K"]:
    """Return what a frame's best needed score is in nats."""
    shift = best if here is None else (best - here.peak) - jnp.log1p(here.rest)
    return jnp.maximum(shift, _LEAST_SHIFT)


def best_of(
    blank: Float[Array, "B K G"], label: Float[Array, "B K U"]
) -> Float[Array, "B K"]:
    """Return the best needed score of each frame, a constant to JAX; 0 for -inf."""
    of_blanks = blank[:, :, 0] if blank.shape[2] == 1 else jnp.max(blank, axis=2)
    best = jnp.maximum(of_blanks, jnp.max(label, axis=2, initial=-jnp.inf))
    best = lax.stop_gradient(best)
    return jnp.where(best == -jnp.inf, 0, best)


def is_bad(here: Normaliser, is_live: Bool[Array, "B K"]) -> Bool[Array, " B"]:
    """Tell which utterances have a live frame that holds NaN, +inf, or -inf only."""
    return jnp.any(~normaliser.is_good(here) & is_live, axis=1)
