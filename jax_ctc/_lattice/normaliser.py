"""What the scores of a frame are normalised by.

    peak_t  = max_v scores[t, v]
    total_t = sum_v exp(scores[t, v] - peak_t)

Kept apart: log p_t(v) = (scores[t, v] - peak_t) - log(total_t), subtracted in this
order, costs logits that are offset by 1e4 nothing. Their sum would round first.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jax_ctc._numbers.precision import accumulator


class Normaliser(NamedTuple):
    """Of each frame; NaN or infinite where its scores are."""

    peak: Float[Array, "B T"]
    total: Float[Array, "B T"]


def of_rows(scores: Float[Array, "B D V"]) -> Normaliser:
    """Return the normalisers of scores in the precision to compute in."""
    peak = lax.stop_gradient(jnp.max(scores, axis=2))
    return Normaliser(peak, jnp.sum(jnp.exp(scores - peak[:, :, None]), axis=2))


def of_all(scores: Float[Array, "B T V"]) -> Normaliser:
    """Return the normalisers of all frames, without derivatives."""
    scores = lax.stop_gradient(scores)
    return of_rows(scores.astype(accumulator(scores.dtype)))
