"""Lengths: how many frames a label needs, and what paddings say in lengths.

Lengths, not paddings, are the truth in this library. Padding is on the right.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ctc._checks.arrays import check_labels, check_lengths
from jax_ctc._checks.given import ArrayLike, Index
from jax_ctc._checks.labels import (
    is_wildcard,
    is_within,
    narrow,
    needed_frames,
    to_the_left,
)
from jax_ctc._checks.options import check_wildcard_id

_NEVER = np.iinfo(np.int32).max


def minimum_frames(
    labels: ArrayLike,
    label_lengths: ArrayLike | None = None,
    *,
    wildcard_id: Index | None = None,
) -> Any:
    """Count the frames of the shortest path: labels plus adjacent repeats.

    U labels. A label equal to the one before it needs a blank in between, and so one
    frame more. An utterance is feasible exactly when it has this many frames.

    Args:
        labels: [..., U] integer class ids. NumPy stays on the host, for filters in a
            data pipeline; JAX arrays may be traced.
        label_lengths: [...] integer, valid labels per utterance. Default: all.
        wildcard_id: the label that stands for anything, as in `ctc_loss`: it takes no
            frame, but equal labels on its two sides need one between them. Static.

    Returns:
        [...] int32 frames, NumPy for NumPy (or list) and JAX for JAX; 2**31 - 1, more
        than any utterance has, where label_lengths is negative or beyond U.

    Raises:
        TypeError: labels, lengths or `wildcard_id` are not integers.
        ValueError: ranks or shapes disagree.

    Example:
        >>> import jax_ctc
        >>> jax_ctc.minimum_frames([[1, 2, 3], [1, 1, 1]])
        array([3, 5], dtype=int32)
        >>> jax_ctc.minimum_frames([[1, 2, 3], [1, 1, 1]], [0, 2])
        array([0, 3], dtype=int32)
        >>> jax_ctc.minimum_frames([[1, 9, 2], [1, 9, 1]], wildcard_id=9)
        array([2, 3], dtype=int32)
    """
    is_jax = _is_jax(labels) or _is_jax(label_lengths)
    ids = check_labels(labels)
    lengths = check_lengths(
        label_lengths, ids.shape[:-1], name="label_lengths", of="labels"
    )
    wildcard = check_wildcard_id(wildcard_id)
    if is_jax:
        return _minimum_frames_on_device(wildcard, ids, lengths)
    return _minimum_frames(np, wildcard, ids, lengths)


def _minimum_frames(xp: Any, wildcard_id: int | None, ids: Any, lengths: Any) -> Any:
    if lengths is None:
        lengths = xp.full(ids.shape[:-1], ids.shape[-1], np.int32)
    # Of one or two bytes they would overflow when they are counted, and wrap round.
    lengths = lengths.astype(np.int64) if xp is np else narrow(lengths)
    is_good = is_within(lengths, ids.shape[-1])
    if wildcard_id is not None:
        ids = ids.astype(np.int64) if xp is np else narrow(ids)
        is_out = is_wildcard(ids, lengths, wildcard_id)
        ids = to_the_left(xp, ids, is_out)
        lengths = lengths - is_out.sum(-1, dtype=lengths.dtype)
    frames = needed_frames(ids, xp.where(is_good, lengths, 0))
    return xp.where(is_good, frames, np.int32(_NEVER)).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def _minimum_frames_on_device(
    wildcard_id: int | None, ids: jax.Array, lengths: jax.Array | None
) -> jax.Array:
    return _minimum_frames(jnp, wildcard_id, ids, lengths)


def lengths_from_paddings(paddings: ArrayLike) -> Any:
    """Turn paddings, as Optax has them, into lengths.

    T frames (or U labels, it is the same for both).

    Args:
        paddings: [..., T], 1 (or True) where padded, 0 (or False) where valid, padded
            on the right only. NumPy stays on the host; JAX arrays may be traced.

    Returns:
        [...] int32, NumPy for NumPy (or list) and JAX for JAX; -1 where a row cannot
        be said as a length: padding that is not at the right end, or a value other
        than 0 and 1. The loss reports such an utterance as BAD_LENGTH.

    Raises:
        ValueError: `paddings` has no axis.

    Example:
        >>> import jax_ctc
        >>> jax_ctc.lengths_from_paddings([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
        array([ 2, -1], dtype=int32)
    """
    is_jax = _is_jax(paddings)
    rows: Any = paddings if is_jax else np.asarray(paddings)
    if rows.ndim < 1:
        raise ValueError(
            "`paddings` must be [..., T], 1 where padded and 0 where valid; got a"
            " single number"
        )
    return _lengths_on_device(rows) if is_jax else _lengths(np, rows)


def _lengths(xp: Any, rows: Any) -> Any:
    if rows.dtype != bool:
        is_padded, is_known = rows == 1, (rows == 0) | (rows == 1)
    else:
        is_padded, is_known = rows, xp.ones_like(rows)
    returns = is_padded[..., :-1] & ~is_padded[..., 1:]  # valid again after padding
    is_clean = is_known.all(-1) & ~returns.any(-1)
    lengths = (~is_padded).sum(-1, dtype=np.int32)
    return xp.where(is_clean, lengths, np.int32(-1))


@jax.jit
def _lengths_on_device(rows: jax.Array) -> jax.Array:
    return _lengths(jnp, rows)


def _is_jax(value: Any) -> bool:
    return value is not None and hasattr(value, "aval")
