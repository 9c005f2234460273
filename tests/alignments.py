"""One ragged batch and its flagged twin, for everything that reads an alignment."""

import jax
import jax.numpy as jnp
import numpy as np

B, T, V, U = 4, 13, 6, 4


def problem(dtype=np.float64):
    """Return one ragged batch, with an empty label, repeats and padding."""
    rng = np.random.default_rng(3)
    return (
        rng.normal(size=(B, T, V)).astype(dtype),
        np.array([[1, 1, 2, 3], [5, 4, 4, 4], [1, 2, 0, 0], [3, 2, 5, 1]], np.int32),
        np.array([13, 9, 6, 11], np.int32),
        np.array([4, 4, 2, 0], np.int32),
    )


# What is wrong with each utterance of `flagged`, and whether its floats are NaN.
FLAGS = {
    "INFEASIBLE": False,
    "LABEL_OUT_OF_RANGE": False,
    "BLANK_IN_LABELS": False,
    "BAD_LENGTH": False,
    "NONFINITE_LOGITS": True,
    "ZERO_PROBABILITY": False,
    "OK": False,
}


def flagged(dtype=np.float32):
    """Return one utterance per status bit, and a good one last."""
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(len(FLAGS), 5, 4)).astype(dtype)
    labels = np.tile(np.array([1, 2, 3], np.int32), (len(FLAGS), 1))
    frames = np.full(len(FLAGS), 5, np.int32)
    counts = np.full(len(FLAGS), 3, np.int32)
    frames[0] = 2
    labels[1, 1] = 9
    labels[2, 1] = 0
    counts[3] = 7
    logits[4, 1, 2] = np.nan
    logits[5, :, 2] = -np.inf
    return logits, labels, frames, counts


def assert_flagged_rows_have_no_slope(function):
    """Require a derivative of exactly 0 where flagged, even of a cotangent of inf."""
    logits, *rest = flagged()
    gradient = jax.grad(lambda x: jnp.sum(function(x, *rest) ** 2))(logits)
    np.testing.assert_array_equal(gradient[:6], 0)
    assert np.asarray(gradient[6]).any()


def slope(function, x, tangent, step=1e-6):
    """Return the central difference of a function along a tangent."""
    ahead = np.asarray(function(x + step * tangent))
    behind = np.asarray(function(x - step * tangent))
    return (ahead - behind) / (2 * step)
