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
from jax_ctc._recursion.cuda.plan import MOST_LABELS, Cut, Layout, rows_per_block

_KINDS = {"float32": 0, "bfloat16": 1, "float16": 2}


class _Posed(NamedTuple):
    """What all kernels of a call are given."""

    scores: jax.Array
    ids: jax.Array
    skips: jax.Array
    lengths: jax.Array
    counts: jax.Array
    dims: jax.Array


def forward(arrays: Any, *, normalise: bool) -> jax.Array:
    """Return log p(labels); -inf where impossible, NaN where a frame is bad."""
    cut = Cut.nowhere(arrays.scores.shape[1])
    posed = _pose(arrays, cut, normalise=normalise)
    peaks, rests = _rows(posed)
    shifts, kept = _there(posed, cut, peaks, rests)
    batch = len(posed.lengths)
    operands = (posed.skips, posed.counts, posed.dims, shifts, kept)
    [log_z] = launch("ctc_meet", [_floats(batch)], operands, grid=batch, block=32)
    return log_z


def forward_backward(arrays: Any, *, normalise: bool) -> tuple[jax.Array, jax.Array]:
    """Return log p(labels) and d(-log p) / d scores, exactly 0 where flagged."""
    cut = Cut.of(arrays.scores.shape[1])
    posed = _pose(arrays, cut, normalise=normalise)
    peaks, rests, gradient = _rows(posed, softmax=True)
    shifts, kept = _there(posed, cut, peaks, rests)
    walks, _, places, _ = kept.shape
    layout = Layout.back(places - 1)
    log_z, gradient, *_ = launch(
        f"ctc_back_{layout.labels}",
        [
            _floats(walks // 2),
            jax.ShapeDtypeStruct(gradient.shape, gradient.dtype),
            _floats(walks, 2, cut.group, places, 4),  # what was laid down
            _floats(walks, 2, cut.group, places, 2),  # occupancies
            _floats(walks, places, 4),  # a column that is parked between turns
            jax.ShapeDtypeStruct((walks, 3 * places + 2), jnp.int32),  # runs of labels
        ],
        (posed.scores, peaks, rests, *posed[1:], shifts, kept, gradient),
        grid=walks,
        block=layout.threads,
        aliases={10: 1},
    )
    return log_z, gradient


def _pose(arrays: Any, cut: Cut, *, normalise: bool) -> _Posed:
    scores = arrays.scores
    rows, _ = rows_per_block(scores.shape[2])
    dims = (
        *scores.shape,
        arrays.can_skip.shape[1],
        *cut,
        *(normalise, _KINDS[scores.dtype.name], rows == 1),
    )
    return _Posed(
        scores,
        arrays.ids,
        arrays.can_skip,
        arrays.logit_lengths,
        arrays.num_labels,
        jnp.asarray(np.array(dims, np.int32)),
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


def _there(
    posed: _Posed, cut: Cut, peaks: jax.Array, rests: jax.Array
) -> list[jax.Array]:
    """Return the shift of each half (a double, in two words), and columns kept."""
    walks, places = 2 * len(posed.lengths), posed.ids.shape[1]
    layout = Layout.there(places - 1)
    return launch(
        f"ctc_there_{layout.labels}",
        [
            jax.ShapeDtypeStruct((walks, 2), jnp.int32),
            _floats(walks, cut.groups + 1, places, 4),
        ],
        (posed.scores, peaks, rests, *posed[1:]),
        grid=walks,
        block=layout.threads,
    )


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
