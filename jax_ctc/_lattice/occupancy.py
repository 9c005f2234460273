"""From states back to classes: a frame's posteriors, added up by what they emit."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._numbers.masks import is_at, positions

# By a product with a one-hot below this many classes, by a scatter from it on: a
# product costs U * V per frame, a scatter U but not in a vector.
_SCATTER_CLASSES = 256


def subtract(
    rows: Float[Array, "B D V"],
    occupancy: Float[Array, "B D S"],
    ids: Int[Array, "B S"],
) -> Float[Array, "B D V"]:
    """Subtract each state's occupancy from the class that it emits."""
    num_classes = rows.shape[2]
    # Merging costs S * S per frame, which for labels beyond V is more than S * V.
    if num_classes < _SCATTER_CLASSES or ids.shape[1] >= num_classes:
        return _product(rows, occupancy, ids)
    return _scatter_merged(rows, occupancy, ids)


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
