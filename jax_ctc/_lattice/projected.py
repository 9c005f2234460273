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
are no more than features, logits are as small: a block has all classes, and they are
kept.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._checks.head import How
from jax_ctc._lattice import blocks, normaliser
from jax_ctc._lattice.blocks import Cut
from jax_ctc._lattice.needed import over_own_classes, peak_of_all, small_scores
from jax_ctc._lattice.problem import Problem
from jax_ctc._lattice.products import product_if
from jax_ctc._mesh.varying import (
    anywhere,
    vary_alike,
    vary_over,
    varying,
)
from jax_ctc._numbers.masks import is_inside, positions
from jax_ctc._numbers.precision import accumulator
from jax_ctc._numbers.sizes import USUAL_BATCH, is_open, usual


class Block(NamedTuple):
    """How much of the logits is made at a time: a sixteenth of the classes, or so."""

    rows: int  # frames of all utterances
    fewest: int  # classes
    most: int  # classes
    terms: int  # classes that the features' gradient is summed over at once


# On a CPU enough for a product to be worth its while, and so little that it stays in a
# cache; and a sum over 512 classes rounds less than one over more. Elsewhere a block
# costs a dozen launches, and an H100 takes two to four times as long with smaller ones.
# Where the program will run is a guess: of a wrong one only time suffers.
_BLOCK = {"cpu": Block(512, 1024, 1024, 512)}
_BLOCK_ELSEWHERE = Block(4096, 1024, 4096, 4096)
_CLASS_BLOCKS = 16
_KEPT = "ctc_logits"
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


class Cuts(NamedTuple):
    """How logits are cut into blocks."""

    frames: Cut
    classes: Cut


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
    is_whole = ~anywhere(~jnp.all(jnp.isfinite(layer.kernel)), axes.feature)
    seen = _look_through(features, layer, dtype, problem, how, axes)

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
    dtype: jnp.dtype,
    problem: Problem,
    how: How,
    axes: Axes,
) -> Seen:
    """Make all logits, a block at a time, and return what is kept of them."""
    num_frames, num_classes = features.shape[1], layer.kernel.shape[1]
    features, layer = _vary_alike(features, layer, axes.feature)
    # Logits are sums over features: they no longer vary over these axes.
    own = varying(features) - set(axes.feature)
    cuts = Cuts(_cut_frames(features), _cut_classes(num_classes, features.shape[2]))
    rows = blocks.cut(features, 1, cuts.frames, dtype)
    columns = blocks.cut(layer.kernel, 1, cuts.classes, dtype)
    bias = None
    if layer.bias is not None:
        bias = blocks.cut(layer.bias, 0, cuts.classes, dtype).stack
    ids = problem.ids
    if axes.vocab:
        ids = ids - lax.axis_index(axes.vocab) * num_classes
    # Frames past the longest utterance are not multiplied.
    longest = jnp.max(problem.logit_lengths, initial=0)

    def look(row: Any, column: Any, bias: Any, first: tuple[Any, Any]) -> Seen:
        first_frame, first_class = first
        features = blocks.read(rows.whole, row, 1, first_frame)
        kernel = blocks.read(columns.whole, column, 1, first_class)
        block, own_ids = Layer(kernel, bias), ids - first_class
        is_class = None
        if cuts.classes.total != num_classes:
            is_class = first_class + positions(cuts.classes.size) < num_classes
        is_asked = first_frame < longest
        return _seen(own_ids, is_class, is_asked, how, axes, features, block)

    keep = None
    if num_classes <= features.shape[2]:
        keep = jax.checkpoint_policies.save_only_these_names(_KEPT)
    look = jax.checkpoint(look, prevent_cse=False, policy=keep)

    def of_classes(needed: jax.Array, block: Any) -> tuple[jax.Array, Seen]:
        column, bias, first_class = block

        def of_frames(_: None, block: Any) -> tuple[None, Seen]:
            row, first_frame, needed = block
            seen = look(row, column, bias, (first_frame, first_class))
            return None, seen._replace(needed=needed + seen.needed)

        xs = rows.stack, blocks.starts(cuts.frames), needed
        _, seen = lax.scan(of_frames, None, xs)
        return seen.needed, seen._replace(needed=None)

    shape = (cuts.frames.count, features.shape[0], cuts.frames.size, ids.shape[1])
    needed = vary_over(jnp.zeros(shape, dtype), own)
    xs = columns.stack, bias, blocks.starts(cuts.classes)
    needed, seen = lax.scan(of_classes, needed, xs)
    whole = functools.partial(blocks.joined, length=num_frames)
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


def _cut_frames(features: Float[Array, "B T D"]) -> Cut:
    """Return F blocks of K frames."""
    batch, num_frames, _ = features.shape
    most = max(_block().rows // max(usual(batch, USUAL_BATCH), 1), 1)
    count = -(-num_frames // most)
    return Cut(count, most if is_open(num_frames) else -(-num_frames // count))


def _cut_classes(num_classes: int, width: int) -> Cut:
    """Return C blocks of classes; one, where their logits are kept."""
    if num_classes <= width:
        return Cut(1, num_classes)
    _, fewest, most, _ = _block()
    count = -(-num_classes // min(max(num_classes // _CLASS_BLOCKS, fewest), most))
    size = -(-num_classes // count)
    if size * count != num_classes:
        size = -(-size // _LANES) * _LANES
        count = -(-num_classes // size)
    return Cut(count, size)


def _block() -> Block:
    return _BLOCK.get(jax.default_backend(), _BLOCK_ELSEWHERE)


def _seen(
    ids: Int[Array, "B S"],
    is_class: Bool[Array, " V"] | None,
    is_asked: Bool[Array, ""],
    how: How,
    axes: Axes,
    rows: Float[Array, "B K D"],
    layer: Layer,
) -> Seen:
    """Make a block of logits, and return what is kept of it.

    ids: counted from the block's first class. is_class: which of its columns are none
    that were added to make it whole. is_asked: without it nothing is multiplied, and
    nothing of what is seen will be read.
    """
    batch, num_rows, width = rows.shape
    frames = rows.reshape(batch * num_rows, width)
    product = product_if(
        is_asked, frames, layer.kernel, how.precision, _block().terms
    ).reshape(batch, num_rows, layer.kernel.shape[1])
    logits = checkpoint_name(product, _KEPT)
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
