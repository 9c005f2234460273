"""An array read in blocks where it lies, whose derivative is written in blocks.

A loop over the blocks of an array can slice it, or scan over a stack of them. The stack
is a copy of the array; but a slice has a derivative as large as the whole array, for
each block anew. Here a block is read as a slice, and has the derivative of a stack.
Nothing but that derivative asks for the stack: XLA never makes it.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._numbers.derivatives import with_derivative_of
from jax_ctc._numbers.masks import positions
from jax_ctc._numbers.sizes import Size, is_open


class Cut(NamedTuple):
    """How an axis is cut; what its last block has too many are zeros."""

    count: Size  # blocks
    size: Size  # of each

    @property
    def total(self) -> Size:
        """The length of the axis with those zeros."""
        return self.count * self.size


class Blocks(NamedTuple):
    """What a loop over blocks of an array is given."""

    whole: Float[Array, "..."]  # to read from; it has no derivative
    stack: Float[Array, "N ..."]  # to scan over: not to be read


def cut(array: Float[Array, "..."], axis: int, how: Cut, dtype: jnp.dtype) -> Blocks:
    """Return an array's blocks, whose derivatives are of this dtype."""
    spare = [(0, 0)] * array.ndim
    spare[axis] = (0, how.total - array.shape[axis])
    whole = jnp.pad(array, spare)
    stack = whole.astype(dtype).reshape(
        *array.shape[:axis], *how, *array.shape[axis + 1 :]
    )
    return Blocks(lax.stop_gradient(whole), jnp.moveaxis(stack, axis, 0))


def starts(how: Cut) -> Int[Array, " N"]:
    """Return where each block begins."""
    return positions(how.count) * how.size


def read(
    whole: Float[Array, "..."],
    block: Float[Array, "..."],
    axis: int,
    start: Int[Array, ""],
) -> Float[Array, "..."]:
    """Return a block of the stack, read where it lies.

    What is not finite is read as 0: times NaN, a gradient of 0 is NaN.
    """
    here = lax.dynamic_slice_in_dim(whole, start, block.shape[axis], axis)
    here = jnp.where(jnp.isfinite(here), here, 0).astype(block.dtype)
    return with_derivative_of(block, here)


def joined(blocks: Float[Array, "N B K *S"], length: Size) -> Float[Array, "B T *S"]:
    """Return what was made of blocks of the second axis, which is so long."""
    rows = jnp.moveaxis(blocks, 0, 1)
    batch, count, size, *rest = rows.shape
    rows = rows.reshape(batch, count * size, *rest)
    if is_open(length):  # that so many are there, JAX cannot tell
        return jnp.take(rows, positions(length), axis=1, mode="clip")
    return rows[:, :length]
