"""What every implementation must pass, whatever the platform.

`run` compiles one function per implementation and array shape; the checks feed it
different values. The oracle's answer for a case is computed once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jax_ctc
from tests.cases import named
from tests.oracle import batch_loss_and_gradient

# Largest error of a gradient entry per unit of cotangent. An entry is at most 1.
# `blocked` holds its promise at any length. `scan` in float32 is log space, normalised
# per frame: about 2e-7 times the nats of a path within a block, 1e-3 at T = 4000.
GRADIENT_ATOL = {
    ("blocked", "float32"): 1e-5,
    ("scan", "float32"): 2e-4,
    ("blocked", "float64"): 1e-9,
    ("scan", "float64"): 1e-9,
}


def loss_atol(loss, frames, dtype):
    """Four ulp of the loss, plus 1e-7 nats per frame; 1e-9 relative in float64."""
    if dtype == "float64":
        return 1e-9 * np.maximum(np.abs(loss), 1)
    return 4 * np.spacing(np.abs(loss).astype(np.float32)) + frames * 1e-7


@functools.partial(jax.jit, static_argnames=("implementation", "blank_id"))
def _run(implementation, blank_id, cotangent, logits, *rest):
    def weighted(logits):
        loss = jax_ctc.ctc_loss(
            logits, *rest, blank_id=blank_id, implementation=implementation
        )
        return jnp.sum(loss * cotangent), loss

    gradient, loss = jax.grad(weighted, has_aux=True)(logits)
    return loss, gradient


def run(implementation, batch, dtype="float32", cotangent=None):
    """Return loss and cotangent-weighted gradient, in NumPy."""
    *arrays, blank_id = batch
    cotangent = random_cotangent(batch) if cotangent is None else cotangent
    arrays[0] = arrays[0].astype(dtype)
    loss, gradient = _run(
        implementation, blank_id, cotangent.astype(dtype), *map(jnp.asarray, arrays)
    )
    return np.asarray(loss), np.asarray(gradient)


def random_cotangent(batch):
    """Any sign, any size near 1."""
    return np.random.default_rng(9).normal(size=len(batch.logits))


@functools.cache
def exact(name):
    """Return the oracle's loss and unweighted gradient of a named case."""
    *arrays, blank_id = named(name).make()
    return batch_loss_and_gradient(*arrays, blank_id=blank_id)


def is_live(batch):
    """Mark the frames inside the lengths: [B, T]."""
    return np.arange(batch.logits.shape[1]) < batch.logit_lengths[:, None]


def check_value(implementation, name, dtype):
    """The loss is the oracle's, never negative and never -0."""
    batch, loss = named(name).make(), exact(name)[0]
    value = run(implementation, batch, dtype)[0]
    assert value.dtype == dtype
    atol = loss_atol(loss, batch.logits.shape[1], dtype)
    assert (np.abs(value - loss) <= atol).all(), np.abs(value - loss).max()
    assert not np.signbit(value).any()


def check_gradient(implementation, name, dtype):
    """With random cotangents the gradient is the oracle's, and has its ranges."""
    batch, cotangent = named(name).make(), random_cotangent(named(name).make())
    gradient = run(implementation, batch, dtype)[1]
    atol = GRADIENT_ATOL[implementation, dtype]
    scale = np.abs(cotangent)[:, None, None]
    error = np.abs(gradient - exact(name)[1] * cotangent[:, None, None])
    assert (error <= atol * np.maximum(scale, 1e-3)).all(), error.max()
    # Each entry is softmax - posterior: a difference of two probabilities.
    assert (np.abs(gradient) <= scale * (1 + 1e-5)).all()
    sums = np.abs(gradient.sum(-1, dtype=np.float64))
    assert (sums <= 1e-5 * scale[:, :, 0]).all(), sums.max()
    np.testing.assert_array_equal(gradient[~is_live(batch)], 0)


def check_padding(implementation, name):
    """Whatever stands in padded frames and labels changes not one bit."""
    batch = named(name).make()
    loss, gradient = run(implementation, batch)
    for garbage, label in ((np.nan, -1), (np.inf, 2**31 - 1), (1e30, batch.blank_id)):
        logits, labels = batch.logits.copy(), batch.labels.copy()
        logits[~is_live(batch)] = garbage
        labels[np.arange(labels.shape[1]) >= batch.label_lengths[:, None]] = label
        changed = run(implementation, batch._replace(logits=logits, labels=labels))
        np.testing.assert_array_equal(changed[0], loss)
        np.testing.assert_array_equal(changed[1], gradient)


def check_more_padding(implementation, name):
    """A longer array with the same lengths holds the same utterances."""
    batch = named(name).make()
    loss, gradient = run(implementation, batch)
    wide = batch._replace(
        logits=np.pad(batch.logits, ((0, 0), (0, 9), (0, 0)), constant_values=np.nan),
        labels=np.pad(batch.labels, ((0, 0), (0, 3)), constant_values=-5),
    )
    padded_loss, padded_gradient = run(implementation, wide)
    frames = batch.logits.shape[1]
    np.testing.assert_allclose(padded_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(padded_gradient[:, :frames], gradient, atol=1e-6)
    np.testing.assert_array_equal(padded_gradient[:, frames:], 0)


def check_shift(implementation, name):
    """Raising all logits of a frame changes nothing (powers of two add exactly)."""
    batch = named(name).make()
    rng = np.random.default_rng(5)
    # On a grid of 2**-10, and shifted by at most 2**12, float32 adds without rounding.
    logits = np.round(batch.logits * 1024) / 1024
    shift = 2.0 ** rng.integers(-3, 13, (*logits.shape[:2], 1)) * rng.choice([-1, 1])
    plain = run(implementation, batch._replace(logits=logits.astype(np.float32)))
    moved = run(
        implementation, batch._replace(logits=(logits + shift).astype(np.float32))
    )
    np.testing.assert_allclose(moved[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(moved[1], plain[1], atol=1e-6)


def check_determinism(implementation, name):
    """The same call, the same bits."""
    batch = named(name).make()
    first, second = run(implementation, batch), run(implementation, batch)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def check_permutation(implementation, name):
    """An utterance's bits do not depend on its place or its neighbours."""
    batch, cotangent = named(name).make(), random_cotangent(named(name).make())
    order = np.random.default_rng(6).permutation(len(batch.logits))
    loss, gradient = run(implementation, batch)
    *arrays, blank_id = batch
    permuted = type(batch)(*(array[order] for array in arrays), blank_id)
    moved = run(implementation, permuted, cotangent=cotangent[order])
    np.testing.assert_array_equal(moved[0], loss[order])
    np.testing.assert_array_equal(moved[1], gradient[order])
