"""Posteriors of lattice states: enumeration, the loss's derivative, their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from tests.alignments import (
    B,
    T,
    U,
    assert_flagged_rows_have_no_slope,
    flagged,
    problem,
    slope,
)
from tests.oracle import log_softmax
from tests.oracle_paths import posteriors_by_enumeration


@pytest.mark.parametrize(
    "labels", [[1, 2], [1, 1], [2], [], [2, 2, 1]], ids=lambda x: f"labels{x}"
)
def test_against_enumeration(labels, x64):
    """Every path listed, each state counted."""
    logits = np.random.default_rng(len(labels)).normal(size=(5, 3))
    padded = np.array(labels + [0] * (3 - len(labels)), np.int32)
    result = jax_ctc.ctc_posteriors(logits, padded, None, len(labels))
    expected = posteriors_by_enumeration(log_softmax(logits), labels)
    np.testing.assert_allclose(
        result.label[:, : len(labels)], expected[:, 1::2], atol=1e-12
    )
    np.testing.assert_allclose(
        result.blank[:, : len(labels) + 1], expected[:, ::2], atol=1e-12
    )
    np.testing.assert_allclose(
        result.log_likelihood, -jax_ctc.ctc_loss(logits, padded, None, len(labels))
    )


def test_shapes_padding_and_sums():
    """Live frames sum to 1; what is padded is exactly 0, whatever stands there."""
    logits, labels, frames, counts = problem(np.float32)
    result = jax_ctc.ctc_posteriors(logits, labels, frames, counts)
    assert result.label.shape == (B, T, U)
    assert result.blank.shape == (B, T, U + 1)
    total = np.asarray(result.label.sum(-1) + result.blank.sum(-1))
    is_live = np.arange(T) < frames[:, None]
    np.testing.assert_allclose(total[is_live], 1, atol=1e-6)
    assert not total[~is_live].any()
    is_label = np.arange(U) < counts[:, None]
    assert not np.asarray(result.label).transpose(0, 2, 1)[~is_label].any()

    garbage = logits.copy()
    garbage[~is_live] = np.nan
    again = jax_ctc.ctc_posteriors(garbage, labels, frames, counts)
    jax.tree.map(np.testing.assert_array_equal, again, result)


def test_they_are_minus_the_slope_of_the_loss(x64):
    """Posterior = -d loss / d log-prob, by finite differences, class by class."""
    logits, labels, frames, counts = problem()
    log_probs = np.asarray(log_softmax(logits))
    result = jax_ctc.ctc_posteriors(log_probs, labels, frames, counts)
    b, t = 1, 4
    of_class = np.zeros(log_probs.shape[2])
    np.add.at(of_class, labels[b], np.asarray(result.label[b, t]))
    of_class[0] = result.blank[b, t].sum()
    for v, expected in enumerate(of_class):
        tangent = np.zeros_like(log_probs)
        tangent[b, t, v] = 1
        change = slope(
            lambda x: jax_ctc.ctc_loss_from_log_probs(x, labels, frames, counts)[b],
            log_probs,
            tangent,
        )
        np.testing.assert_allclose(change, -expected, atol=1e-8)


def test_derivatives(x64):
    """Reverse and forward mode of all three fields, against finite differences."""
    logits, *rest = problem()
    rng = np.random.default_rng(5)
    tangent = rng.normal(size=logits.shape)
    shapes = jax.eval_shape(jax_ctc.ctc_posteriors, logits, *rest)
    weights = jax.tree.map(lambda x: rng.normal(size=x.shape), shapes)

    def total(x):
        result = jax_ctc.ctc_posteriors(x, *rest)
        return sum(
            jnp.vdot(w, r)
            for w, r in zip(*map(jax.tree.leaves, (weights, result)), strict=True)
        )

    @jax.jit
    def along(x):
        return jax.jvp(total, (x,), (tangent,))

    gradient = jax.jit(jax.grad(total))(logits)
    expected = slope(lambda x: along(x)[0], logits, tangent)
    np.testing.assert_allclose(np.vdot(gradient, tangent), expected, atol=1e-7)
    np.testing.assert_allclose(along(logits)[1], expected, atol=1e-7)
    is_padding = np.arange(T) >= rest[1][:, None]
    assert not np.asarray(gradient)[is_padding].any()


def test_flagged():
    """0 and -inf where flagged, NaN where logits are; the derivative is 0."""
    logits, *rest = flagged()
    result = jax_ctc.ctc_posteriors(logits, *rest)
    good, bad, nan = [6], [0, 1, 2, 3, 5], [4]
    assert np.isfinite(result.log_likelihood[6])
    assert (np.asarray(result.log_likelihood)[bad] == -np.inf).all()
    for field in (result.label, result.blank):
        assert not np.asarray(field)[bad].any()
        assert np.isnan(np.asarray(field)[nan]).all()
        assert np.asarray(field)[good].any()

    def total(x):
        result = jax_ctc.ctc_posteriors(x, *rest)
        return jnp.sum(result.label * jnp.arange(3.0).reshape(1, 1, 3))

    gradient = np.asarray(jax.grad(total)(logits))
    assert not gradient[:6].any()
    assert gradient[6].any()


@pytest.mark.parametrize("field", ["log_likelihood", "label", "blank"])
def test_flagged_rows_have_no_slope(field):
    """The derivative is exactly 0, whatever is done with the value."""
    assert_flagged_rows_have_no_slope(
        lambda *arguments: getattr(jax_ctc.ctc_posteriors(*arguments), field)
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype):
    """Computed in float32 from the first operation."""
    logits, *rest = problem(np.float32)
    half = jnp.asarray(logits, dtype)
    result = jax_ctc.ctc_posteriors(half, *rest)
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype("float32")}
    expected = jax_ctc.ctc_posteriors(half.astype(jnp.float32), *rest)
    jax.tree.map(np.testing.assert_array_equal, result, expected)
