"""CTC on an NVIDIA GPU: three launches of CUDA kernels, whatever the number of frames.

An operation launched costs a GPU microseconds, and XLA launches several per frame; here
the loop over frames is inside a kernel. Each utterance is walked from both its ends, by
two blocks of threads that meet in the middle; with a gradient both then go on, through
the half that the other has been through (see `source/back.h`). Numbers are those of the
extended range, and memory grows with sqrt(T).

    ctc_rows, ctc_softmax   normalisers of all frames, and the softmax
    ctc_there               to the middle
    ctc_meet, ctc_back      log Z; log Z and the gradient

The kernels come as PTX text, made by `make ptx` from `source/`, for every GPU from
compute capability 8.0 on.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_ctc._recursion.cuda.launch import launch
from jax_ctc._recursion.cuda.plan import MOST_LABELS, Plan, rows_per_block

_KINDS = {"float32": 0, "bfloat16": 1, "float16": 2}


class _Posed(NamedTuple):
    """What all kernels of a call are given."""

    scores: jax.Array
    ids: jax.Array
    skips: jax.Array
    lengths: jax.Array
    counts: jax.Array
    dims: jax.Array
    plan: Plan


def forward(arrays: Any, *, normalise: bool) -> jax.Array:
    """Return log p(labels); -inf where impossible, NaN where a frame is bad."""
    posed = _pose(arrays, normalise=normalise, keep=False)
    peaks, rests = _rows(posed)
    shifts, kept = _there(posed, peaks, rests)
    batch = len(posed.lengths)
    operands = (posed.skips, posed.counts, posed.dims, shifts, kept)
    [log_z] = launch(
        "ctc_meet", [_floats(batch)], operands, grid=batch, block=32, aliases=None
    )
    return log_z


def forward_backward(arrays: Any, *, normalise: bool) -> tuple[jax.Array, jax.Array]:
    """Return log p(labels) and d(-log p) / d scores, exactly 0 where flagged."""
    posed = _pose(arrays, normalise=normalise, keep=True)
    plan, scores = posed.plan, posed.scores
    peaks, rests, gradient = _rows(posed, softmax=True)
    shifts, kept = _there(posed, peaks, rests)
    walks, _, places, _ = kept.shape
    under_way = (walks, 2, plan.group * plan.step, places)
    log_z, gradient, *_ = launch(
        f"ctc_back_{plan.labels}",
        [
            _floats(len(scores)),
            jax.ShapeDtypeStruct(scores.shape, scores.dtype),
            _floats(*under_way, 4),
            _floats(*under_way, 2),
            _floats(walks, places, 4),
            jax.ShapeDtypeStruct((walks, places), jnp.int32),
        ],
        (scores, peaks, rests, *posed[1:6], shifts, kept, gradient),
        grid=walks,
        block=32 * plan.back_warps,
        aliases={10: 1},
    )
    return log_z, gradient


def _pose(arrays: Any, *, normalise: bool, keep: bool) -> _Posed:
    scores = arrays.scores
    batch, num_frames, num_classes = scores.shape
    num_labels = arrays.can_skip.shape[1]
    plan = Plan.of(num_frames, num_labels, keep=keep)
    rows, _ = rows_per_block(num_classes)
    dims = (
        *(batch, num_frames, num_classes, num_labels),
        *(plan.group, plan.groups, normalise, _KINDS[scores.dtype.name]),
        *(rows == 1, plan.warps),
    )
    return _Posed(
        scores,
        arrays.ids,
        arrays.can_skip,
        arrays.logit_lengths,
        arrays.num_labels,
        jnp.asarray(np.array(dims, np.int32)),
        plan,
    )


def _rows(posed: _Posed, *, softmax: bool = False) -> list[jax.Array]:
    """Return peak and rest of each frame; and all frames' softmax."""
    scores = posed.scores
    batch, num_frames, num_classes = scores.shape
    rows, threads = rows_per_block(num_classes)
    results = [_floats(batch, num_frames), _floats(batch, num_frames)]
    if softmax:
        results.append(jax.ShapeDtypeStruct(scores.shape, scores.dtype))
    return launch(
        f"ctc_{'softmax' if softmax else 'rows'}_{scores.dtype.name}",
        results,
        (scores, posed.lengths, posed.dims),
        grid=-(-batch * num_frames // rows),
        block=threads,
    )


def _there(posed: _Posed, peaks: jax.Array, rests: jax.Array) -> list[jax.Array]:
    """Return the shifts of each half (doubles, in two words), and columns kept."""
    plan, walks = posed.plan, 2 * len(posed.lengths)
    return launch(
        f"ctc_there_{plan.labels}",
        [
            jax.ShapeDtypeStruct((walks, plan.warps, 2), jnp.int32),
            _floats(walks, plan.groups + 1, posed.ids.shape[1], 4),
        ],
        (posed.scores, peaks, rests, *posed[1:6]),
        grid=walks,
        block=32 * plan.there_warps,
    )


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
