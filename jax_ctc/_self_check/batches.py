"""The batches of the check: every kind of trouble, in two array shapes.

Shapes are what compiling costs: eight small batches share one, and the longer batch,
which is timed too, has the other.
"""

from typing import NamedTuple

import numpy as np

from jax_ctc._checks.status import Status

BLANK = 0
_FRAMES, _CLASSES, _LABELS = 60, 12, 9
_SIZE = 8


class Batch(NamedTuple):
    """The arguments of the loss, and what it must say of each utterance."""

    name: str
    logits: np.ndarray  # [B, T, V] float32
    labels: np.ndarray  # [B, U] int32
    logit_lengths: np.ndarray  # [B] int32
    label_lengths: np.ndarray  # [B] int32
    status: np.ndarray  # [B] int32, the bits that are to be set

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What the loss takes."""
        return self[1:5]


def small_batches() -> list[Batch]:
    """Return all batches of the small shape."""
    ragged = _ragged("ragged", _SIZE, _FRAMES, _CLASSES, _LABELS)
    logits = ragged.logits
    masked = logits.copy()
    masked[:, :, -1] = -np.inf
    unneeded = np.where(ragged.labels == _CLASSES - 1, 1, ragged.labels)
    sure, wrong, below = logits.copy(), 0 * logits, logits.copy()
    sure[:, :, BLANK] += 15
    wrong[:, :, -1] = 50
    below[:, :, -1] += 1000
    return [
        ragged,
        ragged._replace(name="huge logits", logits=logits * np.float32(1e4)),
        ragged._replace(name="offset by 1e4", logits=logits + np.float32(1e4)),
        ragged._replace(name="masked class", logits=masked, labels=unneeded),
        ragged._replace(name="sure of blank", logits=sure),
        ragged._replace(name="sure and wrong", logits=wrong, labels=unneeded),
        ragged._replace(name="labels far below", logits=below, labels=unneeded),
        _dead(ragged),
    ]


def long_batch() -> Batch:
    """Return the batch that is timed, of the size of sentences."""
    return _ragged("sentences", 16, 500, 64, 60)


def _ragged(name: str, size: int, frames: int, classes: int, labels: int) -> Batch:
    rng = np.random.default_rng(0)
    lengths = rng.integers(frames * 3 // 4, frames + 1, size)
    return Batch(
        name,
        rng.normal(size=(size, frames, classes)).astype(np.float32) * 2,
        rng.integers(1, classes, (size, labels)).astype(np.int32),
        lengths.astype(np.int32),
        rng.integers(labels // 2, labels + 1, size).astype(np.int32),
        np.zeros(size, np.int32),
    )


def _dead(batch: Batch) -> Batch:
    """Return the batch with a fault each in all utterances but the first and last."""
    logits, labels = batch.logits.copy(), batch.labels.copy()
    frames, counts = batch.logit_lengths.copy(), batch.label_lengths.copy()
    status = batch.status.copy()
    frames[1], status[1] = 2, Status.INFEASIBLE
    labels[2, 0], status[2] = _CLASSES, Status.LABEL_OUT_OF_RANGE
    labels[3, 1], status[3] = BLANK, Status.BLANK_IN_LABELS
    counts[4], status[4] = _LABELS + 1, Status.BAD_LENGTH
    logits[5, 3, 4], status[5] = np.nan, Status.NONFINITE_LOGITS
    logits[6, :, labels[6, 0]], status[6] = -np.inf, Status.ZERO_PROBABILITY
    logits[7, frames[7] :] = np.nan  # padding, which nobody reads
    return batch._replace(
        name="dead utterances",
        logits=logits,
        labels=labels,
        logit_lengths=frames,
        label_lengths=counts,
        status=status,
    )
