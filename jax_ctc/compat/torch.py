"""`torch.nn.functional.ctc_loss`, of JAX arrays, by this library."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

import jax_ctc
from jax_ctc._checks.arrays import check_labels, check_lengths, check_scores
from jax_ctc._checks.given import ArrayLike, Flag, Index, Option
from jax_ctc._checks.host import Checked, as_array
from jax_ctc._checks.labels import narrow
from jax_ctc._checks.options import check_option


def ctc_loss(
    log_probs: ArrayLike,
    targets: ArrayLike,
    input_lengths: ArrayLike,
    target_lengths: ArrayLike,
    blank: Index = 0,
    reduction: Option = "mean",
    zero_infinity: Flag = False,
) -> jax.Array:
    r"""Negative log-probability, in nats, of label sequences, called as in PyTorch.

    T frames, N utterances, C classes including blank, S labels: PyTorch's letters.

    Args:
        log_probs: [T, N, C] or, for one utterance, [T, C] float: log-probabilities, as
            `jax.nn.log_softmax` returns them. Time comes first.
        targets: [N, S] integer class ids, padded on the right; or [sum of
            target_lengths], one utterance's behind the other's; or [S] for one.
        input_lengths: [N] (or [] or [1] for one utterance) integer frames.
        target_lengths: likewise, integer labels.
        blank: the blank class. Static.
        reduction: "none", "sum" over the utterances, or "mean": each loss divided by
            its number of labels (by 1 where there is none), then the mean over all N.
            Static.
        zero_infinity: whether an utterance that cannot be scored counts as 0, and not
            as +inf. Static.

    Returns:
        [N] ([] for one utterance) for "none", otherwise []: float32, or float64 for
        float64 input. May be negative where `log_probs` are not normalised.

    Raises:
        ValueError: ranks or shapes disagree, an option has an unknown value, or the
            lengths add up to more than there are concatenated targets.
        TypeError: a dtype is wrong, or `blank` is traced.

    Differs:
        The gradient is the true one, -posterior. PyTorch returns exp(log_probs) -
        posterior, the gradient with respect to logits, which is the same after it has
        passed a `log_softmax`, and only then: not for log-probabilities to which a
        prior or a penalty was added, and not by finite differences.
        Every utterance that `jax_ctc.ctc_loss_with_status` would flag has the value
        +inf (0 with `zero_infinity`) and a gradient of exactly 0, where PyTorch gives
        NaN without `zero_infinity`. A label outside 0..C-1, which PyTorch reads from
        elsewhere in memory, the blank among the labels, and lengths beyond the arrays
        are flagged too. A NaN stays NaN.
        bfloat16 and float16 are taken, and computed in float32. Derivatives of every
        order exist.

    Cost:
        As in `jax_ctc.ctc_loss_from_log_probs`, and a copy of `log_probs` with the
        utterances first. Under `jit`, concatenated targets with traced lengths are
        padded to all of them for each utterance: time grows with their sum.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_ctc.compat.torch import ctc_loss
        >>> log_probs = jax.nn.log_softmax(jnp.zeros((3, 2, 2)))  # [T, N, C]
        >>> loss = ctc_loss(log_probs, [1, 1], [3, 2], [1, 1], reduction="none")
        >>> loss.round(4)
        Array([0.2877, 0.2877], dtype=float32)
    """
    check_option(reduction, ("none", "mean", "sum"), name="reduction")
    scores = check_scores(log_probs, name="log_probs")
    ids = check_labels(targets, name="targets")
    is_one = scores.ndim == 2
    if scores.ndim > 3 or ids.ndim != 1 and (is_one or ids.ndim != 2):
        raise ValueError(
            "`log_probs` must be [T, N, C] with `targets` [N, S] or concatenated, or"
            f" [T, C] with `targets` [S]; got shapes {scores.shape} and {ids.shape}"
        )
    utterances = jnp.swapaxes(scores[:, None] if is_one else scores, 0, 1)
    [n, *_] = utterances.shape
    frames = _lengths(input_lengths, n, "input_lengths")
    counts = _lengths(target_lengths, n, "target_lengths")
    if ids.ndim == 1:
        ids = _rows(ids, counts)
    elif ids.shape[0] != n:
        raise ValueError(
            f"`targets` must be [N, S] with N={n} as in `log_probs` {scores.shape}; got"
            f" shape {ids.shape}"
        )
    loss = jax_ctc.ctc_loss_from_log_probs(
        utterances,
        ids,
        frames,
        counts,
        blank_id=blank,
        infeasible="zero" if zero_infinity else "inf",
    )
    if reduction == "mean":
        return jnp.mean(loss / jnp.maximum(counts, 1).astype(loss.dtype))
    if reduction == "sum":
        return jnp.sum(loss)
    return loss[0] if is_one else loss


def _lengths(lengths: ArrayLike, n: int, name: str) -> Checked:
    """Return [N], or raise: for one utterance PyTorch takes a number too."""
    array = as_array(lengths, name)
    row = lengths if array.ndim else array[None]
    checked = check_lengths(row, (n,), name=name, of="log_probs")
    assert checked is not None
    return checked


def _rows(targets: Checked, lengths: Checked) -> jax.Array:
    """Return [N, S] of concatenated targets, -1 where a row or the targets end."""
    flat = narrow(jnp.asarray(targets))
    width = flat.shape[0]
    if not isinstance(lengths, Tracer):
        known = np.asarray(lengths).clip(0)
        if known.sum() > width:
            raise ValueError(
                f"`targets` holds {width} labels, and `target_lengths` add up to"
                f" {known.sum()}"
            )
        width = int(known.max(initial=0))
    counts = jnp.maximum(narrow(jnp.asarray(lengths)), 0)
    place = jnp.arange(width, dtype=jnp.int32)[None]
    starts = (jnp.cumsum(counts, dtype=jnp.int32) - counts)[:, None]
    # One -1 behind the targets, for every place that is nobody's.
    flat = jnp.append(flat, jnp.int32(-1))
    is_own = (place < counts[:, None]) & (starts + place < flat.shape[0])
    return flat[jnp.where(is_own, starts + place, jnp.int32(-1))]
