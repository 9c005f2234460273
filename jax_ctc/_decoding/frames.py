"""What the search looks at in some frames: their best classes, found all at once.

Which classes are worth looking at does not depend on the beam, so that is found for a
chunk of frames in one go. Only a chunk is ever copied.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._decoding.largest import largest
from jax_ctc._lattice import normaliser
from jax_ctc._lattice.frames import rows_of, rows_of_chunk
from jax_ctc._numbers.masks import positions


class Frame(NamedTuple):
    """What a step of the search sees; past the length nothing but blank is said."""

    row: Float[Array, "*CB V"]  # nats, scores of all classes, the best at 0
    blank: Float[Array, "*CB"]
    best: Float[Array, "*CB K"]  # of the K best labels, from the best down
    labels: Int[Array, "*CB K"]  # and their classes
    rank: Int[Array, "*CB V"]  # of each class among them; K: it is not


class Frames(NamedTuple):
    """Some frames, in time-major order."""

    seen: Frame  # [C, B, ...]
    log_shift: Float[Array, "C B"]  # log p of a path = its scores + all shifts
    is_bad: Bool[Array, "C B"]  # a live frame holds NaN, +inf, or -inf only


def look(
    scores: Float[Array, "B T V"],
    lengths: Int[Array, " B"],
    start: Int[Array, ""] | int,
    *,
    size: int,
    num_labels: int,
    blank_id: int,
    normalise: bool,
) -> Frames:
    """Look at frames start .. start + size - 1, those at or past T as at padding."""
    first, num_rows = rows_of_chunk(start, size, scores.shape[1])
    frames = start + positions(size)
    rows = rows_of(scores, first, num_rows)
    row = jnp.take(rows, jnp.minimum(frames - first, num_rows - 1), axis=1, mode="clip")
    row = jnp.moveaxis(row, 1, 0)  # [C, B, V]
    found = normaliser.of(row)
    is_live = frames[:, None] < lengths[None, :]
    is_good = normaliser.is_good(found)
    is_read = is_live & is_good  # a bad one would poison what it is compared with
    row = jnp.where(is_read[:, :, None], row - found.peak[:, :, None], -jnp.inf)
    is_blank = positions(row.shape[2], 3) == blank_id
    best, labels = largest(jnp.where(is_blank, -jnp.inf, row), num_labels)
    log_shift = -jnp.log1p(found.rest) if normalise else found.peak
    return Frames(
        seen=Frame(
            row=row,
            blank=jnp.where(is_read, row[:, :, blank_id], 0),
            best=best,
            labels=labels,
            rank=_ranks(labels, row.shape[2]),
        ),
        log_shift=jnp.where(is_read, log_shift, 0),
        is_bad=is_live & ~is_good,
    )


def _ranks(labels: Int[Array, "C B K"], num_classes: int) -> Int[Array, "C B V"]:
    """Return where each class is among those chosen."""
    num_labels = labels.shape[2]

    def frame(labels: Int[Array, " K"]) -> Int[Array, " V"]:
        nowhere = jnp.full_like(labels, num_labels, shape=(num_classes,))
        return nowhere.at[labels].set(
            positions(num_labels), mode="promise_in_bounds", unique_indices=True
        )

    return jax.vmap(jax.vmap(frame))(labels)
