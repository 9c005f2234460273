"""Entropy of the alignment: enumeration, long inputs, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from benchmarks.alignment import peaky
from tests.alignments import (
    T,
    assert_flagged_rows_have_no_slope,
    flagged,
    problem,
    slope,
)
from tests.cases import named
from tests.oracle import log_softmax
from tests.oracle_paths import Trellis, entropy_by_enumeration


@pytest.mark.parametrize(
    "labels", [[1, 2], [1, 1], [2], [], [2, 2, 1]], ids=lambda x: f"labels{x}"
)
def test_against_enumeration(labels, x64):
    """-sum P ln P over every path; 0 where there is one."""
    logits = np.random.default_rng(len(labels)).normal(size=(5, 3))
    padded = np.array(labels + [0] * (3 - len(labels)), np.int32)
    entropy = jax_ctc.alignment_entropy(logits, padded, None, len(labels))
    expected = entropy_by_enumeration(log_softmax(logits), labels)
    np.testing.assert_allclose(entropy, expected, atol=1e-12)
    if not labels:
        assert entropy == 0


def test_uniform_logits_count_the_paths():
    """C(T + U, 2U) paths of distinct labels, all alike."""
    entropy = jax_ctc.alignment_entropy(jnp.zeros((10, 9)), np.arange(1, 5))
    np.testing.assert_allclose(np.exp(entropy), 3003, rtol=1e-5)  # C(14, 8)


@pytest.mark.parametrize("name", ["normal", "normal_times_5", "confident", "peaky"])
def test_long_utterances_keep_four_digits(name):
    """1e-4 relative at T = 4000 in float32, however small the entropy."""
    if name == "peaky":
        logits, labels = (x[None] for x in peaky())
    else:
        batch = named("confident_and_wrong" if name == "confident" else name).make()
        logits, labels = batch.logits[:1], batch.labels[:1]
    entropy = jax_ctc.alignment_entropy(logits, labels)
    expected = Trellis(log_softmax(logits[0]), labels[0]).entropy()
    np.testing.assert_allclose(entropy[0], expected, rtol=1e-4)


@pytest.mark.exhaustive
def test_the_gradient_of_a_long_utterance():
    """float32 within 1e-6 of the entropy, against float64 at T = 4000."""
    batch = named("normal").make()
    logits, labels = batch.logits[:1], batch.labels[:1]

    def gradient(x):
        return jax.grad(lambda x: jax_ctc.alignment_entropy(x, labels).sum())(x)

    single = np.asarray(gradient(jnp.asarray(logits)))
    entropy = float(jax_ctc.alignment_entropy(logits, labels)[0])
    with jax.enable_x64(True):
        double = np.asarray(gradient(jnp.asarray(logits, jnp.float64)))
    assert np.abs(single - double).max() < 1e-6 * entropy


def test_derivatives(x64):
    """Reverse and forward mode, first and second order."""
    logits, *rest = problem()
    tangent = np.random.default_rng(5).normal(size=logits.shape)
    weights = np.array([1.0, -2.0, 0.5, 3.0])

    def total(x):
        return jnp.vdot(jax_ctc.alignment_entropy(x, *rest), weights)

    @jax.jit
    def along(x):
        return jax.jvp(total, (x,), (tangent,))

    @jax.jit
    def gradient_along(x):
        return jax.jvp(jax.grad(total), (x,), (tangent,))

    expected = slope(lambda x: along(x)[0], logits, tangent)
    gradient, product = gradient_along(logits)
    np.testing.assert_allclose(np.vdot(gradient, tangent), expected, atol=1e-7)
    np.testing.assert_allclose(along(logits)[1], expected, atol=1e-7)
    expected = slope(lambda x: gradient_along(x)[0], logits, tangent)
    np.testing.assert_allclose(product, expected, atol=1e-6)
    is_padding = np.arange(T) >= rest[1][:, None]
    assert not np.asarray(gradient)[is_padding].any()
    # A frame's logits may be raised together, and nothing changes.
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-12)


def test_as_a_regulariser_it_spreads_the_alignment():
    """Trained with entropy to gain, every alignment is less peaky than without."""
    logits, *rest = problem(np.float32)
    rest[2] = np.array([4, 3, 2, 1], np.int32)

    def train(weight):
        def objective(x):
            loss = jax_ctc.ctc_loss(x, *rest)
            return jnp.sum(loss - weight * jax_ctc.alignment_entropy(x, *rest))

        def step(x, _):
            return x - 0.5 * jax.grad(objective)(x), None

        return jax.lax.scan(step, jnp.asarray(logits), length=30)[0]

    plain, spread = jax.jit(jax.vmap(train))(jnp.array([0.0, 0.2]))
    entropies = [jax_ctc.alignment_entropy(x, *rest) for x in (plain, spread)]
    assert (entropies[1] > entropies[0] + 0.1).all()
    assert (jax_ctc.ctc_loss(spread, *rest) < jax_ctc.ctc_loss(logits, *rest)).all()


def test_flagged():
    """0 where flagged, NaN where logits are, derivative 0 in both."""
    logits, *rest = flagged()
    entropy = jax_ctc.alignment_entropy(logits, *rest)
    np.testing.assert_array_equal(entropy[:6], [0, 0, 0, 0, np.nan, 0])
    assert entropy[6] > 0
    assert_flagged_rows_have_no_slope(jax_ctc.alignment_entropy)


def test_no_nan_is_made():
    """Masks and finite input, values and derivatives."""
    logits, *rest = problem(np.float32)
    logits[:, 2, 5] = -np.inf
    rest[0][1, 0] = 3
    with jax.debug_nans(True):
        gradient = jax.grad(lambda x: jax_ctc.alignment_entropy(x, *rest).sum())(
            jnp.asarray(logits)
        )
    assert np.isfinite(gradient).all()


@pytest.mark.exhaustive
@pytest.mark.as_planned
def test_memory_of_the_gradient_grows_with_the_root_of_time():
    """Four times the frames, twice the temporaries, as the loss."""

    def temporaries(frames):
        arguments = (
            jax.ShapeDtypeStruct((4, frames, 40), jnp.float32),
            jax.ShapeDtypeStruct((4, 60), jnp.int32),
        )

        def total(x, labels):
            return jax_ctc.alignment_entropy(x, labels).sum()

        compiled = jax.jit(jax.grad(total)).lower(*arguments).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(16000) <= 2.1 * temporaries(4000)
