"""Forced alignment of a recording whose logits come block by block."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._alignment.as_given import alignment_as_given
from jax_ctc._alignment.blocks import checked, nothing_came, recut
from jax_ctc._alignment.paths import live_frames, tokens_of, with_wildcards
from jax_ctc._alignment.records import CTCAlignment
from jax_ctc._alignment.viterbi import describe
from jax_ctc._checks.arrays import check_labels
from jax_ctc._checks.given import ArrayLike, Blocks, Index, Option
from jax_ctc._checks.labels import narrow, status_of_labels, to_the_left
from jax_ctc._checks.options import (
    check_blank_id,
    check_wildcard_id,
    check_wildcard_log_prob,
    is_logits,
)
from jax_ctc._lattice import normaliser
from jax_ctc._lattice.needed import opened
from jax_ctc._lattice.pose import Spec
from jax_ctc._lattice.problem import Problem, build
from jax_ctc._lattice.wildcards import (
    Wildcards,
    in_wild_gap,
    part,
    takes_anything,
)
from jax_ctc._numbers import extended
from jax_ctc._numbers.precision import accumulator
from jax_ctc._recursion import blocked
from jax_ctc._recursion.blocked.chunks import Total, log_z, nothing_yet
from jax_ctc._recursion.blocked.paths import best_end, extend_path
from jax_ctc._recursion.blocked.step import State, initial


class Reached(NamedTuple):
    """How far the best paths have come: all that the next block needs to know."""

    state: State
    total: Total


class Found(NamedTuple):
    """What is kept of the scores of a block."""

    log_probs: Any  # [K, D] of the classes that a path can show
    takes: Any  # [K] whether a gap with a wildcard is more than a blank; or None


def ctc_align_chunks(
    chunks: Blocks,
    labels: ArrayLike,
    *,
    blank_id: Index = 0,
    inputs: Option = "logits",
    wildcard_id: Index | None = None,
    wildcard_log_prob: ArrayLike = 0.0,
) -> CTCAlignment:
    """Align one recording whose logits arrive as an iterator of blocks.

    t frames of a block, T frames in all, V classes including blank, U labels. The
    answer is that of `ctc_align` on the concatenated blocks: tokens, start and end bit
    for bit; log_prob and score, which another program adds up, to about one unit in the
    last place.

    Args:
        chunks: iterable of [t, V] float arrays, unnormalised scores of successive
            frames; t may differ between blocks, V and dtype may not. Read once, and
            each block is let go before the next is asked for: it may be one buffer
            that is filled anew.
        labels: [U] integer class ids without blanks.
        blank_id: the blank class, 0..V-1.
        inputs: "logits", which are normalised; or "log_probs", taken as they are, with
            a prior, a penalty or a mask in them if you like.
        wildcard_id: a label that stands for anything, as in `ctc_loss`.
        wildcard_log_prob: nats of a frame that a wildcard takes, as in `ctc_loss`.

    Returns:
        CTCAlignment without batch axes: tokens [T], log_prob [], start, end and score
        [U]. Back-pointers are followed on the host, so it cannot be differentiated: all
        float fields are constants.

    Raises:
        ValueError: a block is not [t, V] or has another V than the first, there is no
            block at all, labels are not [U], `blank_id` is not a class, or `inputs` has
            an unknown value.
        TypeError: a dtype is wrong or changes, or an argument is traced.
        NotImplementedError: float64 blocks on a TPU.

    Status:
        As in `ctc_align`: -1, -inf and 0, known only after the last block; NaN if any
        block holds NaN, +inf or a frame of only -inf.

    Cost:
        O(T * (U + V)) time. Host memory: back-pointers of 2 bits, (2 U + 1) * T / 4
        bytes, and 4 * T bytes for each different class among the labels; with thousands
        of these that is what counts. On the device one block. The last step compiles
        for every new T.

    Example:
        >>> import numpy as np, jax_ctc
        >>> logits = 5.0 * np.eye(3, dtype=np.float32)[[0, 1, 1, 0, 2]]
        >>> blocks = (logits[i : i + 2] for i in range(0, 5, 2))
        >>> alignment = jax_ctc.ctc_align_chunks(blocks, np.array([1, 2]))
        >>> alignment.start.tolist(), alignment.end.tolist()
        ([1, 4], [3, 5])
    """
    ids, normalise = _concrete_labels(labels), is_logits(inputs)
    wildcard = check_wildcard_id(wildcard_id)
    log_prob = check_wildcard_log_prob(wildcard_log_prob, wildcard)
    if isinstance(log_prob, Tracer):
        raise TypeError(
            "`wildcard_log_prob` of `ctc_align_chunks` must be concrete, but it is"
            " traced: call it outside jit, or use `ctc_align` inside"
        )
    names = {"function": "ctc_align_chunks", "whole": "ctc_align"}
    blocks = recut(checked(chunks, name="chunks", **names))
    first = next(blocks, None)
    if first is None:
        raise nothing_came("chunks")
    num_classes = first[0].shape[1]
    blank = check_blank_id(blank_id, num_classes)
    check_wildcard_id(wildcard, blank)
    reason = blocked.decline(first[0].dtype, jax.default_backend())
    if reason:
        raise NotImplementedError(f"ctc_align_chunks: {reason}; pass float32 blocks")

    spec = Spec(blank, normalise=normalise, wildcard_id=wildcard)
    problem, wildcards = _pose(spec, ids, log_prob, num_classes, first[0].dtype)
    columns = np.unique(np.asarray(problem.ids[0]))  # the classes that a path can show
    reached = Reached(initial(problem), nothing_yet(problem))
    backs, found, num_frames = [], [], 0
    for block, count in itertools.chain([first], blocks):
        reached, packed, read = _extend(
            spec, problem, wildcards, columns, reached, block, count
        )
        backs.append(np.asarray(packed))
        found.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], read))
        num_frames += count
    is_ok = _is_feasible(spec, problem, ids, num_frames, num_classes)
    log_value, last = _finish(problem, reached, is_ok)
    states = _trace(backs, int(last[0]), 2 * len(ids) + 1)[:num_frames]
    whole = jax.tree.map(lambda *rows: np.concatenate(rows), *found)
    return _describe(spec, problem, wildcards, columns, log_value, states, whole)


def _concrete_labels(labels: ArrayLike) -> Int[Array, " U"]:
    if isinstance(labels, Tracer):
        raise TypeError(
            "`labels` of `ctc_align_chunks` must be concrete, but it is traced: blocks"
            " are read on the host. Call it outside jit, or use `ctc_align` inside"
        )
    ids = check_labels(labels)
    if ids.ndim != 1:
        raise ValueError(
            f"`labels` must be [U], the labels of one recording; got shape {ids.shape}."
            " Align recordings one at a time, or a padded batch with `ctc_align`"
        )
    # A copy: whoever makes the blocks may fill the labels' buffer anew as well.
    return narrow(jnp.asarray(ids if isinstance(ids, jax.Array) else ids.copy()))


def _pose(
    spec: Spec, ids: Int[Array, " U"], log_prob: Any, num_classes: int, dtype: Any
) -> tuple[Problem, Wildcards | None]:
    """Return the lattice of the labels, as if the recording were long enough."""
    labels, length = ids[None], jnp.full((1,), ids.shape[0], jnp.int32)
    wildcards = None
    if spec.wildcard_id is not None:
        log_prob = jnp.asarray(log_prob)
        labels, length, wildcards = part(
            labels, length, spec.wildcard_id, spec.blank_id, log_prob
        )
    problem = build(
        jnp.zeros((1, 0, num_classes), dtype),
        labels,
        jnp.zeros((1,), jnp.int32),
        length,
        jnp.ones((1,), bool),
        blank_id=spec.blank_id,
        num_classes=num_classes,
    )
    return problem, wildcards


def _is_feasible(
    spec: Spec,
    problem: Problem,
    ids: Int[Array, " U"],
    num_frames: int,
    num_classes: int,
) -> Array:
    labels, length = ids[None], problem.num_labels
    if spec.wildcard_id is not None:
        labels = to_the_left(jnp, labels, labels == spec.wildcard_id)
    status = status_of_labels(
        labels,
        jnp.full((1,), num_frames, jnp.int32),
        length,
        num_frames=num_frames,
        num_classes=num_classes,
        blank_id=spec.blank_id,
    )
    return status == 0


@functools.partial(jax.jit, static_argnums=0)
def _extend(
    spec: Spec,
    problem: Problem,
    wildcards: Wildcards | None,
    columns: Int[Array, " D"],
    reached: Reached,
    block: Float[Array, "K V"],
    count: Int[Array, ""] | int,
) -> tuple[Reached, Array, Found]:
    """Carry the best paths through a block; return packed back-pointers too."""
    length = jnp.asarray(count, jnp.int32)[None]
    problem = problem._replace(scores=block[None], logit_lengths=length)
    small, shift = opened(problem, wildcards, normalise=spec.normalise)
    normalise = spec.normalise and shift is None
    state, total, backs = extend_path(small, *reached, normalise=normalise)
    scores = block.astype(accumulator(block.dtype))
    log_probs = scores[:, columns]
    if spec.normalise:
        peak, rest = (x[:, None] for x in normaliser.of(scores))
        log_probs = (log_probs - peak) - jnp.log1p(rest)
    takes = None if wildcards is None else takes_anything(small)[0]
    return Reached(state, total), _pack(backs[:, 0]), Found(log_probs, takes)


def _pack(backs: Int[Array, "K S"]) -> Array:
    """Put four steps back, 0, 1 or 2 each, into one byte."""
    missing = -backs.shape[1] % 4
    fours = jnp.pad(backs.astype(jnp.uint8), ((0, 0), (0, missing)))
    fours = fours.reshape(backs.shape[0], -1, 4)
    shifted = fours << jnp.arange(0, 8, 2, dtype=jnp.uint8).reshape(1, 1, 4)
    return jnp.sum(shifted, axis=2, dtype=jnp.uint8)


@jax.jit
def _finish(problem: Problem, reached: Reached, is_ok: Array) -> tuple[Array, Array]:
    """Return the log-probability of the best path, and the state it ends in."""
    log_value, _ = log_z(problem, reached.state, reached.total, extended.maximum)
    log_value = jnp.where(is_ok | jnp.isnan(log_value), log_value, -jnp.inf)
    return log_value, best_end(problem, reached.state)


def _trace(backs: list[np.ndarray], state: int, num_states: int) -> np.ndarray:
    """Follow packed back-pointers from the state in the last frame; return all."""
    num_blanks = num_states // 2 + 1
    states = np.empty(sum(map(len, backs)), np.int32)
    place = len(states)
    for block in reversed(backs):
        for row in block[::-1]:
            place -= 1
            states[place] = state
            column = num_blanks + state // 2 if state % 2 else state // 2
            state -= int(row[column >> 2] >> (2 * (column & 3))) & 3
    return states


def _describe(
    spec: Spec,
    problem: Problem,
    wildcards: Wildcards | None,
    columns: np.ndarray,
    log_value: Array,
    states: np.ndarray,
    found: Found,
) -> CTCAlignment:
    """Read the path's log-probabilities, and make the record that `ctc_align` makes."""
    num_frames = len(states)
    ids = np.asarray(problem.ids[0])
    tokens = ids[np.where(states % 2 == 1, states // 2, len(ids) - 1)]
    along = found.log_probs[np.arange(num_frames), np.searchsorted(columns, tokens)]
    problem = problem._replace(logit_lengths=jnp.full((1,), num_frames, jnp.int32))
    takes = None if found.takes is None else found.takes[None]
    rows = states[None], along[None, None], takes
    alignment = _record(spec, problem, wildcards, log_value, *rows)
    return jax.tree.map(lambda x: x[0], alignment)


@functools.partial(jax.jit, static_argnums=0)
def _record(
    spec: Spec,
    problem: Problem,
    wildcards: Wildcards | None,
    log_value: Float[Array, " B"],
    states: Int[Array, "B T"],
    log_probs: Float[Array, "B 1 T"],
    takes: Bool[Array, "B T"] | None,
) -> CTCAlignment:
    is_live = live_frames(problem, log_value, states.shape[1])
    tokens = tokens_of(states[:, None], problem, is_live)
    log_probs = jnp.where(is_live[:, None], log_probs, 0)
    if wildcards is None or takes is None:
        return describe(problem, log_value, states, tokens, log_probs, is_live)
    is_taken = in_wild_gap(states[:, None], wildcards) & (takes & is_live)[:, None]
    along = with_wildcards(spec, tokens, log_probs, is_taken, wildcards)
    alignment = describe(problem, log_value, states, *along, is_live)
    return alignment_as_given(alignment, problem, wildcards, states, is_taken[:, 0])
