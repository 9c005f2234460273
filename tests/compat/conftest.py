"""A batch that every library scores alike, and one that none of them can."""

import os
from typing import NamedTuple

# Before Keras starts, where it is installed.
os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import pytest

FRAMES, CLASSES, LABELS = 7, 5, 3


class Batch(NamedTuple):
    """Logits and labels in NumPy; ragged, with a repeated label and an empty row."""

    logits: np.ndarray  # [B, T, V]
    labels: np.ndarray  # [B, U], padded with the blank, 0
    logit_lengths: np.ndarray  # [B]
    label_lengths: np.ndarray  # [B]

    def paddings(self):
        """Both as Optax has them: 1 where padded."""
        frames, labels = np.arange(FRAMES), np.arange(LABELS)
        return (
            (frames[None] >= self.logit_lengths[:, None]).astype(np.float32),
            (labels[None] >= self.label_lengths[:, None]).astype(np.float32),
        )


@pytest.fixture
def batch():
    """Four utterances, all feasible, one of them exactly."""
    return Batch(
        np.random.default_rng(3).normal(size=(4, FRAMES, CLASSES)).astype(np.float32),
        np.array([[1, 2, 3], [4, 4, 0], [0, 0, 0], [1, 1, 2]], np.int32),
        np.array([7, 5, 6, 4], np.int32),
        np.array([3, 2, 0, 3], np.int32),
    )


@pytest.fixture
def infeasible(batch):
    """The same with too few frames for the second utterance."""
    return batch._replace(logit_lengths=np.array([7, 2, 6, 4], np.int32))
