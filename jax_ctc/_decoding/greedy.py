"""Decoding: from scores to label sequences."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._alignment.paths import PADDING
from jax_ctc._alignment.viterbi import mean_over_spans
from jax_ctc._checks.arrays import check_lengths, check_scores
from jax_ctc._checks.given import ArrayLike, Index, Option
from jax_ctc._checks.labels import bit, is_within, narrow
from jax_ctc._checks.options import check_blank_id, is_logits
from jax_ctc._checks.status import Status
from jax_ctc._decoding.records import Hypotheses
from jax_ctc._lattice import normaliser
from jax_ctc._lattice.pose import Spec, or_full
from jax_ctc._numbers.masks import is_inside, positions
from jax_ctc._numbers.precision import accumulator


def greedy_decode(
    logits: ArrayLike,
    logit_lengths: ArrayLike | None = None,
    *,
    blank_id: Index = 0,
    inputs: Option = "logits",
) -> Hypotheses:
    r"""Labels on the single most probable path, and that path's log-probability.

    `...` any leading batch axes, T frames, V classes including blank.

        path_t   = argmax_v logits[t, v]             (the first of equals)
        labels   = path, repeats merged, then blanks dropped
        log_prob = sum_t log softmax(logits[t])[path_t]      (log_probs: as they are)

    Args:
        logits: [..., T, V] float32, float64, bfloat16 or float16.
        logit_lengths: [...] integer frames, 0..T. Default: all T.
        blank_id: the blank class, 0..V-1. Static.
        inputs: "logits", which are normalised; or "log_probs", taken as they are, with
            a prior, a penalty or a mask in them if you like. Static.

    Returns:
        Hypotheses: labels [..., T] int32 padded with -1, lengths [...] int32,
        log_prob [...] float32 (float64 for float64 logits), nats; start and end
        [..., T] int32 frames of each label, end exclusive, and its confidence [..., T]
        in 0..1, the mean probability over these frames; status [...] int32. The path is
        the best one, but another label sequence may be more probable in sum over its
        paths: `beam_search_decode` looks for it. `log_prob` and `confidence` are
        differentiable, the path held fixed.

    Raises:
        ValueError: ranks or shapes disagree, `blank_id` is not a class, or `inputs` has
            an unknown value.
        TypeError: a dtype is wrong, or `blank_id` is traced.

    Status:
        BAD_LENGTH: logit_lengths is outside 0..T; log_prob is -inf. NONFINITE_LOGITS: a
        frame inside it holds NaN, +inf or only -inf; log_prob is NaN. Nothing is read
        then: labels, start and end are -1, lengths and confidence 0.

    Cost:
        O(T * V) time, and no [T, V] array besides the logits.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> best = jnp.array([1, 1, 0, 1, 2])  # the class that wins each frame
        >>> hypotheses = jax_ctc.greedy_decode(10.0 * jnp.eye(3)[best])
        >>> hypotheses.labels.tolist(), int(hypotheses.lengths)
        ([1, 1, 2, -1, -1], 3)
        >>> hypotheses.start[:3].tolist(), hypotheses.end[:3].tolist()
        ([0, 3, 4], [2, 4, 5])

    References:
        A. Graves et al., "Connectionist temporal classification", ICML 2006,
        section 3.2 (best path decoding).
    """
    scores = check_scores(logits)
    lengths = check_lengths(
        logit_lengths, scores.shape[:-2], name="logit_lengths", of="logits"
    )
    spec = Spec(check_blank_id(blank_id, scores.shape[-1]), normalise=is_logits(inputs))
    return _greedy(spec, scores, lengths)


@functools.partial(jax.jit, static_argnums=0)
def _greedy(
    spec: Spec, logits: Float[Array, "... T V"], lengths: Int[Array, "..."] | None
) -> Hypotheses:
    *leading, num_frames, num_classes = logits.shape
    batch = math.prod(leading)
    logits = logits.astype(accumulator(logits.dtype))
    logits = logits.reshape(batch, num_frames, num_classes)
    lengths = narrow(or_full(lengths, leading, num_frames)).reshape(batch)
    is_live = is_inside(lengths, num_frames)  # [B, T]
    path = jnp.argmax(logits, axis=-1).astype(jnp.int32)  # [B, T]
    scores = jnp.where(is_live[..., None], logits, 0)
    log_prob = _log_prob(scores, path, normalise=spec.normalise)  # [B, T]
    total = jnp.sum(jnp.where(is_live, log_prob, 0), axis=-1)
    status = bit(Status.BAD_LENGTH, ~is_within(lengths, num_frames))
    status = status | bit(Status.NONFINITE_LOGITS, jnp.isnan(total))

    is_first = _first_of_run(path)
    is_kept = is_first & (path != spec.blank_id) & is_live & (status == 0)[:, None]
    start, count = _to_the_left(is_kept), jnp.sum(is_kept, axis=-1, dtype=jnp.int32)
    end = _at(_ends_of_runs(path, is_live), start, PADDING)
    is_label = start >= 0
    confidence = mean_over_spans(jnp.exp(log_prob), path, start, end)
    found = Hypotheses(
        labels=_at(path, start, PADDING),
        lengths=count,
        log_prob=jnp.where((status == 0) | jnp.isnan(total), total, -jnp.inf),
        start=start,
        end=end,
        confidence=jnp.where(is_label, confidence, 0),
        status=status,
    )
    return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), found)


def _log_prob(
    scores: Float[Array, "B T V"], path: Int[Array, "B T"], *, normalise: bool
) -> Float[Array, "B T"]:
    """Return log p along the path; NaN if a frame is bad."""
    best = jnp.take_along_axis(scores, path[..., None], axis=-1)[..., 0]  # [B, T]
    if not normalise:  # the best is infinite, or NaN, exactly where a frame is bad
        return jnp.where(jnp.isfinite(best), best, jnp.nan)
    here = normaliser.of(scores)
    return (best - here.peak) - jnp.log1p(here.rest)


def _first_of_run(path: Int[Array, "B T"]) -> Bool[Array, "B T"]:
    """Mark each frame whose class differs from the frame before it."""
    is_first = jnp.ones_like(path[:, :1], bool)
    return jnp.concatenate([is_first, path[:, 1:] != path[:, :-1]], axis=-1)


def _ends_of_runs(
    path: Int[Array, "B T"], is_live: Bool[Array, "B T"]
) -> Int[Array, "B T"]:
    """Return the frame after the last that shows what each frame shows."""
    num_frames = path.shape[1]
    shown = jnp.where(is_live, path, PADDING)
    is_last = jnp.concatenate(
        [shown[:, 1:] != shown[:, :-1], jnp.ones_like(is_live[:, :1])], axis=-1
    )
    after = jnp.where(is_last, positions(num_frames, 2) + 1, num_frames)
    return lax.cummin(after, axis=1, reverse=True)


def _to_the_left(is_kept: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """Return the frames that are kept, in order; the rest is -1."""
    order = jnp.argsort(~is_kept, axis=-1, stable=True).astype(jnp.int32)
    return jnp.where(jnp.take_along_axis(is_kept, order, axis=-1), order, PADDING)


def _at(row: Int[Array, "B T"], frame: Int[Array, "B T"], none: int) -> Any:
    """Return row[b, frame[b, n]], and `none` where there is no frame."""
    found = jnp.take_along_axis(row, jnp.maximum(frame, 0), axis=-1, mode="clip")
    return jnp.where(frame >= 0, found, none)
