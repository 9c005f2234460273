"""Batches for the CUDA kernels, and what must come out, wherever these run."""

import jax.numpy as jnp
import numpy as np

from jax_ctc._lattice.problem import build
from tests import contract
from tests.cases import tagged
from tests.oracle import batch_loss_and_gradient

# Those that have something to do: others never reach a kernel.
CASES = [c for c in tagged("ci") if c.batch and c.frames and c.labels]

# Labels on one warp and on several; for a lane 1, 2, 4, 8 and 16 of them; emissions
# found for each class, and for each place: utterances, frames, classes, labels.
LAYOUTS = {
    "one lane each, one warp": (3, 40, 7, 12),
    "three warps": (2, 150, 9, 70),
    "three warps, by place": (2, 150, 90, 70),
    "two a lane": (2, 320, 5, 150),
    "two a lane, by place": (1, 120, 170, 150),
    "four a lane": (1, 700, 5, 330),
    "four a lane, two to the middle": (1, 60, 310, 305),
    "eight a lane": (1, 130, 5, 640),
    "eight a lane, one step at hand": (1, 20, 1400, 1300),
    "sixteen a lane, one step at hand": (1, 20, 2200, 2150),
}


def batch_of(size, frames, classes, labels, *, scale=1.0, is_ragged=False):
    """A random batch: scores, labels, frames and labels that count.

    The first of its utterances fills it, as far as it has frames for its labels.
    """
    rng = np.random.default_rng(frames + labels)
    scores = scale * rng.normal(size=(size, frames, classes))
    names = rng.integers(1, classes, (size, labels))
    lengths, counts = np.full(size, frames), np.full(size, labels)
    if is_ragged:
        counts[1:] = rng.integers(0, labels + 1, size - 1)
        lengths[1:] = rng.integers(np.minimum(2 * counts[1:], frames), frames + 1)
    if frames < labels:
        counts = np.minimum(counts, frames // 2)
    return scores.astype(np.float32), names, lengths, counts


def problem_of(batch):
    """Pose a batch that needs no checks. Its blank is class 0; -1 labels: no path."""
    scores, *others = map(jnp.asarray, batch)
    labels, lengths, counts = (x.astype(jnp.int32) for x in others)
    num_classes = scores.shape[2]
    return build(
        *(scores, labels, lengths, counts, counts >= 0),
        blank_id=0,
        num_classes=num_classes,
    )


def check(run, batch, *, normalise=True, atol=2e-6):
    """Compare with the oracle: log p to what is promised, gradients to `atol`."""
    log_z, gradient = run(batch)
    scores, *rest = batch
    loss, expected = batch_loss_and_gradient(
        np.asarray(scores, np.float64), *rest, normalise=normalise
    )
    alive = np.isfinite(loss)
    np.testing.assert_array_equal(log_z[~alive], -np.inf)
    assert gradient.dtype == scores.dtype
    error = np.abs(log_z[alive] + loss[alive])
    assert (error <= contract.loss_atol(loss[alive], scores.shape[1], "float32")).all()
    np.testing.assert_allclose(gradient.astype(np.float64), expected, rtol=0, atol=atol)
