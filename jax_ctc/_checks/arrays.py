"""Bad input: static mistakes raise here, traced mistakes become status bits here.

Ranks, shapes, dtypes and options are known when a function is traced, so a mistake in
them raises at once and says what to change. Lengths, label ids and the numbers inside
the logits are known only on the device, where nothing can be raised: they become bits
of `Status`, one int32 per utterance.

| checked                          | when    | outcome                               |
|----------------------------------|---------|---------------------------------------|
| rank, leading axes, option value | tracing | ValueError                            |
| dtype, traced or odd option      | tracing | TypeError                             |
| lengths outside 0..T, 0..U       | running | BAD_LENGTH                            |
| label id outside 0..V-1          | running | LABEL_OUT_OF_RANGE                    |
| label id equal to blank_id       | running | BLANK_IN_LABELS                       |
| frames < labels + repeats        | running | INFEASIBLE (if the lengths are good)  |
| NaN, +inf, a frame of only -inf  | running | NONFINITE_LOGITS (`_emissions` looks) |
"""

import contextlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jax_ctc._checks.given import ArrayLike
from jax_ctc._checks.host import FLOATS, Checked, as_array
from jax_ctc._numbers.sizes import Size, is_open


class Batch(NamedTuple):
    """Inputs whose static properties agree; leading axes as they came."""

    scores: Checked  # [..., T, V] float: logits or log-probabilities
    labels: Checked  # [..., U] integer
    logit_lengths: Checked | None  # [...] integer; None: all frames
    label_lengths: Checked | None  # [...] integer; None: all labels
    wildcard_log_prob: Checked | None = None  # one float; None: no label is a wildcard

    # The axes of each field, a letter each; a dot: all leading ones.
    AXES = (".TV", ".U", ".", ".", "")


def check_inputs(
    scores: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None,
    label_lengths: ArrayLike | None,
    *,
    name: str = "logits",
) -> Batch:
    """Raise on static mistakes; lengths that were left out stay out."""
    _check_order(scores, labels, logit_lengths, label_lengths, name)
    checked_scores = check_scores(scores, name=name)
    return Batch(
        checked_scores,
        *check_targets(checked_scores, labels, logit_lengths, label_lengths, name=name),
    )


def check_targets(
    scores: Checked,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None,
    label_lengths: ArrayLike | None,
    *,
    name: str,
) -> tuple[Checked, Checked | None, Checked | None]:
    """Return labels and lengths that belong to `[..., T, *]` of a name, or raise."""
    leading = scores.shape[:-2]
    checked_labels = check_labels(labels)
    if checked_labels.shape[:-1] != leading:
        raise ValueError(_disagreement(checked_labels.shape, scores.shape, name))
    return (
        checked_labels,
        check_lengths(logit_lengths, leading, name="logit_lengths", of=name),
        check_lengths(label_lengths, leading, name="label_lengths", of=name),
    )


def check_scores(scores: ArrayLike, *, name: str = "logits") -> Checked:
    """Return `[..., T, V]` floats with at least one class, or raise."""
    array = check_floats(scores, name=name, what="the model's raw scores")
    if array.ndim < 2:
        raise ValueError(
            f"`{name}` must be [..., T, V] (frames, classes) with any leading batch"
            f" axes; got shape {array.shape}"
        )
    if array.shape[-1] == 0:
        raise ValueError(
            f"`{name}` must be [..., T, V] with at least the blank class (V >= 1);"
            f" got shape {array.shape}"
        )
    if is_open(array.shape[-1]):
        raise ValueError(
            f"`{name}` must have a known number of classes V, which `blank_id` and"
            f" `labels` count in; got shape {array.shape}. A program may be exported"
            " with symbolic leading axes, T and U, but not V"
        )
    return array


def check_floats(values: ArrayLike, *, name: str, what: str) -> Checked:
    """Return floats of any shape, or raise."""
    array = as_array(values, name)
    if array.dtype.name not in FLOATS:
        raise TypeError(
            f"`{name}` must be floating point ({', '.join(FLOATS)}); got"
            f" {array.dtype} of shape {array.shape}. Pass {what}, or"
            f" cast: {name}.astype(jnp.float32)"
        )
    return array


def check_labels(labels: ArrayLike, *, name: str = "labels") -> Checked:
    """Return `[..., U]` integers, or raise."""
    array = _as_integers(labels, name, "[..., U] class ids")
    if array.ndim < 1:
        raise ValueError(
            f"`{name}` must be [..., U], one row of class ids per utterance; got a"
            " single number. For one label pass jnp.array([label])"
        )
    return array


