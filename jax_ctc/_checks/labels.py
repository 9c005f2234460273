"""Lengths and ids that only the device knows: a mistake becomes bits of `Status`."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, Integer

from jax_ctc._checks.status import Status
from jax_ctc._numbers.masks import is_inside
from jax_ctc._numbers.sizes import Size, is_open

_INT32 = np.iinfo(np.int32)
_AFTER = np.int32(2**30)  # all labels


def narrow(integers: Integer[Array, "..."]) -> Int[Array, "..."]:
    """Return int32, saturated: an id too large must not wrap round to a good one.

    And one that is small must not once it is counted: lengths may come in one byte.
    """
    if integers.dtype.itemsize < 4 or integers.dtype == jnp.int32:
        return integers.astype(jnp.int32)
    info = jnp.iinfo(integers.dtype)
    low, high = max(info.min, _INT32.min), min(int(info.max), _INT32.max)
    return jnp.clip(integers, low, high).astype(jnp.int32)


def is_wildcard(labels: Any, label_lengths: Any, wildcard_id: int) -> Any:
    """Mark the labels inside the length that stand for anything: [..., U]."""
    place = _arange(0, labels.shape[-1])
    place = place.reshape((1,) * (labels.ndim - 1) + place.shape)
    return (labels == wildcard_id) & (place < label_lengths[..., None])


def to_the_left(xp: Any, labels: Any, is_out: Any) -> Any:
    """Return the labels [..., U] in order, those that are out after all others."""
    place = _arange(0, labels.shape[-1])
    place = place.reshape((1,) * (labels.ndim - 1) + place.shape)
    order = (place + _AFTER * is_out.astype(np.int32)).argsort(axis=-1)
    return xp.take_along_axis(labels, order, axis=-1)


def needed_frames(labels: Any, label_lengths: Any) -> Any:
    """Count labels plus adjacent repeats, the frames of the shortest path.

    NumPy stays NumPy: labels [..., U] and label_lengths [...], int32 or wider, give
    [...].
    """
    position = _arange(0, labels.shape[-1])
    position = position.reshape((1,) * (labels.ndim - 1) + position.shape)
    repeats = _is_repeat(labels) & (position < label_lengths[..., None])
    return label_lengths + repeats.sum(-1, dtype=label_lengths.dtype)


def _is_repeat(labels: Any) -> Any:
    """Mark the labels that equal the one before them: [..., U].

    The first too, which no label precedes: then all that is asked of a place can be
    asked in one pass.
    """
    xp = labels.__array_namespace__()
    first = xp.zeros_like(labels[..., :1], dtype=bool)
    return xp.concatenate([first, labels[..., 1:] == labels[..., :-1]], axis=-1)


def _arange(start: int, stop: Size) -> Any:
    arange = jnp.arange if is_open(stop) else np.arange
    return arange(start, stop, dtype=np.int32)


def status_of_labels(
    labels: Int[Array, "B U"],
    logit_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"],
    *,
    num_frames: Size,
    num_classes: int,
    blank_id: int,
) -> Int[Array, " B"]:
    """Return the bits that can be told without looking at the scores."""
    is_label = is_inside(label_lengths, labels.shape[1])
    is_outside = is_label & ((labels < 0) | (labels >= num_classes))
    repeats, of_labels = _sum_up(
        is_label & _is_repeat(labels),
        bit(Status.LABEL_OUT_OF_RANGE, is_outside)
        | bit(Status.BLANK_IN_LABELS, is_label & (labels == blank_id)),
    )
    bad_length = ~(
        is_within(logit_lengths, num_frames)
        & is_within(label_lengths, labels.shape[-1])
    )
    too_short = logit_lengths < label_lengths + repeats
    return (
        bit(Status.BAD_LENGTH, bad_length)
        | bit(Status.INFEASIBLE, too_short & ~bad_length)
        | of_labels
    )


def _sum_up(
    is_counted: Bool[Array, "B U"], bits: Int[Array, "B U"]
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """Count the places, and join the bits of all.

    One reduction of two arrays: XLA on CPU makes one loop of it, where a sum and two
    `any` were six, and the loss takes longer to compile.
    """
    zero = np.int32(0)
    places = is_counted.astype(jnp.int32), bits
    return lax.reduce(places, (zero, zero), _join, dimensions=(1,))


# A function of the module: by its identity JAX knows what it has compiled.
def _join(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    return a[0] + b[0], a[1] | b[1]


def is_within(lengths: Any, full: Size) -> Any:
    """Tell which lengths lie in 0..full."""
    return (lengths >= 0) & (lengths <= full)


def bit(flag: Status, where: Bool[Array, "..."]) -> Int[Array, "..."]:
    """Return the flag where the condition holds, else 0."""
    return jnp.where(where, jnp.int32(flag), jnp.int32(0))
