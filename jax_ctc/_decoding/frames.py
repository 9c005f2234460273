"""What the search looks at in some frames: their best classes, found all at once.

Which classes are worth looking at does not depend on the beam, so that is found for a
chunk of frames in one go. Only a chunk is ever copied.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._decoding.largest import largest
from jax_ctc._lattice.frames import Window, rows_of
from jax_ctc._numbers.masks import positions


class Frames(NamedTuple):
    """Some frames, in time-major order. Past the length nothing but blank is said.

    Scores are in nats, less `log_shift`: log p of a path = its scores + all shifts.
    """

    row: Float[Array, "C B V"]  # scores of all classes
    blank: Float[Array, "C B"]
    best: Float[Array, "C B K"]  # scores of the K best labels, from the best down
    labels: Int[Array, "C B K"]  # their classes
    rank: Int[Array, "C B V"]  # of each class among them; K: it is not
    log_shift: Float[Array, "C B"]
    is_bad: Bool[Array, " B"]  # a live frame holds NaN, +inf, or -inf only


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
    window = Window.of(start, size, scores.shape[1])
    rows = rows_of(scores, window.first, window.size)
    row = jnp.moveaxis(rows[:, window.row_of_frame], 1, 0)  # [C, B, V]
    is_live = window.frames[:, None] < lengths[None, :]
    peak = jnp.max(row, axis=2)
    row = row - peak[:, :, None]
    total = jnp.sum(jnp.exp(row), axis=2)
    is_good = jnp.isfinite(peak) & jnp.isfinite(total)
    is_read = is_live & is_good  # a bad one would poison what it is compared with
    row = jnp.where(is_read[:, :, None], row, -jnp.inf)
    is_blank = positions(row.shape[2], 3) == blank_id
    best, labels = largest(jnp.where(is_blank, -jnp.inf, row), num_labels)
    log_shift = -jnp.log(total) if normalise else peak
    return Frames(
        row=row,
        blank=jnp.where(is_read, row[:, :, blank_id], 0),
        best=best,
        labels=labels,
        rank=_ranks(labels, row.shape[2]),
        log_shift=jnp.where(is_read, log_shift, 0),
        is_bad=jnp.any(is_live & ~is_good, axis=0),
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