def check_lengths(
    lengths: ArrayLike | None,
    leading: tuple[Size, ...],
    *,
    name: str,
    of: str,
) -> Checked | None:
    """Return `[...]` integers, or None where none were given, or raise."""
    if lengths is None:
        return None
    array = as_array(lengths, name)
    if array.ndim == len(leading) + 1 and array.shape[:-1] == leading:
        fix = (
            "If these are paddings (1 = padded), pass"
            f" {name}=lengths_from_paddings(paddings)"
        )
        if array.shape[-1] == 1 and jnp.issubdtype(array.dtype, jnp.integer):
            fix = f"To drop the last axis, pass jnp.squeeze({name}, -1)"
        raise ValueError(
            f"`{name}` must be [...] = {leading}, one integer per utterance; got shape"
            f" {array.shape}. {fix}"
        )
    array = _as_integers(lengths, name, "[...] integers")
    if array.shape != leading:
        raise ValueError(
            f"`{name}` must have the leading axes of `{of}`, {leading}, one integer"
            f" per utterance; got shape {array.shape}"
        )
    return array


def check_losses(loss: ArrayLike) -> Checked:
    """Return `[...]` floats, or raise."""
    array = as_array(loss, "loss")
    if array.dtype.name not in FLOATS:
        raise TypeError(
            f"`loss` must be floating point, one number of nats per utterance; got"
            f" {array.dtype} of shape {array.shape}. Pass the result of `ctc_loss`"
        )
    return array


def check_per_utterance(
    value: ArrayLike, *, loss: Checked, name: str, integer: bool = False
) -> Checked:
    """Return the array if it has one number per loss, or raise."""
    array = _as_integers(value, name, "[...]") if integer else as_array(value, name)
    is_whole = jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool
    if not is_whole and array.dtype.name not in FLOATS:
        raise TypeError(
            f"`{name}` must be real numbers; got {array.dtype} of shape {array.shape}."
            f" Cast: {name}.astype(jnp.float32)"
        )
    if array.shape != loss.shape:
        raise ValueError(
            f"`{name}` must have the shape of `loss`, {loss.shape}, one number per"
            f" utterance; got shape {array.shape}"
        )
    return array


def _as_integers(value: ArrayLike, name: str, expected: str) -> Checked:
    array = as_array(value, name)
    if isinstance(value, list | tuple) and array.size == 0:
        return array.astype(jnp.int32)  # an empty list has no dtype of its own
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            f"`{name}` must be {expected}, an integer dtype; got {array.dtype} of shape"
            f" {array.shape}. Cast: {name}.astype(jnp.int32)"
        )
    return array


def _check_order(
    scores: Any, labels: Any, logit_lengths: Any, label_lengths: Any, name: str
) -> None:
    """Raise where the arguments come in the order of another library.

    Looked at before each by itself, since a cast would make nonsense of them.
    """
    first, second, third, fourth = map(
        _seen, (scores, labels, logit_lengths, label_lengths)
    )
    if first.is_integer and not second.is_integer and first.rank + 1 == second.rank:
        raise TypeError(
            f"`{name}` come first and `labels` second; got integers of shape"
            f" {first.shape} first. Keras and TensorFlow have the labels first, and"
            f" their lengths before those of the frames: pass ({name}, labels,"
            " logit_lengths, label_lengths)"
        )
    if not second.rank or second.shape != first.shape[:-1] or not third.is_integer:
        return
    # Paddings of frames come second; what is third is no paddings, but labels.
    is_optax = third.rank == second.rank and third.shape[:-1] == second.shape[:-1]
    if is_optax and second.is_integer:
        is_optax = third.shape == fourth.shape != second.shape
    if is_optax:
        raise TypeError(
            f"`labels` come second; got {second.shape} there, the shape of the frames'"
            f" paddings, and integers of shape {third.shape} third. That is the order"
            f" of optax.ctc_loss. Here paddings become lengths and come last: ({name},"
            " labels, jax_ctc.lengths_from_paddings(logit_paddings),"
            " jax_ctc.lengths_from_paddings(label_paddings))"
        )


class _Seen(NamedTuple):
    """What can be said of an argument before it is checked."""

    shape: tuple[Any, ...]
    is_integer: bool

    @property
    def rank(self) -> int:
        return len(self.shape)


def _seen(value: Any) -> _Seen:
    if isinstance(value, list | tuple):
        # Ragged rows are said when their turn comes.
        with contextlib.suppress(ValueError, TypeError, RuntimeError):
            value = np.asarray(value)
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    is_integer = isinstance(dtype, np.dtype) and np.issubdtype(dtype, np.integer)
    return _Seen(tuple(shape or ()), is_integer)


def _disagreement(labels: tuple[Size, ...], scores: tuple[Size, ...], name: str) -> str:
    message = (
        f"`labels` must be [..., U] with the leading axes of `{name}`,"
        f" {scores[:-2]}; got labels {labels} beside {name} {scores}."
    )
    if len(scores) == 3 and len(labels) == 2 and labels[0] == scores[1]:
        return (
            f"{message} The second axis of `{name}` has the labels' batch size: if it"
            f" is [T, B, V], pass jnp.swapaxes({name}, 0, 1)"
        )
    if len(labels) == 1 and len(scores) == 3:
        return (
            f"{message} If `labels` holds all utterances in one row, pad them to"
            " [B, U] and pass label_lengths"
        )
    return f"{message} Utterances are matched one to one"
