"""Class scores to lattice scores and back: normalise, gather V to U, scatter U to V.

A recursion reads a chunk of frames at a time, and of a chunk the few scores that it
needs: neither log-probabilities nor a one-hot of T * U * V exist. What all classes have
a part in, each frame's normaliser, is found once per call on a CPU, and for each chunk
elsewhere. Here are the library's only transposes, from batch-major scores to time-major
lattice rows.

    log p_t(v)   = scores[t, v] - peak_t - log(total_t)     peak_t: over all classes
    log_emission = scores[t, v] - best_t                    best_t: over the needed ones
    log_shift    = best_t - peak_t - log(total_t)           added back once per frame

Two scores that compete in a frame are subtracted from the nearer of two references:
measured from `best_t` their difference survives rounding even when both lie far below
the frame's winner, and logits offset by 1e4 cost nothing.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc import _normaliser as normaliser
from jax_ctc._mask import is_inside, positions
from jax_ctc._normaliser import Normaliser
from jax_ctc._occupancy import subtract
from jax_ctc._rows import Window, from_bits, gather, rows_of, to_bits
from jax_ctc._stored import stored
from jax_ctc._types import GradientBuffer, LogEmissions

# Finite scores may lie further apart than float32 reaches. Far beyond what counts as
# possible, and yet a sum over any number of frames stays finite.
_LEAST_SHIFT = -1e30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassEmissions:
    """Scores over classes, read through the classes that one lattice needs."""

    scores: Float[Array, "B T V"]
    ids: Int[Array, "B S"]  # S = U + 1: the class of each label, then the blank
    logit_lengths: Int[Array, " B"]  # within 0..T
    normaliser: Normaliser
    normalise: bool = dataclasses.field(metadata={"static": True})
    # Mesh axes whose devices have a stretch of T frames each, and its part of lengths.
    time_axes: tuple[str, ...] = dataclasses.field(
        default=(), metadata={"static": True}
    )

    @staticmethod
    def of(
        scores: Float[Array, "B T V"],
        ids: Int[Array, "B S"],
        logit_lengths: Int[Array, " B"],
        *,
        normalise: bool,
        time_axes: tuple[str, ...] = (),
    ) -> "ClassEmissions":
        """Look through all the scores, so that a recursion need not."""
        found = normaliser.of_all(scores)
        return ClassEmissions(scores, ids, logit_lengths, found, normalise, time_axes)

    @property
    def num_frames(self) -> int:
        """T."""
        return self.scores.shape[1]

    @property
    def bytes_per_frame(self) -> int:
        """Memory of one frame's scores, in the precision they are computed in."""
        batch, _, num_classes = self.scores.shape
        return batch * num_classes * max(self.scores.dtype.itemsize, 4)

    def with_scores(self, scores: Float[Array, "B T V"]) -> "ClassEmissions":
        """Return the same emissions, read from other scores."""
        return dataclasses.replace(
            self, scores=scores, normaliser=normaliser.of_all(scores)
        )

    def unnormalised(self) -> "ClassEmissions":
        """Return the same emissions, whose gradient has no softmax in it."""
        return dataclasses.replace(self, normalise=False)

    def read(self, start: Int[Array, ""] | int, size: int) -> LogEmissions:
        """Read frames start .. start + size - 1; those at or past T are padding."""
        window = Window.of(start, size, self.num_frames)
        rows = rows_of(self.scores, window.first, window.size)
        needed = lax.platform_dependent(
            self.scores,
            rows,
            self.ids,
            window.first,
            window.row_of_frame,
            cpu=_gather_from_all,
            default=_gather_from_rows,
        )
        here = Normaliser(
            *(x[:, window.row_of_frame] for x in self._here(rows, window.first))
        )
        is_live = window.frames[None, :] < self.logit_lengths[:, None]
        return self._lay_out(needed, here, is_live)

    def read_all(self) -> LogEmissions:
        """Read every frame, in a way that JAX differentiates to any order.

        A `where` on a result still sends 0 * NaN through the side not taken, so
        padding and bad utterances are replaced before any arithmetic.
        """
        scores = rows_of(self.scores, 0, self.num_frames)
        is_live = is_inside(self.logit_lengths, self.num_frames)
        is_bad = _is_bad(self.normaliser, is_live)
        is_read = is_live & ~is_bad[:, None]
        clean = jnp.where(is_read[:, :, None], scores, 0)
        rows = positions(self.num_frames)
        needed = _gather(clean, rows, self.ids)
        log = self._lay_out(needed, normaliser.of_rows(clean), is_live)
        return log._replace(is_bad=is_bad)

    def empty_gradient(self, is_alive: Bool[Array, " B"]) -> GradientBuffer:
        """Return what `write_gradient` writes into."""
        zeros = to_bits(jnp.zeros_like(self.scores))
        if not self.normalise or self._is_half:
            return zeros
        return lax.platform_dependent(
            zeros,
            is_alive,
            cpu=lambda _, is_alive: self._softmax(0, self.num_frames, is_alive),
            default=lambda zeros, _: zeros,
        )

    def write_gradient(
        self,
        gradient: GradientBuffer,
        start: Int[Array, ""] | int,
        blank: Float[Array, "K B"],
        label: Float[Array, "K B U"],
        is_alive: Bool[Array, " B"],
    ) -> GradientBuffer:
        """Write softmax - posterior (or -posterior) of K frames; 0 on dead frames.

        Chunks come from the right: at the ragged end the window reaches back over
        frames of its left neighbour, which then puts them right.
        """
        window = Window.of(start, label.shape[0], self.num_frames)
        occupancy = jnp.concatenate([label, blank[:, :, None]], axis=2)
        occupancy = jnp.take(
            occupancy, jnp.maximum(window.frame_of_row, 0), axis=0, mode="clip"
        )
        is_own = (window.frame_of_row >= 0)[None, :]
        is_kept = self._is_kept(window.first, window.size, is_alive) & is_own
        occupancy = jnp.where(is_kept[:, :, None], jnp.moveaxis(occupancy, 0, 1), 0)
        whole = functools.partial(self._write_rows, window.size)
        if self._is_half:
            return whole(gradient, window.first, occupancy, is_alive)
        return lax.platform_dependent(
            gradient,
            window.first,
            occupancy,
            is_alive,
            cpu=lambda gradient, first, occupancy, _: subtract(
                gradient, first, occupancy, self.ids
            ),
            default=whole,
        )

    def _write_rows(
        self,
        size: int,
        gradient: GradientBuffer,
        first: Int[Array, ""] | int,
        occupancy: Float[Array, "B D S"],
        is_alive: Bool[Array, " B"],
    ) -> GradientBuffer:
        """Write whole rows: a difference that is taken before it is narrowed."""
        if self.normalise:
            rows = self._softmax(first, size, is_alive)
        else:
            rows = jnp.zeros_like(rows_of(self.scores, first, size))
        rows = subtract(rows, 0, occupancy, self.ids)
        rows = to_bits(rows.astype(self.scores.dtype))
        return lax.dynamic_update_slice_in_dim(gradient, rows, first, axis=1)

    def finish_gradient(self, gradient: GradientBuffer) -> Float[Array, "B T V"]:
        """Return what was written, in the dtype of `scores`."""
        return from_bits(gradient, self.scores.dtype)

    def _softmax(
        self, first: Int[Array, ""] | int, size: int, is_alive: Bool[Array, " B"]
    ) -> Float[Array, "B D V"]:
        """Return the softmax of some rows, 0 on dead frames."""
        rows = rows_of(self.scores, first, size)
        peak, total = (x[:, :, None] for x in self._here(rows, first))
        softmax = jnp.exp(rows - peak) / total
        return jnp.where(self._is_kept(first, size, is_alive)[:, :, None], softmax, 0)

    def _here(
        self, rows: Float[Array, "B D V"], first: Int[Array, ""] | int
    ) -> Normaliser:
        """Return the normalisers of some rows: those found, or found again.

        On a CPU one pass over all the scores uses all cores, and a chunk need not look
        at its own. A TPU, whose rows are then only gathered from, would turn all the
        scores round for that; and there a pass over a chunk costs little.
        """
        return lax.platform_dependent(
            rows,
            first,
            self.normaliser,
            cpu=rows_of_normaliser,
            default=lambda rows, first, _: normaliser.of_rows(rows),
        )

    def _is_kept(
        self, first: Int[Array, ""] | int, size: int, is_alive: Bool[Array, " B"]
    ) -> Bool[Array, "B D"]:
        """Tell which rows have a gradient."""
        rows = (first + positions(size))[None, :]
        return (rows < self.logit_lengths[:, None]) & is_alive[:, None]

    @property
    def _is_half(self) -> bool:
        return self.scores.dtype.itemsize == 2

    def _lay_out(
        self, needed: "Needed", here: Normaliser, is_live: Bool[Array, "B K"]
    ) -> LogEmissions:
        """Lay out what was read, given the normalisers of its frames."""
        is_bad = _is_bad(here, is_live)
        return lay_out(needed, here if self.normalise else None, is_live, is_bad)


