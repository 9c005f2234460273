"""The oracle's two methods, and finite differences, check one another."""

import numpy as np
import pytest

from tests.oracle import (
    batch_loss_and_gradient,
    collapse,
    log_softmax,
    loss_and_gradient,
    loss_by_enumeration,
    paths_of,
    posterior_by_enumeration,
)

pytestmark = pytest.mark.fast


def test_collapse():
    """Repeats merge first, then blanks go."""
    assert collapse([0, 1, 1, 0, 1, 2, 2, 0]) == (1, 1, 2)
    assert collapse([2, 2, 0, 2], blank_id=2) == (0,)
    assert collapse([]) == ()


def test_paths_by_hand():
    """Five paths of three frames spell 1 2; one of three spells 1 1."""
    assert sorted(paths_of([1, 2], 3, 3)) == [
        *[(0, 1, 2), (1, 0, 2), (1, 1, 2), (1, 2, 0), (1, 2, 2)]
    ]
    assert paths_of([1, 1], 3, 3) == [(1, 0, 1)]
    assert paths_of([1, 1], 2, 3) == []


@pytest.mark.parametrize(
    ("frames", "labels", "blank_id"),
    [
        (4, [1, 2], 0),
        (5, [1, 1], 0),
        (5, [2, 0, 2], 1),
        (4, [], 0),
        (5, [1, 1, 1], 2),
        (2, [1, 1], 0),
        (1, [1], 0),
    ],
)
def test_recursion_against_enumeration(frames, labels, blank_id):
    """Value and gradient, for logits and for log-probabilities."""
    logits = np.random.default_rng(frames).normal(size=(frames, 3))
    log_probs = log_softmax(logits)
    expected = loss_by_enumeration(log_probs, labels, blank_id)
    posterior = posterior_by_enumeration(log_probs, labels, blank_id)
    loss, gradient = loss_and_gradient(logits, labels, blank_id)
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    if np.isinf(expected):
        np.testing.assert_array_equal(gradient, 0)
        return
    np.testing.assert_allclose(gradient, np.exp(log_probs) - posterior, atol=1e-13)
    unnormalised = log_probs + 0.7
    loss, gradient = loss_and_gradient(unnormalised, labels, blank_id, normalise=False)
    np.testing.assert_allclose(loss, expected - 0.7 * frames, rtol=1e-12)
    np.testing.assert_allclose(gradient, -posterior, atol=1e-13)


def test_gradient_against_finite_differences():
    """On a case far too large to enumerate."""
    rng = np.random.default_rng(0)
    logits, tangent = rng.normal(size=(2, 40, 7))
    labels = rng.integers(1, 7, 15)
    _, gradient = loss_and_gradient(logits, labels)
    step = 1e-6
    ahead, behind = (
        loss_and_gradient(logits + s * tangent, labels)[0] for s in (step, -step)
    )
    np.testing.assert_allclose(
        np.vdot(gradient, tangent), (ahead - behind) / (2 * step), rtol=1e-7
    )


def test_masked_classes():
    """-inf on an unneeded class is exact; on a needed one there is no path."""
    logits = np.random.default_rng(1).normal(size=(4, 4))
    logits[:, 3] = -np.inf
    loss, gradient = loss_and_gradient(logits, [1, 2])
    reduced = loss_and_gradient(logits[:, :3], [1, 2])
    np.testing.assert_allclose(loss, reduced[0])
    np.testing.assert_allclose(gradient[:, :3], reduced[1], atol=1e-15)
    loss, gradient = loss_and_gradient(logits, [1, 3])
    assert loss == np.inf
    assert not gradient.any()


def test_batch_has_zero_gradient_on_padding():
    """Padded frames are cut off before anything is computed."""
    logits = np.full((2, 5, 3), np.nan)
    logits[:, :3] = np.random.default_rng(2).normal(size=(2, 3, 3))
    labels = np.array([[1, 2], [1, -1]])
    loss, gradient = batch_loss_and_gradient(logits, labels, [3, 2], [2, 1])
    assert np.isfinite(loss).all()
    assert not gradient[0, 3:].any()
    assert not gradient[1, 2:].any()
    assert gradient[:, :2].any()
