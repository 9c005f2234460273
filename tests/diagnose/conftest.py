"""A batch with mistakes in it, and the doctor's report, which several files look at."""

import jax
import numpy as np
import pytest

import jax_ctc

NAMES = ["_", "a", "b", "<i>&$"]
# Names that are out to do something: clear a screen, write a clipboard, turn a line.
CRAFTED = ["-", "\x1b[2J", "\x1b]52;c;ZWNobw==\x07", "\x9b\x00\u202e\udc80"]


@pytest.fixture(scope="package")
def batch():
    """Three utterances: fine, too short, and with an id that no class has."""
    rng = np.random.default_rng(5)
    return {
        "logits": 2 * rng.normal(size=(3, 6, 4)).astype(np.float32),
        "labels": np.array([[1, 3, 1], [2, 2, 1], [1, 7, 3]], np.int32),
        "logit_lengths": np.array([5, 3, 6], np.int32),
        "label_lengths": np.array([2, 3, 3], np.int32),
    }


@pytest.fixture(scope="package")
def report(batch):
    """Diagnose it, its classes named."""
    # As strict as the tests, which are set up later, or all would compile twice.
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        return jax_ctc.diagnose(**batch, vocabulary=NAMES)


@pytest.fixture
def file(batch, tmp_path):
    """Save the batch, as the command reads it."""
    path = tmp_path / "batch.npz"
    np.savez(path, **batch, vocabulary=np.array(NAMES))
    return path