class Needed(NamedTuple):
    """The scores of the classes that the lattice emits, in K frames."""

    blank: Float[Array, "B K 1"]
    label: Float[Array, "B K U"]


def rows_of_normaliser(
    rows: Float[Array, "B D V"], first: Int[Array, ""] | int, found: Normaliser
) -> Normaliser:
    size = rows.shape[1]
    return Normaliser(
        *(lax.dynamic_slice_in_dim(x, first, size, axis=1) for x in found)
    )


def _gather_from_all(
    scores: Float[Array, "B T V"],
    rows: Float[Array, "B D V"],
    ids: Int[Array, "B S"],
    first: Int[Array, ""],
    row_of_frame: Int[Array, " K"],
) -> Needed:
    """Gather from the scores where they lie, and keep what was gathered."""
    del rows
    needed = _gather(scores, first + row_of_frame, ids)
    return needed._replace(label=stored(needed.label))


def _gather_from_rows(
    scores: Float[Array, "B T V"],
    rows: Float[Array, "B D V"],
    ids: Int[Array, "B S"],
    first: Int[Array, ""],
    row_of_frame: Int[Array, " K"],
) -> Needed:
    del scores, first
    return _gather(rows, row_of_frame, ids)


def _gather(
    scores: Float[Array, "B D V"], rows: Int[Array, " K"], ids: Int[Array, "B S"]
) -> Needed:
    return Needed(
        blank=gather(scores, rows, ids[:, -1:]),
        label=gather(scores, rows, ids[:, :-1]),
    )


