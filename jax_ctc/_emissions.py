"""Class scores to lattice scores and back: normalise, gather V to U, scatter U to V.

A recursion reads a chunk of frames at a time, so no pass over [B, T, V] ever leaves the
chunk: neither log-probabilities nor a one-hot of T * U * V exist. Here are the
library's only transposes, from batch-major scores to time-major lattice rows.

    log p_t(v)   = scores[t, v] - max_t - log_sum_t     max_t: over all classes
    log_emission = scores[t, v] - best_t                best_t: over the needed ones
    log_shift    = best_t - max_t - log_sum_t           added back once per frame

Two scores that compete in a frame are subtracted from the nearer of two references:
measured from `best_t` their difference survives rounding even when both lie far below
the frame's winner, and logits offset by 1e4 cost nothing.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._mask import is_at, positions
from jax_ctc._types import GradientBuffer, LogEmissions, accumulator

# Posteriors return to classes by a product with a one-hot below this many classes, by a
# scatter from it on: a product costs U * V per frame, a scatter U but not in a vector.
_SCATTER_CLASSES = 256

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
    normalise: bool = dataclasses.field(metadata={"static": True})
    # Mesh axes whose devices have a stretch of T frames each, and its part of lengths.
    time_axes: tuple[str, ...] = dataclasses.field(
        default=(), metadata={"static": True}
    )

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
        return dataclasses.replace(self, scores=scores)

    def unnormalised(self) -> "ClassEmissions":
        """Return the same emissions, whose gradient has no softmax in it."""
        return dataclasses.replace(self, normalise=False)

    def read(self, start: Int[Array, ""] | int, size: int) -> LogEmissions:
        """Read frames start .. start + size - 1; those at or past T are padding."""
        window = Window.of(start, size, self.num_frames)
        scores, is_live = self.dense(window)
        return self._emissions(scores, is_live, window)

    def read_all(self) -> LogEmissions:
        """Read every frame, in a way that JAX differentiates to any order.

        A `where` on a result still sends 0 * NaN through the side not taken, so
        padding and bad utterances are replaced before any arithmetic.
        """
        window = Window.of(0, self.num_frames, self.num_frames)
        scores, is_live = self.dense(window)
        is_bad = _is_bad(*log_normaliser(lax.stop_gradient(scores)), is_live)
        is_read = is_live & ~is_bad[:, None]
        clean = jnp.where(is_read[:, :, None], scores, 0)
        return self._emissions(clean, is_live, window)._replace(is_bad=is_bad)

    def empty_gradient(self) -> GradientBuffer:
        """Return zeros for the gradient of all frames to be written into."""
        return to_bits(jnp.zeros_like(self.scores))

    def finish_gradient(self, gradient: GradientBuffer) -> Float[Array, "B T V"]:
        """Return what was written, in the dtype of `scores`."""
        return from_bits(gradient, self.scores.dtype)

    def write_gradient(
        self,
        gradient: GradientBuffer,
        start: Int[Array, ""] | int,
        blank: Float[Array, "K B"],
        label: Float[Array, "K B U"],
        is_alive: Bool[Array, " B"],
    ) -> GradientBuffer:
        """Write softmax - posterior (or -posterior) of K frames; 0 on dead frames.

        At the ragged end the window reaches back over frames of its left neighbour,
        which is written later and puts them right.
        """
        window = Window.of(start, label.shape[0], self.num_frames)
        scores, is_live = self.dense(window)  # [B, D, V], [B, D]
        occupancy = jnp.concatenate([label, blank[:, :, None]], axis=2)
        occupancy = jnp.take(occupancy, window.frame_of_row, axis=0, mode="clip")
        occupancy = jnp.moveaxis(occupancy, 0, 1)  # [B, D, U+1]
        probability = self._probability(scores, window.first)
        rows = _subtract_at(probability, occupancy, self.ids)
        is_kept = (is_live & is_alive[:, None])[:, :, None]
        rows = to_bits(jnp.where(is_kept, rows, 0).astype(self.scores.dtype))
        return lax.dynamic_update_slice_in_dim(gradient, rows, window.first, axis=1)

    def _probability(
        self, scores: Float[Array, "B D V"], first: Int[Array, ""] | int
    ) -> Float[Array, "B D V"]:
        """Return d(log normalisers) / d scores of rows from `first`: softmax, or 0."""
        del first
        if not self.normalise:
            return jnp.zeros_like(scores)
        peak = jnp.max(scores, axis=2, keepdims=True)
        weight = jnp.exp(scores - peak)
        return weight / jnp.sum(weight, axis=2, keepdims=True)

    def dense(
        self, window: "Window"
    ) -> tuple[Float[Array, "B D V"], Bool[Array, "B D"]]:
        """Slice the window's rows, and tell which of them are inside the length."""
        rows = rows_of(self.scores, window.first, window.size)
        frame = window.first + positions(window.size, 2)  # [1, D]
        return rows, frame < self.logit_lengths[:, None]

    def _emissions(
        self,
        scores: Float[Array, "B D V"],
        is_live: Bool[Array, "B D"],
        window: "Window",
    ) -> LogEmissions:
        """Gather, shift and mask the window's rows, and lay them out by frame."""
        gathered = gather(scores, window.row_of_frame, self.ids)  # [B, K, U+1]
        normaliser = None
        if self.normalise:
            peak, log_sum = log_normaliser(scores)  # [B, D]
            is_bad = _is_bad(peak, log_sum, is_live)
            normaliser = peak[:, window.row_of_frame], log_sum[:, window.row_of_frame]
        else:
            peak = jnp.max(scores, axis=2)
            is_bad = _is_bad(peak, jnp.zeros_like(peak), is_live)
        is_live = window.frames[None, :] < self.logit_lengths[:, None]  # [B, K]
        return lay_out(gathered, normaliser, is_live, is_bad)


