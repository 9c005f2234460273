"""From states back to classes: a frame's posteriors, added up by what they emit."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._mask import is_at, positions

# By a product with a one-hot below this many classes, by a scatter from it on: a
# product costs U * V per frame, a scatter U but not in a vector.
_SCATTER_CLASSES = 256


def subtract(
    scores: Float[Array, "B T V"],
    first: Int[Array, ""] | int,
    occupancy: Float[Array, "B D S"],
    ids: Int[Array, "B S"],
) -> Float[Array, "B T V"]:
    """Subtract from the rows `first` .. `first` + D - 1 each state's occupancy.

    Rows may not reach past T. In a loop that carries `scores` nothing else is copied.
    """
    num_classes = scores.shape[2]
    if num_classes < _SCATTER_CLASSES:
        return _from_rows(_product, scores, first, occupancy, ids)
    # Merging costs S * S per frame, which for labels beyond V is more than S * V.
    merge = _scatter_merged if ids.shape[1] < num_classes else _product
    return lax.platform_dependent(
        scores,
        first,
        occupancy,
        ids,
        cpu=_scatter_each,
        default=functools.partial(_from_rows, merge),
    )


def _scatter_each(
    scores: Float[Array, "B T V"],
    first: Int[Array, ""] | int,
    occupancy: Float[Array, "B D S"],
    ids: Int[Array, "B S"],
) -> Float[Array, "B T V"]:
    """Subtract state after state, in order: repeatable where a scatter is a loop.

    On a CPU a scatter works in place, and rows need not be cut out for it.
    """
    rows = first + positions(occupancy.shape[1])

    def utterance(scores: jax.Array, occupancy: jax.Array, ids: jax.Array) -> jax.Array:
        where = scores.at[rows[:, None], ids[None, :]]
        return where.add(-occupancy, mode="promise_in_bounds")

    return jax.vmap(utterance)(scores, occupancy, ids)


def _from_rows(
    method: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    scores: Float[Array, "B T V"],
    first: Int[Array, ""] | int,
    occupancy: Float[Array, "B D S"],
    ids: Int[Array, "B S"],
) -> Float[Array, "B T V"]:
    """Cut the rows out, subtract, and put them back."""
    rows = lax.dynamic_slice_in_dim(scores, first, occupancy.shape[1], axis=1)
    rows = method(rows, occupancy, ids)
    return lax.dynamic_update_slice_in_dim(scores, rows, first, axis=1)


def _product(
    rows: Float[Array, "B D V"],
    occupancy: Float[Array, "B D S"],
    ids: Int[Array, "B S"],
) -> Float[Array, "B D V"]:
    """Subtract by a product with a one-hot."""
    one_hot = is_at(ids, rows.shape[2]).astype(rows.dtype)
    return rows - _multiply(occupancy, one_hot)


def _scatter_merged(
    rows: Float[Array, "B D V"],
    occupancy: Float[Array, "B D S"],
    ids: Int[Array, "B S"],
) -> Float[Array, "B D V"]:
    """Merge states of one class first, then subtract each class once.

    A parallel scatter adds duplicates in whatever order they arrive, so two runs would
    differ in the last bits. The first state of a class takes the sum of them all; the
    others are sent out of bounds, each to its own place, and dropped.
    """
    num_classes = rows.shape[2]
    same = ids[:, :, None] == ids[:, None, :]  # [B, S, S]
    place = positions(ids.shape[1], 2)  # [1, S]
    is_first = lax.argmax(same, 1, jnp.int32) == place
    merged = _multiply(occupancy, same.astype(rows.dtype))
    target = jnp.where(is_first, ids, num_classes + place)

    def utterance(rows: jax.Array, merged: jax.Array, target: jax.Array) -> jax.Array:
        return rows.at[:, target].add(-merged, mode="drop", unique_indices=True)

    return jax.vmap(utterance)(rows, merged, target)


def _multiply(
    a: Float[Array, "B D S"], b: Float[Array, "B S C"]
) -> Float[Array, "B D C"]:
    """Multiply in full precision: the default is bfloat16 on TPU, TF32 on GPU."""
    return jnp.einsum("bds,bsc->bdc", a, b, precision=lax.Precision.HIGHEST)
