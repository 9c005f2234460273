"""Some frames of the scores: which they are, and how they are cut out and widened."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._numbers.masks import positions
from jax_ctc._numbers.precision import accumulator


@dataclasses.dataclass(frozen=True)
class Window:
    """K frames from `start`, and the D = min(K, T) rows of the scores that hold them.

    Past the end of the scores a window of rows is moved back to fit, and frames then
    no longer start at its first row.
    """

    first: Int[Array, ""] | int  # the first row
    size: int  # D
    frames: Int[Array, " K"]
    row_of_frame: Int[Array, " K"]  # clipped: frames past the end are padding
    frame_of_row: Int[Array, " D"]  # negative: the row is of an earlier window

    @staticmethod
    def of(start: Int[Array, ""] | int, size: int, num_frames: int) -> "Window":
        """Return the window of `size` frames from `start`, out of `num_frames`."""
        rows = min(size, num_frames)
        first = jnp.minimum(start, num_frames - rows)
        frames = start + positions(size)
        return Window(
            first=first,
            size=rows,
            frames=frames,
            row_of_frame=jnp.minimum(frames - first, rows - 1),
            frame_of_row=first + positions(rows) - start,
        )


def rows_of(
    scores: Float[Array, "B T V"], first: Int[Array, ""] | int, size: int
) -> Float[Array, "B {size} V"]:
    """Slice some frames, and widen them alone."""
    rows = scores
    if size < scores.shape[1]:
        rows = lax.dynamic_slice_in_dim(rows, first, size, axis=1)
    return rows.astype(accumulator(scores.dtype))


def gather(
    scores: Float[Array, "B D V"], rows: Int[Array, " K"], ids: Int[Array, "B S"]
) -> Float[Array, "B K S"]:
    """Return scores[b, rows[k], ids[b, s]], and widen what was gathered alone.

    One gather per utterance: indexing with arange(B) would make a sharded batch gather
    from every device.
    """

    def utterance(scores: jax.Array, ids: Int[Array, " S"]) -> jax.Array:
        where = scores.at[rows[:, None], ids[None, :]]
        return where.get(mode="promise_in_bounds")

    return jax.vmap(utterance)(scores, ids).astype(accumulator(scores.dtype))