def lay_out(
    gathered: Float[Array, "B K S"],
    normaliser: tuple[Float[Array, "B K"], Float[Array, "B K"]] | None,
    is_live: Bool[Array, "B K"],
    is_bad: Bool[Array, " B"],
) -> LogEmissions:
    """Shift and mask the needed scores of K frames, and lay them out by frame.

    The normaliser is each frame's peak and log-sum over it; without one, scores are
    taken as they are.
    """
    best = lax.stop_gradient(jnp.max(gathered, axis=2))  # [B, K]
    best = jnp.where(best == -jnp.inf, 0, best)
    shift = best
    if normaliser is not None:
        peak, log_sum = normaliser
        shift = (best - peak) - log_sum
    log_emission = gathered - best[:, :, None]
    blank = jnp.where(is_live[:, :, None], log_emission[:, :, -1:], 0)
    label = jnp.where(is_live[:, :, None], log_emission[:, :, :-1], -jnp.inf)
    return LogEmissions(
        blank=jnp.moveaxis(blank, 1, 0),
        label=jnp.moveaxis(label, 1, 0),
        log_shift=jnp.where(is_live, jnp.maximum(shift, _LEAST_SHIFT), 0).T,
        is_bad=is_bad,
    )


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
    frame_of_row: Int[Array, " D"]

    @staticmethod
    def of(start: Int[Array, ""] | int, size: int, num_frames: int) -> "Window":
        rows = min(size, num_frames)
        first = jnp.minimum(start, num_frames - rows)
        frames = start + positions(size)
        return Window(
            first=first,
            size=rows,
            frames=frames,
            row_of_frame=jnp.minimum(frames - first, rows - 1),
            frame_of_row=jnp.maximum(first + positions(rows) - start, 0),
        )


def rows_of(
    scores: Float[Array, "B T V"], first: Int[Array, ""] | int, size: int
) -> Float[Array, "B {size} V"]:
    """Slice some frames, and widen them alone."""
    rows = scores
    if size < scores.shape[1]:
        rows = lax.dynamic_slice_in_dim(to_bits(rows), first, size, axis=1)
        rows = from_bits(rows, scores.dtype)
    return rows.astype(accumulator(scores.dtype))


def to_bits(x: Float[Array, "B T V"]) -> GradientBuffer:
    """Return half precision as the integers that hold it; other floats as they are.

    XLA on CPU has no half-precision slices: it would widen the whole array to cut a
    chunk from it, and widen and narrow the whole gradient to write a chunk into it.
    """
    if x.dtype.itemsize == 2:
        return lax.bitcast_convert_type(x, jnp.uint16)
    return x


