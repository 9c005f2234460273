"""Emissions of utterances whose classes, or frames, lie on several devices.

Each device holds V of the V * D classes, and all that the lattice needs to know of the
others are three small sums over the D devices, taken once per call:

    max_t  = pmax(max over own classes)                             [B, T]
    sum_t  = psum(sum over own classes of exp(score - max_t))       [B, T]
    needed = psum(score where the class is one's own, else 0)       [B, T, U+1]

Every device then has the emissions of all frames and runs the same recursion on them.
The gradient of a class needs max_t, sum_t and the posteriors, which are all at hand: it
is written where the class lies, and nothing of size V ever leaves a device.

Where frames are sharded, each device reads its own stretch of them, with its own part
of every length; the recursion does the rest.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._emissions import ClassEmissions, gather, lay_out
from jax_ctc._mask import is_inside, positions
from jax_ctc._types import GradientBuffer, LogEmissions, accumulator


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ShardedEmissions(ClassEmissions):
    """The classes and frames of one device, and what the lattice needs of all classes.

    `ids` are of this device's classes; states whose class lies elsewhere have some id
    that is valid, and are not `is_own`. Build it by `shard`.
    """

    is_own: Bool[Array, "B S"]
    global_ids: Int[Array, "B S"]
    global_lengths: Int[Array, " B"]
    log: LogEmissions  # of this device's T frames
    peak: Float[Array, "B T"]  # max_t, 0 where a frame is not read
    total: Float[Array, "B T"]  # sum_t
    axes: tuple[tuple[str, ...], tuple[str, ...]] = dataclasses.field(
        metadata={"static": True}
    )  # of classes, of frames

    @property
    def time_axes(self) -> tuple[str, ...]:
        """Mesh axes whose devices have a stretch of T frames each."""
        return self.axes[1]

    def with_scores(self, scores: Float[Array, "B T V"]) -> "ShardedEmissions":
        """Return the same emissions, read from other scores."""
        return shard(
            scores,
            self.global_ids,
            self.global_lengths,
            normalise=self.normalise,
            vocab_axes=self.axes[0],
            time_axes=self.axes[1],
        )

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
        gradient: GradientBuffer,
        start: Int[Array, ""] | int,
        blank: Float[Array, "K B"],
        label: Float[Array, "K B U"],
        is_alive: Bool[Array, " B"],
    ) -> GradientBuffer:
        """Write the gradient of this device's classes in K frames."""
        blank = jnp.where(self.is_own[:, -1], blank, 0)
        label = jnp.where(self.is_own[:, :-1], label, 0)
        return super().write_gradient(gradient, start, blank, label, is_alive)

    def _probability(
        self, scores: Float[Array, "B D V"], first: Int[Array, ""] | int
    ) -> Float[Array, "B D V"]:
        """Return d(log normalisers) / d scores of rows from `first`: softmax, or 0."""
        if not self.normalise:
            return jnp.zeros_like(scores)
        peak, total = (
            lax.dynamic_slice_in_dim(x, first, scores.shape[1], axis=1)[:, :, None]
            for x in (self.peak, self.total)
        )
        return jnp.exp(scores - peak) / total


def shard(
    scores: Float[Array, "B T V"],
    ids: Int[Array, "B S"],
    logit_lengths: Int[Array, " B"],
    *,
    normalise: bool,
    vocab_axes: tuple[str, ...],
    time_axes: tuple[str, ...],
) -> ShardedEmissions:
    """Return the emissions of one device's scores; ids and lengths are of all devices.

    A `where` on a result still sends 0 * NaN through the side not taken, so padding and
    bad utterances are replaced before any arithmetic.
    """
    num_frames, num_classes = scores.shape[1:]
    own_ids = ids - _index(vocab_axes) * num_classes
    is_own = (own_ids >= 0) & (own_ids < num_classes)
    own_ids = jnp.clip(own_ids, 0, num_classes - 1)
    own_lengths = jnp.clip(
        logit_lengths - _index(time_axes) * num_frames, 0, num_frames
    )
    is_live = is_inside(own_lengths, num_frames)  # [B, T]

    wide = scores.astype(accumulator(scores.dtype))
    peak = jnp.max(lax.stop_gradient(wide), axis=2)
    # Not every backend's maximum over devices keeps NaN; all of them keep +inf.
    peak = jnp.where(jnp.isnan(peak), jnp.inf, peak)
    peak = lax.pmax(peak, vocab_axes) if vocab_axes else peak
    is_bad = jnp.any(~jnp.isfinite(peak) & is_live, axis=1)
    is_bad = _sum(is_bad.astype(jnp.int32), time_axes) > 0
    is_read = is_live & ~is_bad[:, None]
    peak = jnp.where(is_read, peak, 0)

    needed = gather(wide, positions(num_frames), own_ids)  # [B, T, S]
    needed = jnp.where(is_read[:, :, None] & is_own[:, None, :], needed, 0)
    needed = _sum(needed, vocab_axes)
    total = jnp.ones_like(peak)
    normaliser = None
    if normalise:
        above = jnp.where(is_read[:, :, None], wide - peak[:, :, None], 0)
        total = _sum(jnp.sum(jnp.exp(above), axis=2), vocab_axes)
        normaliser = peak, jnp.log(total)
    return ShardedEmissions(
        scores=scores,
        ids=own_ids,
        logit_lengths=own_lengths,
        normalise=normalise,
        is_own=is_own,
        global_ids=ids,
        global_lengths=logit_lengths,
        log=lay_out(needed, normaliser, is_live, is_bad),
        peak=peak,
        total=total,
        axes=(vocab_axes, time_axes),
    )


def _index(axes: tuple[str, ...]) -> jax.Array | int:
    """Return this device's place along the axes."""
    return lax.axis_index(axes) if axes else 0


def _sum(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Add up over devices."""
    return lax.psum(x, axes) if axes else x
