"""Emissions of a vocabulary whose classes lie on several devices.

Each device holds V of the V * D classes, and all that the lattice needs to know of the
others are three small sums over the D devices, taken once per call:

    max_t  = pmax(max over own classes)                             [B, T]
    sum_t  = psum(sum over own classes of exp(score - max_t))       [B, T]
    needed = psum(score where the class is one's own, else 0)       [B, T, U+1]

Every device then has the emissions of all frames and runs the same recursion on them.
The gradient of a class needs max_t, sum_t and the posteriors, which are all at hand: it
is written where the class lies, and nothing of size V ever leaves a device.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice.emissions import (
    ClassEmissions,
    Needed,
    lay_out,
)
from jax_ctc._lattice.frames import Window, gather, rows_of
from jax_ctc._lattice.log_emissions import LogEmissions
from jax_ctc._lattice.normaliser import Normaliser
from jax_ctc._numbers.masks import is_inside, positions

_CHUNK_BYTES = 4 * 2**20
_LEAST_CHUNK = 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardedEmissions(ClassEmissions):
    """The classes of one device, and what the lattice needs of all classes.

    `ids` are of this device's classes; states whose class lies elsewhere have some id
    that is valid, and are not `is_own`. Build it by `shard`.
    """

    is_own: Bool[Array, "B S"]
    log: LogEmissions  # of all T frames
    vocab_axes: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def with_scores(self, scores: Float[Array, "B T V"]) -> "ShardedEmissions":
        """Return the same emissions, read from other scores."""
        own = ClassEmissions.of(
            scores,
            self.ids,
            self.logit_lengths,
            normalise=self.normalise,
            time_axes=self.time_axes,
        )
        return _of_all(own, self.is_own, self.vocab_axes, in_one=True)

    def read(self, start: Int[Array, ""] | int, size: int) -> LogEmissions:
        """Read frames start .. start + size - 1; those at or past T are padding."""
        frames = start + positions(size)

        def rows(x: Float[Array, "T ..."], padding: float) -> Float[Array, "K ..."]:
            return x.at[frames].get(mode="fill", fill_value=padding)

        return LogEmissions(
            blank=rows(self.log.blank, 0.0),
            label=rows(self.log.label, -jnp.inf),
            log_shift=rows(self.log.log_shift, 0.0),
            is_bad=self.log.is_bad,
        )

    def read_all(self) -> LogEmissions:
        """Read every frame, in a way that JAX differentiates to any order."""
        return self.log

    def write_gradient(
        self,
        gradient: Float[Array, "B T V"],
        start: Int[Array, ""] | int,
        blank: Float[Array, "K B"],
        label: Float[Array, "K B U"],
        is_alive: Bool[Array, " B"],
    ) -> Float[Array, "B T V"]:
        """Write the gradient of this device's classes in K frames."""
        blank = jnp.where(self.is_own[:, -1], blank, 0)
        label = jnp.where(self.is_own[:, :-1], label, 0)
        return super().write_gradient(gradient, start, blank, label, is_alive)


def shard(
    emissions: ClassEmissions, vocab_axes: tuple[str, ...], *, in_one: bool
) -> ShardedEmissions:
    """Return the emissions of one device's scores, given the ids of all devices.

    The scores are read in chunks of frames, or in one, as JAX would differentiate it.
    """
    num_classes = emissions.scores.shape[2]
    own_ids = emissions.ids - lax.axis_index(vocab_axes) * num_classes
    is_own = (own_ids >= 0) & (own_ids < num_classes)
    own = dataclasses.replace(emissions, ids=jnp.clip(own_ids, 0, num_classes - 1))
    return _of_all(own, is_own, vocab_axes, in_one=in_one)


def _of_all(
    own: ClassEmissions,
    is_own: Bool[Array, "B S"],
    vocab_axes: tuple[str, ...],
    *,
    in_one: bool,
) -> ShardedEmissions:
    """Add up what the devices know of their own classes."""
    num_frames = own.num_frames
    found = _survey(own, num_frames if in_one else _chunk_frames(own))
    is_live = is_inside(own.logit_lengths, num_frames)  # [B, T]

    # Not every backend's maximum over devices keeps NaN; all of them keep +inf.
    peak = jnp.where(jnp.isnan(found.peak), jnp.inf, found.peak)
    peak = lax.pmax(peak, vocab_axes)
    is_bad = jnp.any(~jnp.isfinite(peak) & is_live, axis=1)
    is_read = is_live & ~is_bad[:, None]
    peak = jnp.where(is_read, peak, 0)

    is_needed = is_read[:, :, None] & is_own[:, None, :]
    needed = lax.psum(jnp.where(is_needed, found.needed, 0), vocab_axes)
    normaliser = None
    if own.normalise:
        below = jnp.where(is_read & jnp.isfinite(found.peak), found.peak - peak, 0)
        total = jnp.where(is_read, found.total * jnp.exp(below), 1)
        total = lax.psum(total, vocab_axes)
        normaliser = Normaliser(peak, total)
    return ShardedEmissions(
        scores=own.scores,
        ids=own.ids,
        logit_lengths=own.logit_lengths,
        normaliser=normaliser or own.normaliser,
        normalise=own.normalise,
        time_axes=own.time_axes,
        is_own=is_own,
        log=lay_out(
            Needed(needed[:, :, -1:], needed[:, :, :-1]), normaliser, is_live, is_bad
        ),
        vocab_axes=vocab_axes,
    )


class _Survey(NamedTuple):
    """What one device knows of its classes, per frame."""

    needed: Float[Array, "B T S"]  # the score of each of its ids
    peak: Float[Array, "B T"]  # the maximum, whatever it is
    total: Float[Array, "B T"]  # the sum of exp(score - maximum), where that is finite


def _survey(own: ClassEmissions, chunk: int) -> _Survey:
    """Look through the scores, `chunk` frames at a time."""
    num_frames = own.num_frames
    chunk = min(chunk, num_frames)

    def look(start: Int[Array, ""] | int) -> _Survey:
        window = Window.of(start, chunk, num_frames)
        scores = rows_of(own.scores, window.first, window.size)
        frames = (window.first + positions(window.size))[None, :]
        is_live = frames < own.logit_lengths[:, None]
        needed = gather(scores, window.row_of_frame, own.ids)
        peak = lax.stop_gradient(jnp.max(scores, axis=2))
        # A `where` on a result still sends 0 * NaN through the side not taken, so
        # padding and bad frames are replaced before any arithmetic.
        is_clean = is_live & (peak < jnp.inf)
        above = scores - jnp.where(jnp.isfinite(peak), peak, 0)[:, :, None]
        above = jnp.where(is_clean[:, :, None], above, 0)
        total = jnp.sum(jnp.exp(above), axis=2)
        rows = window.row_of_frame
        return _Survey(needed, peak[:, rows], total[:, rows])

    if chunk == num_frames:
        return look(0)
    starts = positions(-(-num_frames // chunk)) * chunk

    def join(x: Float[Array, "C B K ..."]) -> Float[Array, "B T ..."]:
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :num_frames]

    return jax.tree.map(join, lax.map(look, starts))


def _chunk_frames(own: ClassEmissions) -> int:
    """Return how many frames to look at together: a few MB, as a copy may be made."""
    return max(_CHUNK_BYTES // max(own.bytes_per_frame, 1), _LEAST_CHUNK)
