"""The problem over the needed classes, of logits that a linear layer makes in passing.

    logits[t, v] = transform(features[t] @ kernel[:, v] + bias[v])

are made for K frames and C classes at a time, looked at and dropped. Of a block stay

    peak_c            the best of its logits                       [B, K]
    below_c, count_c  sum of exp(logit - peak_c) below it, and how often it is reached
    needed            the logit of each state whose class is here  [B, K, U+1]

and blocks of other classes add up as the classes of other devices do (needed.py):

    below = sum_c exp(peak_c - peak) * (below_c + [peak_c < peak] * count_c)
    count = sum_c [peak_c = peak] * count_c

A block is a `jax.checkpoint` in two loops. JAX's derivative makes it again, turns it
into the gradient of its logits, and adds up what features, kernel and bias get from it.
Classes are the outer loop: then the kernel's gradient is written a block of columns at
a time, and only the features', which are few, are added to over and over. Where classes
are no more than features, logits are as small, and are kept.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._checks.head import How
from jax_ctc._lattice import normaliser
from jax_ctc._lattice.needed import over_own_classes, peak_of_all, small_scores
from jax_ctc._lattice.problem import Problem
from jax_ctc._mesh.varying import (
    anywhere,
    vary_alike,
    vary_over,
    varying,
)
from jax_ctc._numbers.masks import is_inside, positions
from jax_ctc._numbers.precision import accumulator
from jax_ctc._numbers.sizes import USUAL_BATCH, Size, is_open, usual


class Block(NamedTuple):
    """How much of the logits is made at a time: a sixteenth of the classes, or so."""

    rows: int  # frames of all utterances
    fewest: int  # classes
    most: int  # classes


# On a CPU enough for a product to be worth its while, and so little that it stays in a
# cache; and a sum over 512 classes rounds less than one over more. Elsewhere a block
# costs a dozen launches, and an H100 takes two to four times as long with smaller ones.
# Where the program will run is a guess: of a wrong one only time suffers.
_BLOCK = {"cpu": Block(512, 512, 512)}
_BLOCK_ELSEWHERE = Block(4096, 1024, 4096)
_CLASS_BLOCKS = 16
_LANES = 128  # where blocks of classes do not divide evenly, they are of multiples


class Layer(NamedTuple):
    """What makes logits of features; a block of it has fewer classes."""

    kernel: Float[Array, "D V"]
    bias: Float[Array, " V"] | None


class Seen(NamedTuple):
    """What is kept of logits: of one block, or of all frames for blocks of classes."""

    peak: Float[Array, "..."]  # a constant to JAX; NaN or infinite as the logits are
    below: Float[Array, "..."]
    count: Float[Array, "..."]
    needed: Float[Array, "..."]  # of each state: 0 where its class is not among these


class Axes(NamedTuple):
    """Mesh axes that the layer is sharded over."""

    vocab: tuple[str, ...]
    feature: tuple[str, ...]


def needed_logits(
    problem: Problem, layer: Layer, how: How, axes: Axes
) -> tuple[Problem, Float[Array, "B T"]]:
    """Return the problem over its own classes, and each frame's log shift.

    problem: its `scores` are features, [B, T, D]. Of the result they are those of the
    states, to be taken as they are; NaN in bad frames. A frame is bad where its
    features or logits are, and every frame where the kernel is not finite.
    """
    features, num_frames = problem.scores, problem.scores.shape[1]
    how = how._replace(precision=_precision(how, features, layer.kernel))
    dtype = accumulator(jnp.promote_types(features.dtype, layer.kernel.dtype))
    is_live = is_inside(problem.logit_lengths, num_frames)
    is_wrong = anywhere(~jnp.all(jnp.isfinite(features), axis=2), axes.feature)
    # 0 * NaN is NaN: what a gradient is multiplied by must be finite.
    features = jnp.where((is_live & ~is_wrong)[:, :, None], features, 0).astype(dtype)
    is_whole = ~anywhere(~jnp.all(jnp.isfinite(layer.kernel)), axes.feature)
    seen = _look_through(features, layer, problem, how, axes)

    peak = jnp.where(is_wrong | ~is_whole, jnp.nan, jnp.max(seen.peak, axis=0))
    peak, is_bad = peak_of_all(peak, is_live, axes.vocab)
    is_read = is_live & ~is_bad
    # Frames that are not read have no peak to be below of.
    below_peak = jnp.where(is_read[None], seen.peak - peak[None], -jnp.inf)
    is_peak = below_peak == 0
    of_blocks = seen.below + jnp.where(is_peak, 0, seen.count)
    below = jnp.sum(jnp.exp(below_peak) * of_blocks, axis=0)
    count = jnp.sum(jnp.where(is_peak, seen.count, 0), axis=0)
    count = jnp.where(is_read, count, 1)  # log1p(rest) has a slope everywhere
    of_own = jnp.where(is_read[:, :, None], seen.needed, 0)
    scores, shift = small_scores(
        of_own, peak, (below, count), is_live, is_bad, axes.vocab
    )
    return over_own_classes(problem, scores), shift


def _precision(how: How, features: jax.Array, kernel: jax.Array) -> str:
    """Return the precision of products: full, where nothing else was asked for.

    The least there is multiplies two bfloat16 numbers exactly.
    """
    is_half = features.dtype == kernel.dtype == jnp.bfloat16
    return how.precision or ("default" if is_half else "highest")


def _look_through(
    features: Float[Array, "B T D"],
    layer: Layer,
    problem: Problem,
    how: How,
    axes: Axes,
) -> Seen:
    """Make all logits, a block at a time, and return what is kept of them."""
    num_frames, num_classes = features.shape[1], layer.kernel.shape[1]
    features, layer = _vary_alike(features, layer, axes.feature)
    rows, first_frames = _in_frames(features)
    layers, first_classes = _in_classes(layer, features.dtype)
    ids = problem.ids
    if axes.vocab:
        ids = ids - lax.axis_index(axes.vocab) * num_classes
    # Frames past the longest utterance are not multiplied.
    longest = jnp.max(problem.logit_lengths, initial=0)
    look = functools.partial(_look, num_classes, how, axes)
    # Logits are sums over features: they no longer vary over these axes.
    own = varying(features) - set(axes.feature)
    empty = jnp.zeros((*rows.shape[:3], ids.shape[1]), features.dtype)
    needed = vary_over(empty, own)

    def of_classes(needed: jax.Array, block: Any) -> tuple[jax.Array, Seen]:
        layer, first_class = block

        def of_frames(_: None, block: Any) -> tuple[None, Seen]:
            rows, first_frame, needed = block
            is_some = first_frame < longest
            seen = look(rows, layer, ids, first_class, is_some)
            return None, seen._replace(needed=needed + seen.needed)

        _, seen = lax.scan(of_frames, None, (rows, first_frames, needed))
        return seen.needed, seen._replace(needed=None)

    needed, seen = lax.scan(of_classes, needed, (layers, first_classes))
    whole = functools.partial(_whole, num_frames=num_frames)
    peak, below, count = (jax.vmap(whole)(x) for x in seen[:3])
    return Seen(peak, below, count, whole(needed))


def _vary_alike(
    features: Float[Array, "B T D"], layer: Layer, feature_axes: tuple[str, ...]
) -> tuple[Float[Array, "B T D"], Layer]:
    """Return both varying over the same mesh axes, but for those of the features.

    Over axes that the layer does not vary over, its gradient is summed: here, and once.
    """
    arrays = (features, *(x for x in layer if x is not None))
    features, kernel, *bias = vary_alike(*arrays, sharded=feature_axes)
    return features, Layer(kernel, bias[0] if bias else None)


def _in_frames(
    features: Float[Array, "B T D"],
) -> tuple[Float[Array, "F B K D"], Int[Array, " F"]]:
    """Return blocks of K frames, zeros at the end, and the first frame of each."""
    batch, num_frames, width = features.shape
    most = max(_block().rows // max(usual(batch, USUAL_BATCH), 1), 1)
    count = -(-num_frames // most)
    size = most if is_open(num_frames) else -(-num_frames // count)
    padded = jnp.pad(features, ((0, 0), (0, count * size - num_frames), (0, 0)))
    blocks = padded.reshape(batch, count, size, width)
    return jnp.moveaxis(blocks, 1, 0), positions(count) * size


def _block() -> Block:
    return _BLOCK.get(jax.default_backend(), _BLOCK_ELSEWHERE)


def _whole(blocks: Float[Array, "F B K *S"], num_frames: Size) -> jax.Array:
    """Return [B, T, ...] of blocks of frames."""
    joined = jnp.moveaxis(blocks, 0, 1)
    batch, count, size, *rest = joined.shape
    joined = joined.reshape(batch, count * size, *rest)
    if is_open(num_frames):  # that so many are there, JAX cannot tell
        return jnp.take(joined, positions(num_frames), axis=1, mode="clip")
    return joined[:, :num_frames]


def _in_classes(layer: Layer, dtype: jnp.dtype) -> tuple[Layer, Int[Array, " C"]]:
    """Return blocks of columns, finite, and the first class of each.

    kernel: [C, D, classes]; bias: [C, classes]. Past the last class they are zeros.
    """
    num_classes = layer.kernel.shape[1]
    _, fewest, most = _block()
    count = -(-num_classes // min(max(num_classes // _CLASS_BLOCKS, fewest), most))
    size = -(-num_classes // count)
    if size * count != num_classes:
        size = -(-size // _LANES) * _LANES
        count = -(-num_classes // size)

    def split(x: Float[Array, "... V"]) -> Float[Array, "C ..."]:
        spare = [(0, 0)] * (x.ndim - 1) + [(0, size * count - num_classes)]
        blocks = jnp.pad(x, spare).reshape(*x.shape[:-1], count, size)
        return jnp.moveaxis(blocks, -2, 0)

    # Widened here, gradients are added up wide. A bad kernel has been noticed.
    kernel = jnp.where(jnp.isfinite(layer.kernel), layer.kernel, 0).astype(dtype)
    bias = None if layer.bias is None else split(layer.bias.astype(dtype))
    return Layer(split(kernel), bias), positions(count) * size


def _look(num_classes: int, how: How, axes: Axes, *block: Any) -> Seen:
    """Look at one block, unless none of its frames is of any utterance."""
    rows, layer, ids, first_class, is_some = block

    def look(rows: jax.Array, layer: Layer) -> Seen:
        is_class = None
        if num_classes % layer.kernel.shape[1]:
            is_class = first_class + positions(layer.kernel.shape[1]) < num_classes
        own_ids = ids - first_class
        return _seen(rows, layer, own_ids, is_class, how, axes)

    def skip(rows: jax.Array, layer: Layer) -> Seen:
        shape, own = rows.shape[:2], varying(rows) - set(axes.feature)
        none = vary_over(jnp.zeros(shape, rows.dtype), own)
        needed = vary_over(jnp.zeros((*shape, ids.shape[1]), rows.dtype), own)
        return Seen(none, none, none, needed)

    def choose(rows: jax.Array, layer: Layer) -> Seen:
        return lax.cond(is_some, look, skip, rows, layer)

    is_small = num_classes <= rows.shape[2]
    policy = jax.checkpoint_policies.dots_saveable if is_small else None
    return jax.checkpoint(choose, prevent_cse=False, policy=policy)(rows, layer)


def _seen(
    rows: Float[Array, "B K D"],
    layer: Layer,
    ids: Int[Array, "B S"],
    is_class: Bool[Array, " V"] | None,
    how: How,
    axes: Axes,
) -> Seen:
    """Make a block of logits, and return what is kept of it.

    ids: counted from the block's first class. is_class: which of its columns are none
    that were added to make it whole.
    """
    logits = jnp.einsum("bkd,dc->bkc", rows, layer.kernel, precision=how.precision)
    if axes.feature:
        logits = lax.psum(logits, axes.feature)
    if layer.bias is not None:
        logits = logits + layer.bias[None, None, :]
    is_good = None
    if how.transform is not None:
        # What it makes of a bad number, and its slope there, is anybody's guess.
        is_good = _below_infinity(lax.stop_gradient(jnp.max(logits, axis=2)))
        logits = how.transform(jnp.where(is_good[:, :, None], logits, 0))
    if is_class is not None:
        logits = jnp.where(is_class[None, None, :], logits, -jnp.inf)
    peak = lax.stop_gradient(jnp.max(logits, axis=2))
    if is_good is not None:
        peak = jnp.where(is_good, peak, jnp.nan)
    nearest = jnp.where(jnp.isfinite(peak), peak, 0)
    # In bad frames 0. As a constant it would be no part of what is made again: JAX
    # would keep an array of zeros like the logits of all frames.
    logits = jnp.where(_below_infinity(peak)[:, :, None], logits, nearest[:, :, None])
    below, count = normaliser.below_and_peaks(logits, nearest)
    return Seen(peak, below, count, _gather(logits, ids))


def _below_infinity(peak: Float[Array, "B K"]) -> Bool[Array, "B K"]:
    return peak < jnp.inf  # nor is NaN


def _gather(
    logits: Float[Array, "B K V"], ids: Int[Array, "B S"]
) -> Float[Array, "B K S"]:
    """Return the logits of ids; 0 of those that are not here. As in frames.gather."""
    outside = jnp.where(ids < 0, logits.shape[2], ids)  # negative ones would wrap

    def utterance(logits: jax.Array, ids: Int[Array, " S"]) -> jax.Array:
        return logits.at[:, ids].get(mode="fill", fill_value=0)

    return jax.vmap(utterance)(logits, outside)
