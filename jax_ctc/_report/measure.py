"""The numbers of a batch, computed in few shapes: each size goes up to a power of two.

Every utterance is computed by itself, so frames, labels and utterances that are added
change nothing but what it costs.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_ctc._alignment.viterbi import ctc_align
from jax_ctc._checks.labels import is_wildcard, is_within
from jax_ctc._decoding.greedy import greedy_decode
from jax_ctc._diagnose.batch import Given
from jax_ctc._loss.losses import ctc_loss_from_log_probs, ctc_loss_with_status
from jax_ctc._numbers.masks import is_inside

_LEAST = 8


class Numbers(NamedTuple):
    """Of every utterance; on the host once they are through."""

    loss: Any  # [B] nats
    status: Any  # [B] int32
    score: Any  # [B] mean probability of a label in its frames; 0 of no labels
    heard: Any  # [B, T] int32
    num_heard: Any  # [B] int32


def measure(given: Given) -> Numbers:
    """Return the numbers of a batch, on the host."""
    count, frames, classes = given.scores.shape
    told, holes = given.holes or given, given.holes
    width = told.labels.shape[1]
    sizes = tuple(map(_rounded, (count, frames, width)))
    scores = filled(given.scores, (sizes[0], sizes[1], classes), 0)
    numbers = _numbers(
        given.blank_id,
        given.inputs,
        None if holes is None else holes.wildcard_id,
        0.0 if holes is None else holes.log_prob,
        scores,
        filled(told.labels, (sizes[0], sizes[2]), -1),
        filled(kept_bad(given.logit_lengths, frames), sizes[:1], 0),
        filled(kept_bad(told.label_lengths, width), sizes[:1], 0),
    )
    return Numbers(*(np.asarray(column)[:count] for column in numbers))


def filled(array: np.ndarray, shape: tuple[int, ...], value: int) -> np.ndarray:
    """Return the array in a larger one, at its start; the rest is `value`."""
    if array.shape == shape:
        return array
    larger = np.full(shape, value, array.dtype)
    larger[tuple(map(slice, array.shape))] = array
    return larger


def _rounded(size: int) -> int:
    return max(_LEAST, 1 << (size - 1).bit_length())


def kept_bad(lengths: np.ndarray, full: int) -> np.ndarray:
    """Return the lengths; what is too long stays so where there is more room."""
    return np.where(is_within(lengths, full), lengths, -1).astype(np.int32)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _numbers(
    blank_id: int,
    inputs: str,
    wildcard_id: int | None,
    wildcard_log_prob: Any,
    scores: Float[Array, "B T V"],
    labels: Int[Array, "B U"],
    logit_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"],
) -> Numbers:
    batch = scores, labels, logit_lengths, label_lengths
    options: dict[str, Any] = {
        "blank_id": blank_id,
        "wildcard_id": wildcard_id,
        "wildcard_log_prob": wildcard_log_prob,
    }
    loss, status = ctc_loss_with_status(*batch, **options)
    if inputs == "log_probs":
        loss = ctc_loss_from_log_probs(*batch, **options)
    of_label = ctc_align(*batch, inputs=inputs, **options).score  # [B, U]
    is_label = is_inside(label_lengths, labels.shape[1])
    if wildcard_id is not None:
        is_label = is_label & ~is_wildcard(labels, label_lengths, wildcard_id)
    total = jnp.sum(jnp.where(is_label, of_label, 0), axis=1)
    num_labels = jnp.maximum(1, jnp.sum(is_label, axis=1, dtype=jnp.int32))
    heard = greedy_decode(scores, logit_lengths, blank_id=blank_id)
    return Numbers(
        loss=loss,
        status=status,
        score=total / num_labels.astype(total.dtype),
        heard=heard.labels,
        num_heard=heard.lengths,
    )
