"""Some frames of the scores: which rows hold them, cut out, widened, gathered from."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from jax_ctc._numbers.precision import accumulator
from jax_ctc._numbers.sizes import Size, is_open, smaller


def rows_of_chunk(
    start: Int[Array, "..."] | int, size: int, num_frames: Size
) -> tuple[Int[Array, "..."] | int, Size]:
    """Return the first row and the number of rows of the scores that hold a chunk.

    Past the end of the scores a chunk's rows are moved back to fit, and its frames no
    longer start at the first of them.
    """
    num_rows = smaller(size, num_frames)
    return jnp.minimum(start, num_frames - num_rows), num_rows


def rows_of(
    scores: Float[Array, "B T V"], first: Int[Array, ""] | int, size: Size
) -> Float[Array, "B K V"]:
    """Slice some frames, and widen them alone."""
    rows = scores
    if is_open(size) or size < scores.shape[1]:
        if scores.dtype.itemsize == 2:
            # Or the bits of all scores, the same in each turn of a loop, are made, and
            # stored, before it.
            rows, first = lax.optimization_barrier((rows, first))
        rows = lax.dynamic_slice_in_dim(to_bits(rows), first, size, axis=1)
        rows = from_bits(rows, scores.dtype)
    return rows.astype(accumulator(scores.dtype))


def gather(
    scores: Float[Array, "B T V"], rows: Int[Array, " K"], ids: Int[Array, "B S"]
) -> Float[Array, "B K S"]:
    """Return scores[b, rows[k], ids[b, s]].

    One gather per utterance: indexing with arange(B) would make a sharded batch gather
    from every device.
    """

    def utterance(scores: jax.Array, ids: Int[Array, " S"]) -> jax.Array:
        where = scores.at[rows[:, None], ids[None, :]]
        return where.get(mode="promise_in_bounds")

    return jax.vmap(utterance)(scores, ids)


def to_bits(x: Float[Array, "..."]) -> Shaped[Array, "..."]:
    """Return half precision as the integers that hold it; other floats as they are.

    XLA on CPU has no half-precision slices: it would widen the whole array to cut a
    chunk from it, and widen and narrow the whole gradient to write a chunk into it.
    """
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype.itemsize == 2 else x


def from_bits(x: Shaped[Array, "..."], dtype: jnp.dtype) -> Float[Array, "..."]:
    """Undo `to_bits`."""
    return lax.bitcast_convert_type(x, dtype) if dtype.itemsize == 2 else x


def stored(array: jax.Array) -> jax.Array:
    """Return the array, which no loop on a CPU computes again.

    XLA on CPU copies a gather into every loop that reads it, and no loop that holds
    one becomes a vector loop. Nothing is fused across a branch whose condition the
    compiler may not look into; an `optimization_barrier` alone is gone too early.
    """
    is_true = lax.optimization_barrier(jnp.int32(0)) == 0
    # The other branch differs, or the two would become one.
    return lax.cond(is_true, lambda x: x, jnp.negative, array)
