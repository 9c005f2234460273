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
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice import normaliser
from jax_ctc._lattice.frames import Window, gather, rows_of
from jax_ctc._lattice.log_emissions import LogEmissions
from jax_ctc._lattice.normaliser import Normaliser
from jax_ctc._lattice.occupancy import subtract
from jax_ctc._lattice.wall import stored
from jax_ctc._numbers.masks import is_inside, positions

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
        frames = start + positions(size)
        rows = jnp.minimum(frames, self.num_frames - 1)
        is_live = frames[None, :] < self.logit_lengths[:, None]
        needed = _gather(self.scores, rows, self.ids)
        needed = needed._replace(label=stored(needed.label))
        here = Normaliser(*(jnp.take(x, rows, axis=1) for x in self.normaliser))
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

    def write_gradient(
        self,
        gradient: Float[Array, "B T V"],
        start: Int[Array, ""] | int,
        blank: Float[Array, "K B"],
        label: Float[Array, "K B U"],
        is_alive: Bool[Array, " B"],
    ) -> Float[Array, "B T V"]:
        """Write softmax - posterior (or -posterior) of K frames; 0 on dead frames.

        Chunks come from the right: at the ragged end the window reaches back over
        frames of its left neighbour, which then puts them right.
        """
        window = Window.of(start, label.shape[0], self.num_frames)
        occupancy = jnp.concatenate([label, blank[:, :, None]], axis=2)
        occupancy = jnp.take(
            occupancy, jnp.maximum(window.frame_of_row, 0), axis=0, mode="clip"
        )
        rows = rows_of(self.scores, window.first, window.size)
        softmax = jnp.zeros_like(rows)
        if self.normalise:
            peak, total = (
                lax.dynamic_slice_in_dim(x, window.first, window.size, 1)[:, :, None]
                for x in self.normaliser
            )
            softmax = jnp.exp(rows - peak) / total
        rows = subtract(softmax, jnp.moveaxis(occupancy, 0, 1), self.ids)
        frames = (window.first + positions(window.size))[None, :]
        is_kept = (frames < self.logit_lengths[:, None]) & is_alive[:, None]
        rows = jnp.where(is_kept[:, :, None], rows, 0).astype(gradient.dtype)
        return lax.dynamic_update_slice_in_dim(gradient, rows, window.first, axis=1)

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
