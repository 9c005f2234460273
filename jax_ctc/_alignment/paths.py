"""What a path says: the class of each frame, and how probable it is.

Paths come from a recursion as states, s = 2n for blank[n] and s = 2n + 1 for label[n].
Their probabilities are read again from the scores, so that they have derivatives.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from jax_ctc._lattice import normaliser
from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers.masks import is_inside
from jax_ctc._numbers.precision import accumulator
from jax_ctc._numbers.sizes import Size
from jax_ctc._numbers.two_floats import sum_frames

PADDING = -1


def live_frames(
    problem: Problem, log_value: Float[Array, " B"], num_frames: Size
) -> Bool[Array, "B T"]:
    """Mark the frames inside the length of utterances that have a path."""
    is_alive = jnp.isfinite(log_value)[:, None]
    return is_inside(problem.logit_lengths, num_frames) & is_alive


def tokens_of(
    states: Int[Array, "B N T"], problem: Problem, is_live: Bool[Array, "B T"]
) -> Int[Array, "B N T"]:
    """Return the class that each frame shows, -1 where it shows none."""
    blank = problem.ids.shape[1] - 1  # the column of the blank in `ids`
    column = jnp.where(states % 2 == 1, states // 2, blank)
    tokens = jnp.take_along_axis(problem.ids[:, None, :], column, axis=2, mode="clip")
    return jnp.where(is_live[:, None, :], tokens, PADDING)


def log_probs_along(
    scores: Float[Array, "B T V"],
    tokens: Int[Array, "B N T"],
    is_live: Bool[Array, "B T"],
    *,
    normalise: bool,
) -> Float[Array, "B N T"]:
    """Return log p of the token of each frame; 0 where there is none.

    normalise: log softmax of the scores rather than the scores as they are.
    """
    place = jnp.moveaxis(jnp.maximum(tokens, 0), 1, 2)  # [B, T, N]
    if normalise:
        log_prob = _log_prob(scores, place, is_live)
    else:
        log_prob = _at(scores, place).astype(accumulator(scores.dtype))
    return jnp.where(is_live[:, None, :], jnp.moveaxis(log_prob, 2, 1), 0)


# d log_prob = d scores at the place - <softmax, d scores>, on live frames
#
# A rule, because padding may hold NaN: masked before the sums, all scores would be
# copied; masked after, 0 * NaN would have a derivative.
@jax.custom_jvp
def _log_prob(
    scores: Float[Array, "B T V"],
    place: Int[Array, "B T N"],
    is_live: Bool[Array, "B T"],
) -> Float[Array, "B T N"]:
    """Return log softmax at some classes; anything on frames that are not live."""
    score = _at(scores, place).astype(accumulator(scores.dtype))
    peak, rest = (x[:, :, None] for x in normaliser.of_all(scores))
    return (score - peak) - jnp.log1p(rest)


@_log_prob.defjvp
def _log_prob_jvp(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    scores, place, is_live = primals
    dtype = accumulator(scores.dtype)
    inside = is_live[:, :, None]
    softmax = jax.nn.softmax(jnp.where(inside, scores, 0).astype(dtype), axis=2)
    tangent = jnp.where(inside, tangents[0], 0).astype(dtype)
    mean = jnp.sum(softmax * tangent, axis=2, keepdims=True)
    return _log_prob(scores, place, is_live), _at(tangent, place) - mean


def _at(rows: Shaped[Array, "B T V"], place: Int[Array, "B T N"]) -> Array:
    return jnp.take_along_axis(rows, place, axis=2, mode="promise_in_bounds")


def total_of(
    log_probs: Float[Array, "B N T"], log_value: Float[Array, " B"]
) -> Float[Array, "B N"]:
    """Sum over frames in two floats; -inf or NaN where there is no path."""
    if log_probs.shape[2] == 0:
        total = jnp.zeros_like(log_probs, shape=log_probs.shape[:2])
    else:
        frames = jnp.moveaxis(log_probs, 2, 0)  # [T, B, N]
        high, low = sum_frames(frames.reshape(frames.shape[0], -1))
        total = (high + lax.stop_gradient(low)).reshape(frames.shape[1:])
    log_value = lax.stop_gradient(log_value)[:, None]
    return jnp.where(jnp.isfinite(log_value), total, log_value)
