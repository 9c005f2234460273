"""From states back to classes: the gradient of the frames whose posteriors are known.

    d(-log p) / d logits[t, v]    = softmax(logits[t])[v] - posterior_t(v)
    d(-log p) / d log_probs[t, v] =                       - posterior_t(v)

where posterior_t(v) adds up the posteriors of the states that emit v.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from jax_ctc._lattice import normaliser
from jax_ctc._lattice.frames import rows_of, rows_of_chunk, to_bits
from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers.masks import is_at, positions
from jax_ctc._numbers.sizes import USUAL_LABELS, is_open, usual

# By a product with a one-hot below this many classes, by a scatter from it on: a
# product costs U * V per frame, a scatter U but not in a vector.
SCATTER_CLASSES = 256


def write_gradient(
    problem: Problem,
    gradient: Shaped[Array, "B T V"],
    start: Int[Array, ""] | int,
    posterior: Float[Array, "K B S"],
    is_alive: Bool[Array, " B"],
    *,
    normalise: bool,
    keeps_left: bool = False,
    by_product: bool = False,
) -> Shaped[Array, "B T V"]:
    """Write the gradient of a chunk into `to_bits` of it; exactly 0 on dead frames.

    posterior: of each state that has an id. normalise: softmax - posterior rather than
    -posterior. by_product: see `subtract`.

    At the ragged end a chunk's rows reach back over frames of its left neighbour, which
    puts them right where chunks come from the right. keeps_left: they come from the
    left, and what the neighbour has written stays.
    """
    size, num_frames = posterior.shape[0], gradient.shape[1]
    first, num_rows = rows_of_chunk(start, size, num_frames)
    from_start = first + positions(num_rows) - start
    frame_of_row = jnp.maximum(from_start, 0)
    occupancy = jnp.moveaxis(posterior[frame_of_row], 0, 1)
    rows = rows_of(problem.scores, first, num_rows)
    here = normaliser.of(rows)
    rows = normaliser.softmax(rows, here) if normalise else jnp.zeros_like(rows)
    if problem.has_gaps:
        rows = _subtract_gaps(rows, occupancy, problem, by_product=by_product)
    else:
        rows = subtract(rows, occupancy, problem.ids, by_product=by_product)
    frames = (first + positions(num_rows))[None, :]
    is_kept = (frames < problem.logit_lengths[:, None]) & is_alive[:, None]
    rows = jnp.where(is_kept[:, :, None], rows, 0)
    rows = to_bits(rows.astype(problem.scores.dtype))
    if keeps_left:
        old = lax.dynamic_slice_in_dim(gradient, first, num_rows, axis=1)
        rows = jnp.where((from_start >= 0)[None, :, None], rows, old)
    return lax.dynamic_update_slice_in_dim(gradient, rows, first, axis=1)


def by_id(
    problem: Problem, label: Float[Array, "K B G"], blank: Float[Array, "K B G"]
) -> Float[Array, "K B S"]:
    """Lay out by id: each label, and all blanks together, unless each has its own.

    label: its last place is nobody's.
    """
    if not problem.has_gaps:
        blank = jnp.sum(blank, axis=2, keepdims=True)
    return jnp.concatenate([label[:, :, :-1], blank], axis=2)


def subtract(
    rows: Float[Array, "B D V"],
    occupancy: Float[Array, "B D S"],
    ids: Int[Array, "B S"],
    *,
    by_product: bool = False,
) -> Float[Array, "B D V"]:
    """Subtract each state's occupancy from the class that it emits.

    by_product: by a product with a one-hot, however many classes there are.
    """
    num_classes = rows.shape[2]
    # Merging costs S * S per frame, which for labels beyond V is more than S * V.
    num_states = ids.shape[1]
    is_long = not is_open(num_states) and num_states >= num_classes
    if by_product or usual(num_classes, USUAL_LABELS) < SCATTER_CLASSES or is_long:
        one_hot = is_at(ids, num_classes).astype(rows.dtype)
        return rows - _multiply(occupancy, one_hot)
    return _scatter_merged(rows, occupancy, ids)


def _subtract_gaps(
    rows: Float[Array, "B D V"],
    occupancy: Float[Array, "B D S"],
    problem: Problem,
    *,
    by_product: bool,
) -> Float[Array, "B D V"]:
    """Subtract where labels have classes of their own, in order, before the gaps'."""

    def split(x: Float[Array, "B D _"]) -> tuple[jax.Array, jax.Array]:
        own = problem.can_skip.shape[1]  # left open, it could be no index
        rest = lax.slice_in_dim(x, own, None, axis=2)
        return lax.slice_in_dim(x, 0, own, axis=2), rest

    (label, rest), (of_label, of_gap) = split(rows), split(occupancy)
    num_labels = positions(problem.can_skip.shape[1] + 1, 2)[:, -1:]
    ids = problem.blank_ids - num_labels
    rest = subtract(rest, of_gap, ids, by_product=by_product)
    return jnp.concatenate([label - of_label, rest], axis=2)


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
    merged = _multiply(occupancy, same.astype(rows.dtype))
    target = jnp.where(is_first, ids, num_classes + place)

    def utterance(rows: jax.Array, merged: jax.Array, target: jax.Array) -> jax.Array:
        return rows.at[:, target].add(-merged, mode="drop", unique_indices=True)

    return jax.vmap(utterance)(rows, merged, target)


def _multiply(
    a: Float[Array, "B D S"], b: Float[Array, "B S C"]
) -> Float[Array, "B D C"]:
    """Multiply in full precision: the default is bfloat16 on TPU, TF32 on GPU."""
    return jnp.einsum("bds,bsc->bdc", a, b, precision=lax.Precision.HIGHEST)