def from_bits(x: GradientBuffer, dtype: jnp.dtype) -> Float[Array, "B T V"]:
    """Undo `to_bits`."""
    return lax.bitcast_convert_type(x, dtype) if dtype.itemsize == 2 else x


def log_normaliser(
    scores: Float[Array, "B D V"],
) -> tuple[Float[Array, "B D"], Float[Array, "B D"]]:
    """Return the maximum and the log-sum over it, apart: their sum would round."""
    peak = lax.stop_gradient(jnp.max(scores, axis=2))
    total = jnp.sum(jnp.exp(scores - peak[:, :, None]), axis=2)
    return peak, jnp.log(total)


def _is_bad(
    peak: Float[Array, "B D"], log_sum: Float[Array, "B D"], is_live: Bool[Array, "B D"]
) -> Bool[Array, " B"]:
    """Tell which utterances have a live frame that holds NaN, +inf, or -inf only."""
    return jnp.any(~jnp.isfinite(peak + log_sum) & is_live, axis=1)


def gather(
    scores: Float[Array, "B D V"], rows: Int[Array, " K"], ids: Int[Array, "B S"]
) -> Float[Array, "B K S"]:
    """Return scores[b, rows[k], ids[b, s]].

    One flat gather per utterance: indexing with arange(B) would make a sharded batch
    gather from every device.
    """
    num_utterances, num_frames, num_classes = scores.shape

    def utterance(flat: Float[Array, " _"], ids: Int[Array, " S"]) -> jax.Array:
        where = rows[:, None] * num_classes + ids[None, :]  # [K, S]
        return flat.at[where].get(mode="promise_in_bounds")

    return jax.vmap(utterance)(
        scores.reshape(num_utterances, num_frames * num_classes), ids
    )


def _subtract_at(
    rows: Float[Array, "B D V"],
    occupancy: Float[Array, "B D S"],
    ids: Int[Array, "B S"],
) -> Float[Array, "B D V"]:
    """Return rows with each state's occupancy subtracted at the class it emits."""
    num_classes = rows.shape[2]
    if num_classes < _SCATTER_CLASSES:
        return _subtract_product(rows, occupancy, ids)
    # Merging costs S * S per frame, which for labels beyond V is more than S * V.
    merge = _scatter_merged if ids.shape[1] < num_classes else _subtract_product
    return lax.platform_dependent(
        rows, occupancy, ids, cpu=_scatter_each, default=merge
    )


def _subtract_product(
    rows: Float[Array, "B D V"],
    occupancy: Float[Array, "B D S"],
    ids: Int[Array, "B S"],
) -> Float[Array, "B D V"]:
    """Subtract by a product with a one-hot."""
    one_hot = is_at(ids, rows.shape[2]).astype(rows.dtype)
    return rows - _product(occupancy, one_hot)


def _scatter_each(
    rows: Float[Array, "B D V"],
    occupancy: Float[Array, "B D S"],
    ids: Int[Array, "B S"],
) -> Float[Array, "B D V"]:
    """Subtract state after state, in order: repeatable where a scatter is a loop."""

    def utterance(rows: jax.Array, occupancy: jax.Array, ids: jax.Array) -> jax.Array:
        num_frames, num_classes = rows.shape
        where = positions(num_frames)[:, None] * num_classes + ids[None, :]
        flat = rows.reshape(-1).at[where].add(-occupancy, mode="promise_in_bounds")
        return flat.reshape(rows.shape)

    return jax.vmap(utterance)(rows, occupancy, ids)


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
    merged = _product(occupancy, same.astype(rows.dtype))
    target = jnp.where(is_first, ids, num_classes + place)

    def utterance(rows: jax.Array, merged: jax.Array, target: jax.Array) -> jax.Array:
        return rows.at[:, target].add(-merged, mode="drop", unique_indices=True)

    return jax.vmap(utterance)(rows, merged, target)


def _product(
    a: Float[Array, "B D S"], b: Float[Array, "B S C"]
) -> Float[Array, "B D C"]:
    """Multiply in full precision: the default is bfloat16 on TPU, TF32 on GPU."""
    return jnp.einsum("bds,bsc->bdc", a, b, precision=lax.Precision.HIGHEST)
