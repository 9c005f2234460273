"""What every implementation must pass, whatever the platform.

`run` compiles one function per implementation and array shape; the checks feed it
different values. The oracle's answer for a case is computed once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jax_ctc
from jax_ctc import _recursion
from jax_ctc._checks.arrays import Batch
from jax_ctc._lattice.pose import Spec, pose
from tests.cases import named, untrained
from tests.oracle import batch_loss_and_gradient, log_softmax
from tests.oracle_paths import Trellis

# Largest error of a gradient entry per unit of cotangent. An entry is at most 1.
# `blocked` holds its promise at any length. `scan` in float32 is log space, normalised
# per frame: about 2e-7 times the nats of a path within a block, 1e-3 at T = 4000.
GRADIENT_ATOL = {
    ("cpu", "float32"): 5e-6,
    ("cuda", "float32"): 2e-6,
    ("blocked", "float32"): 1e-5,
    ("both_ends", "float32"): 1e-5,
    ("scan", "float32"): 2e-4,
    ("blocked", "float64"): 1e-9,
    ("both_ends", "float64"): 1e-9,
    ("scan", "float64"): 1e-9,
}


def loss_atol(loss, frames, dtype):
    """Eight ulp, 1e-6 nats and 2e-9 nats per frame; 1e-9 relative in float64."""
    if dtype == "float64":
        return 1e-9 * np.maximum(np.abs(loss), 1)
    return 8 * np.spacing(np.abs(loss).astype(np.float32)) + 1e-6 + frames * 2e-9


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


# What is read from the lattice besides the loss.


@functools.partial(jax.jit, static_argnames=("method", "implementation", "blank_id"))
def _read(method, implementation, blank_id, arrays, *more):
    problem = pose(Spec(blank_id), arrays).problem
    return _recursion.read(implementation, method, problem, *more, normalise=True)


def read(method, implementation, batch, dtype="float32", *more):
    """Return what a method of an implementation reads, in NumPy, batch first."""
    *arrays, blank_id = batch
    arrays[0] = arrays[0].astype(dtype)
    log_z, *rest = _read(method, implementation, blank_id, Batch(*arrays), *more)
    return np.asarray(log_z), *(
        np.moveaxis(np.asarray(x), 1, 0) if x.ndim > 1 else np.asarray(x) for x in rest
    )


@functools.cache
def trellises(name):
    """Return the oracle's trellis of each utterance of a named case."""
    batch = named(name).make()
    return [
        Trellis(
            log_softmax(logits[:frames]),
            [int(x) for x in labels[:count]],
            batch.blank_id,
        )
        for logits, labels, frames, count in zip(*batch[:4], strict=True)
    ]


def check_posteriors(implementation, name, dtype):
    """Every state's posterior is the oracle's; padded labels have none."""
    batch = named(name).make()
    log_z, label, blank = read("posteriors", implementation, batch, dtype)
    loss = exact(name)[0]
    assert (np.abs(log_z + loss) <= loss_atol(loss, batch.logits.shape[1], dtype)).all()
    atol = GRADIENT_ATOL[implementation, dtype]
    for b, trellis in enumerate(trellises(name)):
        frames, states = trellis.emissions.shape
        count = states // 2
        if frames == 0:
            continue
        expected = trellis.posteriors()
        np.testing.assert_allclose(
            label[b, :frames, :count], expected[:, 1::2], rtol=0, atol=atol
        )
        np.testing.assert_allclose(
            blank[b, :frames, : count + 1], expected[:, ::2], rtol=0, atol=atol
        )
        assert not label[b, :, count:].any()
        assert not blank[b, :, count + 1 :].any()
        sums = label[b, :frames].sum(-1) + blank[b, :frames].sum(-1)
        np.testing.assert_allclose(sums, 1, rtol=0, atol=max(atol, 1e-5))


