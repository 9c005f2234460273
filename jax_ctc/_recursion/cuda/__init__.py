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

import concurrent.futures
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice.problem import Problem
from jax_ctc._recursion.contract import Traits
from jax_ctc._recursion.cuda.launch import launch
from jax_ctc._recursion.cuda.plan import MOST_LABELS, Cut, Layout, rows_per_block

PLATFORM = "cuda"
HAS_RUN_ON: str | None = "NVIDIA H100"

_KINDS = {"float32": 0, "bfloat16": 1, "float16": 2}


def decline(traits: Traits) -> str | None:
    """Say in a sentence why the kernels cannot do this here, or None."""
    dtype = jnp.dtype(traits.dtype).name
    if dtype not in _KINDS:
        return f"it takes {', '.join(_KINDS)}, and this is {dtype}"
    sizes = traits.batch, traits.num_frames, traits.num_labels, traits.num_classes
    if not all(isinstance(size, int) for size in sizes):
        return None  # symbolic sizes (`jax.export`): there plain XLA runs anyway
    if traits.num_labels > MOST_LABELS:
        return f"it takes {MOST_LABELS:,} labels at most, and U = {traits.num_labels:,}"
    if traits.batch * traits.num_frames >= 2**31:
        return "it takes fewer than 2**31 frames in all"
    return missing()


@functools.cache
def missing() -> str | None:
    """Say why kernels cannot run here, or None; two are launched to find out.

    That XLA runs PTX is how it is made, and not a promise; and a driver, or a GPU, may
    be too old. Where the GPU is elsewhere, and programs are only compiled for it,
    nothing is known.
    """
    if jax.default_backend() != "gpu":
        return None
    try:
        # The first to ask may be a program that is being traced, of which this is no
        # part: what is traced is known to a thread alone.
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            log_z = thread.submit(_log_of_half).result()
    except Exception as fault:  # whatever it is, plain XLA does without
        return f"PTX does not run here: {str(fault).splitlines()[0]}"
    if abs(log_z + np.log(2)) > 1e-6:
        return f"PTX runs here, but log(1/2) is {log_z}"
    return None


def _log_of_half() -> float:
    """Return log p of one label in one frame of two classes, by the kernels."""
    one = np.ones(1, np.int32)
    problem = Problem(
        scores=jnp.zeros((1, 1, 2), jnp.float32),
        ids=jnp.asarray([[1, 0]], jnp.int32),
        can_skip=jnp.zeros((1, 1), bool),
        num_labels=jnp.asarray(one),
        logit_lengths=jnp.asarray(one),
    )
    return float(jax.jit(functools.partial(forward, normalise=True))(problem)[0])


class _Posed(NamedTuple):
    """What all kernels of a call are given."""

    scores: Float[Array, "B T V"]
    ids: Int[Array, "B S"]
    skips: Bool[Array, "B U"]
    lengths: Int[Array, " B"]
    counts: Int[Array, " B"]
    dims: Int[Array, " 9"]


def forward(problem: Problem, *, normalise: bool) -> Float[Array, " B"]:
    """Return log p(labels); -inf where impossible, NaN where a frame is bad."""
    cut = Cut.nowhere(problem.scores.shape[1])
    posed = _pose(problem, cut, normalise=normalise)
    peaks, rests = _rows(posed)
    shifts, kept = _there(posed, cut, peaks, rests)
    batch = len(posed.lengths)
    operands = (posed.skips, posed.counts, posed.dims, shifts, kept)
    [log_z] = launch("ctc_meet", [_floats(batch)], operands, grid=batch, block=32)
    return log_z


def forward_backward(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and d(-log p) / d scores, exactly 0 where flagged."""
    cut = Cut.of(problem.scores.shape[1])
    posed = _pose(problem, cut, normalise=normalise)
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


def _pose(problem: Problem, cut: Cut, *, normalise: bool) -> _Posed:
    scores, ids, can_skip, num_labels, logit_lengths = problem
    rows, _ = rows_per_block(scores.shape[2])
    kind, is_wide = _KINDS[scores.dtype.name], rows == 1
    dims = (*scores.shape, can_skip.shape[1], *cut, normalise, kind, is_wide)
    return _Posed(
        scores,
        ids,
        can_skip,
        logit_lengths,
        num_labels,
        # Literals: an array would be a constant, which `custom_partitioning` refuses.
        jnp.concatenate([jnp.full(1, size, jnp.int32) for size in dims]),
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
    """Return the shift of each half (a double, in two words), and columns kept.

    These are one for each group, the one in the middle, and what its sums lost.
    """
    walks, places = 2 * len(posed.lengths), posed.ids.shape[1]
    layout = Layout.there(places - 1)
    return launch(
        f"ctc_there_{layout.labels}",
        [
            jax.ShapeDtypeStruct((walks, 2), jnp.int32),
            _floats(walks, cut.groups + 2, places, 4),
        ],
        (posed.scores, peaks, rests, *posed[1:]),
        grid=walks,
        block=layout.threads,
    )


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
