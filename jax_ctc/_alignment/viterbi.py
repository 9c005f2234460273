"""Forced alignment: the most probable path, and where it puts each label."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc import _recursion
from jax_ctc._alignment.as_given import alignment_as_given
from jax_ctc._alignment.paths import (
    PADDING,
    live_frames,
    place_in,
    read_along,
    taken,
    total_of,
)
from jax_ctc._alignment.records import CTCAlignment
from jax_ctc._checks.arrays import Batch
from jax_ctc._checks.given import ArrayLike, Index, Option
from jax_ctc._lattice.needed import opened
from jax_ctc._lattice.pose import Spec, pose, prepare
from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers.masks import is_inside, positions
from jax_ctc._numbers.sizes import Size


def ctc_align(
    logits: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    *,
    blank_id: Index = 0,
    inputs: Option = "logits",
    wildcard_id: Index | None = None,
    wildcard_log_prob: ArrayLike = 0.0,
) -> CTCAlignment:
    r"""The most probable path that says the labels, and each label's frames in it.

    `...` any leading batch axes, T frames, V classes including blank, U labels. With
    p_t = softmax(logits[t]), or exp(log_probs[t]),

        tokens   = argmax_{paths that collapse to labels} prod_t p_t(path_t)
        score[n] = mean over start[n] <= t < end[n] of p_t(labels[n])

    by the recursion of the loss with max in place of + (Viterbi): the true maximum,
    not a repaired argmax of posteriors. Of paths whose products, as computed, are equal
    it is the one that says its labels earliest: in every frame it is as far along as
    any of them.

    Args:
        logits: [..., T, V] float32, float64, bfloat16 or float16, unnormalised scores.
        labels: [..., U] integer class ids without blanks, padded on the right.
        logit_lengths: [...] integer frames, 0..T. Default: all T.
        label_lengths: [...] integer labels, 0..U. Default: all U.
        blank_id: the blank class, 0..V-1. Static.
        inputs: "logits", which are normalised; or "log_probs", taken as they are, with
            a prior, a penalty or a mask in them if you like. Static.
        wildcard_id: a label that stands for anything, as in `ctc_loss`. Static.
        wildcard_log_prob: nats of a frame that a wildcard takes, as in `ctc_loss`.

    Returns:
        CTCAlignment: tokens [..., T] int32, the class of each frame, padded with -1;
        log_prob [...] nats, of that path; start and end [..., U] int32 frames, end
        exclusive, -1 for padded labels; score [..., U] in 0..1, the mean probability of
        the label over its frames, 0 for padded labels. A probability rather than a
        posterior: a posterior is given the labels, and puts each of them somewhere even
        where the transcript is wrong. A wildcard has the frames that it took, from the
        first to the last: there tokens are `wildcard_id`, and its score is 0. It is
        empty, start = end, where it took none, and where it follows another one.
        Floats are float32 (float64 for float64 logits). `log_prob` and `score` are
        re-read from the logits along the path, and so are their derivatives, the path
        held fixed.

    Raises:
        ValueError: ranks or shapes disagree, `blank_id` is not a class, or `inputs` has
            an unknown value.
        TypeError: a dtype is wrong, or `blank_id` is traced.

    Status:
        Utterances that `ctc_loss_with_status` flags have tokens, start and end -1,
        log_prob -inf and score 0, with derivative exactly 0; of NONFINITE_LOGITS
        log_prob and score are NaN.

    Numerics:
        (max, *) in extended range: paths are compared to about T * 1e-7 relative, at
        any length, and chunks or padding change no bit of the comparison. Paths closer
        than that may go either way, equal ones too unless their products round alike.

    Cost:
        O(T * (U + V)) time per utterance. Back-pointers are int8 and live for one chunk
        of frames, so memory grows with sqrt(T) beyond inputs and outputs.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> best = jnp.array([0, 1, 1, 0, 2])  # the class that wins each frame
        >>> alignment = jax_ctc.ctc_align(5.0 * jnp.eye(3)[best], jnp.array([1, 2]))
        >>> alignment.tokens.tolist()
        [0, 1, 1, 0, 2]
        >>> alignment.start.tolist(), alignment.end.tolist()
        ([1, 4], [3, 5])
        >>> [f"{score:.3f}" for score in alignment.score]
        ['0.987', '0.987']

    References:
        A. J. Viterbi, "Error bounds for convolutional codes and an asymptotically
        optimum decoding algorithm", IEEE Trans. Inf. Theory 13 (1967).
        L. Kurzinger et al., "CTC-segmentation of large corpora for German end-to-end
        speech recognition", SPECOM 2020, https://arxiv.org/abs/2007.09127.
    """
    spec, batch = prepare(
        logits,
        labels,
        logit_lengths,
        label_lengths,
        blank_id=blank_id,
        inputs=inputs,
        wildcard_id=wildcard_id,
        wildcard_log_prob=wildcard_log_prob,
    )
    return _align(spec, batch)


@functools.partial(jax.jit, static_argnums=0)
def _align(spec: Spec, batch: Batch) -> CTCAlignment:
    """Find the best states, then read their classes, spans and probabilities."""
    problem, _, wildcards = pose(spec, batch)
    num_frames = batch.scores.shape[-2]
    fixed = lax.stop_gradient((problem, wildcards))
    small, shift = opened(*fixed, normalise=spec.normalise)
    log_value, states = _recursion.read(
        spec.implementation,
        "best_path",
        small,
        normalise=spec.normalise and shift is None,
    )
    states = states[:num_frames].T  # [B, T]
    is_live = live_frames(problem, log_value, num_frames)
    tokens, log_probs = read_along(
        states[:, None], problem, small, wildcards, is_live, spec
    )
    alignment = describe(problem, log_value, states, tokens, log_probs, is_live)
    if wildcards is not None:
        is_taken = taken(states[:, None], small, wildcards, is_live)[:, 0]
        alignment = alignment_as_given(alignment, problem, wildcards, states, is_taken)
    leading = batch.scores.shape[:-2]
    return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), alignment)


def describe(
    problem: Problem,
    log_value: Float[Array, " B"],
    states: Int[Array, "B T"],
    tokens: Int[Array, "B 1 T"],
    log_probs: Float[Array, "B 1 T"],
    is_live: Bool[Array, "B T"],
) -> CTCAlignment:
    """Turn the best states and their log-probabilities into the record."""
    num_labels = problem.can_skip.shape[1]
    is_label = is_inside(problem.num_labels, num_labels)  # none where flagged
    is_label = is_label & jnp.isfinite(log_value)[:, None]
    start, end = _spans(states, is_live, num_labels)
    score = mean_over_spans(jnp.exp(log_probs[:, 0]), states, start, end)
    score = jnp.where(is_label, score, 0)
    return CTCAlignment(
        tokens=tokens[:, 0],
        log_prob=total_of(log_probs, log_value)[:, 0],
        start=jnp.where(is_label, start, PADDING),
        end=jnp.where(is_label, end, PADDING),
        score=jnp.where(jnp.isnan(log_value)[:, None], jnp.nan, score),
    )


def _spans(
    states: Int[Array, "B T"], is_live: Bool[Array, "B T"], num_labels: Size
) -> tuple[Int[Array, "B U"], Int[Array, "B U"]]:
    """Return where each label starts and ends, exclusive.

    States never decrease along a path: label n takes the frames from the first with
    s >= 2n + 1 to the last with s < 2n + 2.
    """
    label = 2 * positions(num_labels) + 1
    states = jnp.where(is_live, states, 2 * num_labels + 2)  # beyond every label

    def utterance(states: Int[Array, " T"]) -> tuple:
        find = functools.partial(place_in, states)
        return find(label), find(label + 1)

    return jax.vmap(utterance)(states)


def mean_over_spans(
    values: Float[Array, "B T"],
    states: Int[Array, "B T"],
    start: Int[Array, "B U"],
    end: Int[Array, "B U"],
) -> Float[Array, "B U"]:
    """Return the mean of the values of each label's frames.

    By a running sum that starts anew with every state: differences of one long sum
    would keep few digits, and a scatter adds in any order on a GPU.
    """
    if values.shape[1] == 0:
        return jnp.zeros_like(values, shape=start.shape)
    is_first = states[:, 1:] != states[:, :-1]
    is_first = jnp.pad(is_first, ((0, 0), (1, 0)), constant_values=True)

    def add(total: Float[Array, " B"], frame: tuple) -> tuple:
        starts, value = frame
        total = jnp.where(starts, 0, total) + value
        return total, total

    zero = jnp.zeros_like(values[:, 0])
    _, running = lax.scan(add, zero, (is_first.T, values.T))  # [T, B]
    last = jnp.clip(end - 1, 0, values.shape[1] - 1)
    total = jnp.take_along_axis(running.T, last, axis=1, mode="promise_in_bounds")
    return total / jnp.maximum(end - start, 1).astype(values.dtype)