def check_best_path(implementation, name, dtype):
    """The path is as probable as the oracle's best, and known to be."""
    batch = named(name).make()
    log_value, states = read("best_path", implementation, batch, dtype)
    eps = 1e-12 if dtype == "float64" else 2e-6
    for b, trellis in enumerate(trellises(name)):
        frames = len(trellis.emissions)
        expected, score = trellis.best()
        path = states[b, :frames]
        steps = np.diff(path, prepend=0)
        assert (steps >= 0).all()
        assert (steps <= 2).all()
        total = trellis.emissions[np.arange(frames), path].sum()
        assert abs(total - score) <= eps * max(abs(score), 1)
        assert abs(log_value[b] - score) <= eps * max(abs(score), 1)
        if named(name).change is not untrained and dtype == "float64":
            np.testing.assert_array_equal(path, expected)


def check_entropy(implementation, name, dtype):
    """The entropy is the oracle's to 1e-4 relative (1e-9 in float64)."""
    batch = named(name).make()
    _, entropy = read("entropy", implementation, batch, dtype)
    rtol, atol = (1e-9, 1e-9) if dtype == "float64" else (1e-4, 1e-5)
    if implementation == "scan" and dtype == "float32":
        rtol = 1e-3  # log space, as its gradient
    for value, trellis in zip(entropy, trellises(name), strict=True):
        expected = trellis.entropy() if len(trellis.emissions) else 0.0
        np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol)


def check_samples(implementation, name):
    """With the same random numbers every implementation draws the same paths."""
    batch = named(name).make()
    frames = max(batch.logits.shape[1], 1)
    shape = (frames, len(batch.logits), 50)
    uniforms = np.random.default_rng(8).random(shape, np.float32)
    _, states = read("sample_paths", implementation, batch, "float32", uniforms)
    if implementation != "scan":
        _, expected = read("sample_paths", "scan", batch, "float32", uniforms)
        same = (states == expected).all(axis=1)
        assert same.mean() > 0.99  # a number may fall between two roundings
    for b, trellis in enumerate(trellises(name)):
        length = len(trellis.emissions)
        paths = states[b, :length]  # [T, N]
        steps = np.diff(paths, axis=0, prepend=0)
        assert (steps >= 0).all()
        assert (steps <= np.where(trellis.can_skip[paths], 2, 1)).all()
        last = len(trellis.states) - 1
        assert length == 0 or (last - paths[-1] <= 1).all()


def check_entropy_gradient(implementation, name, dtype):
    """Slopes of the oracle's entropy; every entry against autodiff of `scan`."""
    batch = named(name).make()
    _, value, gradient = read("entropy_backward", implementation, batch, dtype)
    _, alone = read("entropy", implementation, batch, dtype)
    np.testing.assert_allclose(value, alone, rtol=1e-5, atol=1e-6)
    # Batch first: `read` has moved the frames of [B, T, V] to the front.
    gradient = np.moveaxis(gradient, 1, 0)
    scale = np.maximum(value, 1).max()
    atol = 1e-9 if dtype == "float64" else 3e-6 * scale
    if implementation != "scan":
        _, _, expected = read("entropy_backward", "scan", batch, dtype)
        np.testing.assert_allclose(
            gradient, np.moveaxis(expected, 1, 0), rtol=0, atol=atol
        )
    np.testing.assert_array_equal(gradient[~is_live(batch)], 0)
    if batch.logits.shape[1] > 20 or name == "huge_logits":
        return  # the oracle's difference needs digits that T = 601 or 1e4 do not leave
    tangent = np.random.default_rng(7).normal(size=batch.logits.shape)
    for b, (frames, count) in enumerate(zip(*batch[2:4], strict=True)):
        if frames == 0:
            continue

        def entropy(step, b=b, frames=frames, count=count):
            logits = batch.logits[b, :frames] + step * tangent[b, :frames]
            labels = [int(x) for x in batch.labels[b, :count]]
            return Trellis(log_softmax(logits), labels, batch.blank_id).entropy()

        slope = (entropy(1e-5) - entropy(-1e-5)) / 2e-5
        ours = np.vdot(gradient[b], tangent[b])
        np.testing.assert_allclose(ours, slope, rtol=1e-5, atol=max(1e-6, 20 * atol))


# What must not matter, whatever the implementation.
INVARIANCES = (check_padding, check_shift, check_determinism, check_permutation)