def lay_out(
    needed: Needed,
    normaliser: Normaliser | None,
    is_live: Bool[Array, "B K"],
    is_bad: Bool[Array, " B"],
) -> LogEmissions:
    """Shift and mask the needed scores of K frames, and lay them out by frame.

    Without normalisers scores are taken as they are.
    """
    blank, label = needed
    best = jnp.max(label, axis=2, initial=-jnp.inf)
    best = lax.stop_gradient(jnp.maximum(best, blank[:, :, 0]))  # [B, K]
    best = jnp.where(best == -jnp.inf, 0, best)
    shift = best
    if normaliser is not None:
        shift = (best - normaliser.peak) - jnp.log(normaliser.total)
    best, is_read = best[:, :, None], is_live[:, :, None]
    blank = jnp.where(is_read, blank - best, 0)
    label = jnp.where(is_read, label - best, -jnp.inf)
    return LogEmissions(
        blank=jnp.moveaxis(blank, 1, 0),
        label=jnp.moveaxis(label, 1, 0),
        log_shift=jnp.where(is_live, jnp.maximum(shift, _LEAST_SHIFT), 0).T,
        is_bad=is_bad,
    )


def _is_bad(here: Normaliser, is_live: Bool[Array, "B K"]) -> Bool[Array, " B"]:
    """Tell which utterances have a live frame that holds NaN, +inf, or -inf only."""
    is_good = jnp.isfinite(here.peak) & jnp.isfinite(here.total)
    return jnp.any(~is_good & is_live, axis=1)
