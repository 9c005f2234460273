"""What a path says: the class of each frame, and how probable it is.

Paths come from a recursion as states, s = 2n for blank[n] and s = 2n + 1 for label[n].
Their probabilities are read again from the scores, so that they have derivatives.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from jax_ctc._lattice import normaliser
from jax_ctc._lattice.pose import Spec
from jax_ctc._lattice.problem import Problem
from jax_ctc._lattice.wildcards import Wildcards, in_wild_gap, takes_anything
from jax_ctc._numbers.derivatives import with_derivative_of
from jax_ctc._numbers.masks import is_inside
from jax_ctc._numbers.precision import accumulator
from jax_ctc._numbers.sizes import Size, is_open
from jax_ctc._numbers.two_floats import sum_frames

PADDING = -1


def live_frames(
    problem: Problem, log_value: Float[Array, " B"], num_frames: Size
) -> Bool[Array, "B T"]:
    """Mark the frames inside the length of utterances that have a path."""
    is_alive = jnp.isfinite(log_value)[:, None]
    return is_inside(problem.logit_lengths, num_frames) & is_alive


def read_along(
    states: Int[Array, "B N T"],
    problem: Problem,
    small: Problem,
    wildcards: Wildcards | None,
    is_live: Bool[Array, "B T"],
    spec: Spec,
) -> tuple[Int[Array, "B N T"], Float[Array, "B N T"]]:
    """Return what each frame of some paths shows, and its log p.

    problem: with its classes; small: as the recursion read it (needed.py).
    """
    num_frames = states.shape[2]
    tokens = tokens_of(states, problem, is_live)
    scores = problem.scores[:, :num_frames]
    log_probs = log_probs_along(scores, tokens, is_live, normalise=spec.normalise)
    if wildcards is None:
        return tokens, log_probs
    is_taken = taken(states, small, wildcards, is_live)
    return with_wildcards(spec, tokens, log_probs, is_taken, wildcards)


def with_wildcards(
    spec: Spec,
    tokens: Int[Array, "B N T"],
    log_probs: Float[Array, "B N T"],
    is_taken: Bool[Array, "B N T"],
    wildcards: Wildcards,
) -> tuple[Int[Array, "B N T"], Float[Array, "B N T"]]:
    """Return both with the wildcard in the frames that it takes."""
    log_prob = wildcards.log_prob.astype(log_probs.dtype)
    tokens = jnp.where(is_taken, jnp.int32(spec.wildcard_id or 0), tokens)
    return tokens, jnp.where(is_taken, log_prob, log_probs)


def taken(
    states: Int[Array, "B N T"],
    small: Problem,
    wildcards: Wildcards,
    is_live: Bool[Array, "B T"],
) -> Bool[Array, "B N T"]:
    """Tell which frames of some paths a wildcard takes."""
    takes = takes_anything(small)[:, : states.shape[2]] & is_live
    return in_wild_gap(states, wildcards) & takes[:, None, :]


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
# Padding may hold NaN: masked before the sums, all scores would be copied; masked
# after, 0 * NaN would have a derivative. So the value is made of all frames, and its
# derivative is of masked ones.
def _log_prob(
    scores: Float[Array, "B T V"],
    place: Int[Array, "B T N"],
    is_live: Bool[Array, "B T"],
) -> Float[Array, "B T N"]:
    """Return log softmax at some classes; anything on frames that are not live."""
    constants, dtype = lax.stop_gradient(scores), accumulator(scores.dtype)
    peak, rest = (x[:, :, None] for x in normaliser.of_all(constants))
    fast = (_at(constants, place).astype(dtype) - peak) - jnp.log1p(rest)
    masked = jnp.where(is_live[:, :, None], scores, 0).astype(dtype)
    plain = _at(masked, place) - jax.nn.logsumexp(masked, axis=2, keepdims=True)
    return with_derivative_of(plain, fast)


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


def place_in(rising: Int[Array, " T"], limits: Int[Array, " U"]) -> Int[Array, " U"]:
    """Return how many numbers of a row that rises lie below each limit."""
    if is_open(*rising.shape):  # JAX's search by halves has to know in how many steps
        is_below = rising[None, :] < limits[:, None]
        return jnp.sum(is_below, axis=1, dtype=jnp.int32)
    return jnp.searchsorted(rising, limits).astype(jnp.int32)
