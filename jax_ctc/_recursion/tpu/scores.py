"""From classes to states and back, by the units that a TPU has for products.

A one-hot factor is exact in bfloat16, and HIGHEST splits a float32 score into parts
that add up to it again: so a product with a one-hot picks scores, or adds up
occupancies, exactly as a gather and a scatter would, which a TPU does one at a time.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice import occupancy
from jax_ctc._lattice.normaliser import Normaliser, softmax
from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers.masks import is_at, positions
from jax_ctc._numbers.precision import accumulator

# A product costs U * V a frame, a gather U: beyond so many classes it is the cheaper.
_MOST_CLASSES = 4096
# 0 * inf is NaN: what is below any score stands in for -inf.
_LEAST = -3e38


def is_product(num_classes: int) -> bool:
    """Tell whether products are how scores are picked here."""
    return num_classes <= _MOST_CLASSES


def rows_of(
    scores: Float[Array, "B T V"], first: Int[Array, ""], size: int
) -> Float[Array, "B K V"]:
    """Slice some frames, and widen them alone."""
    rows = lax.dynamic_slice_in_dim(scores, first, size, axis=1)
    return rows.astype(accumulator(scores.dtype))


def pick(
    scores: Float[Array, "B T V"],
    first: Int[Array, ""],
    size: int,
    ids: Int[Array, "B S"],
) -> Float[Array, "B K S"]:
    """Return scores[b, first + k, ids[b, s]] of `size` frames."""
    if not is_product(scores.shape[2]):
        return _gather(scores, first + positions(size), ids)
    # NaN stays, and its utterance is flagged.
    rows = jnp.maximum(rows_of(scores, first, size), _LEAST)
    one_hot = is_at(ids, rows.shape[2]).astype(rows.dtype)  # [B, S, V]
    picked = jnp.einsum("bkv,bsv->bks", rows, one_hot, precision=lax.Precision.HIGHEST)
    return jnp.where(picked <= _LEAST, -jnp.inf, picked)


def _gather(
    scores: Float[Array, "B T V"], rows: Int[Array, " K"], ids: Int[Array, "B S"]
) -> Float[Array, "B K S"]:
    """As `frames.gather`, of the scores as they are: a TPU slices half precision."""

    def utterance(scores: jax.Array, ids: Int[Array, " S"]) -> jax.Array:
        where = scores.at[rows[:, None], ids[None, :]]
        return where.get(mode="promise_in_bounds")

    return jax.vmap(utterance)(scores, ids).astype(accumulator(scores.dtype))


def write(
    problem: Problem,
    gradient: Float[Array, "B T V"],
    first: Int[Array, ""],
    here: Normaliser | None,
    posterior: Float[Array, "B K S"],
    is_alive: Bool[Array, " B"],
) -> Float[Array, "B T V"]:
    """Write the gradient of K frames into that of all; exactly 0 on dead frames.

    here: the frames' normalisers; without them -posterior, not softmax - posterior.
    """
    size = posterior.shape[1]
    rows = rows_of(problem.scores, first, size)
    rows = softmax(rows, here) if here else jnp.zeros_like(rows)
    if is_product(rows.shape[2]):
        one_hot = is_at(problem.ids, rows.shape[2]).astype(rows.dtype)
        rows = rows - jnp.einsum(
            "bks,bsv->bkv", posterior, one_hot, precision=lax.Precision.HIGHEST
        )
    else:
        rows = occupancy.subtract(rows, posterior, problem.ids)
    frames = (first + positions(size))[None, :]
    is_kept = (frames < problem.logit_lengths[:, None]) & is_alive[:, None]
    rows = jnp.where(is_kept[:, :, None], rows, 0).astype(problem.scores.dtype)
    return lax.dynamic_update_slice_in_dim(gradient, rows, first, axis=1)
