"""What the scores of a frame are normalised by.

    peak_t  = max_v scores[t, v]
    total_t = sum_v exp(scores[t, v] - peak_t)

Kept apart: log p_t(v) = (scores[t, v] - peak_t) - log(total_t), subtracted in this
order, costs logits that are offset by 1e4 nothing. Their sum would round first.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._mask import positions
from jax_ctc._rows import rows_of
from jax_ctc._types import accumulator

_CHUNK_FRAMES = 64


class Normaliser(NamedTuple):
    """Of each frame; NaN or infinite where its scores are."""

    peak: Float[Array, "B T"]
    total: Float[Array, "B T"]


def of_rows(scores: Float[Array, "B D V"]) -> Normaliser:
    """Return the normalisers of scores in the precision to compute in."""
    peak = lax.stop_gradient(jnp.max(scores, axis=2))
    return Normaliser(peak, jnp.sum(jnp.exp(scores - peak[:, :, None]), axis=2))


def of_all(scores: Float[Array, "B T V"]) -> Normaliser:
    """Return the normalisers of all frames, without derivatives.

    Half precision goes chunk by chunk: XLA on CPU would widen all scores at once.
    """
    scores = lax.stop_gradient(scores)
    frames = scores.shape[1]
    size = min(_CHUNK_FRAMES, frames)
    if scores.dtype.itemsize > 2 or size == frames:
        return of_rows(rows_of(scores, 0, frames))

    def write(buffers: Normaliser, start: Int[Array, ""]) -> tuple[Normaliser, None]:
        first = jnp.minimum(start, frames - size)  # the last overlaps its neighbour
        values = of_rows(rows_of(scores, first, size))
        return Normaliser(
            *(
                lax.dynamic_update_slice_in_dim(buffer, value, first, axis=1)
                for buffer, value in zip(buffers, values, strict=True)
            )
        ), None

    empty = jnp.zeros_like(scores[:, :, 0], accumulator(scores.dtype))
    starts = positions(-(-frames // size)) * size
    return lax.scan(write, Normaliser(empty, empty), starts)[0]
