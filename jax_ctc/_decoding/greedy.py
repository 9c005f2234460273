"""Decoding: from scores to label sequences."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._checks.arrays import check_lengths, check_scores
from jax_ctc._checks.given import ArrayLike, Index
from jax_ctc._checks.labels import is_within, narrow
from jax_ctc._checks.options import check_blank_id
from jax_ctc._decoding.records import Hypotheses
from jax_ctc._lattice import normaliser
from jax_ctc._lattice.pose import or_full
from jax_ctc._numbers.masks import is_inside
from jax_ctc._numbers.precision import accumulator


def greedy_decode(
    logits: ArrayLike,
    logit_lengths: ArrayLike | None = None,
    *,
    blank_id: Index = 0,
) -> Hypotheses:
    r"""Labels on the single most probable path, and that path's log-probability.

    `...` any leading batch axes, T frames, V classes including blank.

        path_t   = argmax_v logits[t, v]             (the first of equals)
        labels   = path, repeats merged, then blanks dropped
        log_prob = sum_t log softmax(logits[t])[path_t]

    Args:
        logits: [..., T, V] float32, float64, bfloat16 or float16.
        logit_lengths: [...] integer frames, 0..T. Default: all T.
        blank_id: the blank class, 0..V-1. Static.

    Returns:
        Hypotheses: labels [..., T] int32 padded with -1, lengths [...] int32,
        log_prob [...] float32 (float64 for float64 logits), nats. The path is the best
        one, but another label sequence may be more probable in sum over its paths.
        `log_prob` is differentiable: it is re-read from the logits along the path.

    Raises:
        ValueError: ranks or shapes disagree, or `blank_id` is not a class.
        TypeError: a dtype is wrong, or `blank_id` is traced.

    Status:
        No label can be read where logit_lengths is outside 0..T (log_prob -inf), or a
        frame inside it holds NaN, +inf or only -inf (log_prob NaN): labels are then
        all -1 and lengths 0.

    Cost:
        O(T * V) time, and no [T, V] array besides the logits.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> best = jnp.array([1, 1, 0, 1, 2])  # the class that wins each frame
        >>> hypotheses = jax_ctc.greedy_decode(10.0 * jnp.eye(3)[best])
        >>> hypotheses.labels.tolist(), int(hypotheses.lengths)
        ([1, 1, 2, -1, -1], 3)

    References:
        A. Graves et al., "Connectionist temporal classification", ICML 2006,
        section 3.2 (best path decoding).
    """
    scores = check_scores(logits)
    lengths = check_lengths(
        logit_lengths, scores.shape[:-2], name="logit_lengths", of="logits"
    )
    return _greedy(check_blank_id(blank_id, scores.shape[-1]), scores, lengths)


@functools.partial(jax.jit, static_argnums=0)
def _greedy(
    blank_id: int, logits: Float[Array, "... T V"], lengths: Int[Array, "..."] | None
) -> Hypotheses:
    *leading, num_frames, _ = logits.shape
    logits = logits.astype(accumulator(logits.dtype))
    lengths = narrow(or_full(lengths, leading, num_frames))
    is_live = is_inside(lengths, num_frames)  # [..., T]
    path = jnp.argmax(logits, axis=-1).astype(jnp.int32)  # [..., T]
    log_prob = _log_prob(jnp.where(is_live[..., None], logits, 0), path, is_live)
    bad_length = ~is_within(lengths, num_frames)
    log_prob = jnp.where(bad_length & ~jnp.isnan(log_prob), -jnp.inf, log_prob)
    is_kept = _first_of_run(path) & (path != blank_id) & is_live
    is_kept = is_kept & jnp.isfinite(log_prob)[..., None]
    return Hypotheses(
        labels=_to_the_left(path, is_kept),
        lengths=jnp.sum(is_kept, axis=-1, dtype=jnp.int32),
        log_prob=log_prob,
    )


def _log_prob(
    logits: Float[Array, "... T V"],
    path: Int[Array, "... T"],
    is_live: Bool[Array, "... T"],
) -> Float[Array, "..."]:
    """Sum log softmax along the path; NaN if a live frame is bad."""
    best = jnp.take_along_axis(logits, path[..., None], axis=-1)[..., 0]  # [..., T]
    here = normaliser.of(logits)
    log_prob = (best - here.peak) - jnp.log1p(here.rest)  # NaN if the frame is bad
    return jnp.sum(jnp.where(is_live, log_prob, 0), axis=-1)


def _first_of_run(path: Int[Array, "... T"]) -> Bool[Array, "... T"]:
    """Mark each frame whose class differs from the frame before it."""
    is_first = jnp.ones_like(path[..., :1], bool)
    return jnp.concatenate([is_first, path[..., 1:] != path[..., :-1]], axis=-1)


def _to_the_left(
    path: Int[Array, "... T"], is_kept: Bool[Array, "... T"]
) -> Int[Array, "... T"]:
    """Move the kept classes to the left in order; the rest is -1."""
    order = jnp.argsort(~is_kept, axis=-1, stable=True)
    kept = jnp.where(is_kept, path, -1)
    return jnp.take_along_axis(kept, order, axis=-1)
