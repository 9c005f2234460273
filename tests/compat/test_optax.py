"""`compat.optax` beside Optax: the same on ordinary input, and where it is not."""

import jax
import numpy as np
import optax
import pytest

import jax_ctc
from jax_ctc.compat.optax import ctc_loss

pytestmark = pytest.mark.relaxed  # Optax promotes


@jax.jit
def ours(logits, logit_paddings, labels, label_paddings):
    """Return losses, and the gradient of their sum."""
    return _both(ctc_loss, logits, logit_paddings, labels, label_paddings)


@jax.jit
def theirs(logits, logit_paddings, labels, label_paddings):
    """Likewise."""
    return _both(optax.ctc_loss, logits, logit_paddings, labels, label_paddings)


def _both(function, logits, *more):
    def total(logits):
        loss = function(logits, *more)
        return loss.sum(), loss

    gradient, loss = jax.grad(total, has_aux=True)(logits)
    return loss, gradient


def arguments(batch):
    """The batch in Optax's order."""
    frames, labels = batch.paddings()
    return batch.logits, frames, batch.labels, labels


def test_ordinary_input(batch):
    """Value and gradient are Optax's."""
    for found, expected in zip(
        ours(*arguments(batch)), theirs(*arguments(batch)), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_options(batch):
    """The blank elsewhere, Optax's log 0, paddings that are bool, no batch axis."""
    logits, frames, labels, padded = arguments(batch)
    labels = np.where(labels == 4, 0, labels)  # 4 is the blank now
    found = ctc_loss(
        logits, frames != 0, labels, padded != 0, blank_id=4, log_epsilon=-1e9
    )
    expected = optax.ctc_loss(logits, frames, labels, padded, blank_id=4)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    one = ctc_loss(logits[0], frames[0], labels[0], padded[0], blank_id=4)
    np.testing.assert_allclose(one, found[0], rtol=1e-6)


def test_infeasible(infeasible):
    """Here +inf, or 0, and no gradient; there about 1e5, and a gradient."""
    loss, gradient = ours(*arguments(infeasible))
    other_loss, other_gradient = theirs(*arguments(infeasible))
    assert loss[1] == np.inf
    assert (gradient[1] == 0).all()
    assert 9e4 < other_loss[1] < 2e5
    assert abs(other_gradient[1]).max() > 0.1
    np.testing.assert_allclose(gradient[2:], other_gradient[2:], atol=2e-5)
    assert ctc_loss(*arguments(infeasible), infeasible="zero")[1] == 0


@pytest.mark.parametrize("fault", ["id", "blank", "left"])
def test_labels_that_are_no_labels(batch, fault):
    """Flagged here: +inf and no gradient. Optax gives them a number."""
    logits, frames, labels, padded = arguments(batch)
    if fault == "id":
        labels[0, 1] = 99
    elif fault == "blank":
        labels[0, 1] = 0
    else:
        labels[1], padded[1] = [0, 4, 4], [1, 0, 0]
    row = 1 if fault == "left" else 0
    loss, gradient = ours(logits, frames, labels, padded)
    other, _ = theirs(logits, frames, labels, padded)
    assert loss[row] == np.inf
    assert (gradient[row] == 0).all()
    assert np.isfinite(other[row])


def test_what_padding_and_masked_classes_hold(batch):
    """NaN in padded frames, -inf on a class that no label needs: NaN with Optax."""
    logits, *more = arguments(batch)
    clean, clean_gradient = ours(logits, *more)
    logits[1, 5:] = np.nan
    loss, gradient = ours(logits, *more)
    np.testing.assert_array_equal(loss, clean)
    np.testing.assert_array_equal(gradient, clean_gradient)
    logits[0, :, 4] = -np.inf
    loss, gradient = ours(logits, *more)
    assert np.isfinite(loss).all()
    assert np.isfinite(gradient).all()
    assert np.isnan(theirs(logits, *more)[0][:2]).all()


def test_a_sure_alignment():
    """Never below 0, where Optax rounds below it."""
    logits = np.full((1, 4, 3), -20, np.float32)
    logits[0, [0, 1, 2, 3], [1, 0, 2, 0]] = 20
    paddings, labels = np.zeros((1, 4)), np.array([[1, 2]])
    loss = ctc_loss(logits, paddings, labels, paddings[:, :2])
    assert loss >= 0
    np.testing.assert_allclose(loss, jax_ctc.ctc_loss(logits, labels))


def test_lengths_in_the_place_of_paddings(batch):
    """Say so, and say what takes them."""
    frames, labels = batch.paddings()
    with pytest.raises(ValueError, match=r"logit_paddings.*lengths, call jax_ctc\.ctc"):
        ctc_loss(batch.logits, batch.logit_lengths, batch.labels, labels)
    with pytest.raises(ValueError, match="label_paddings"):
        ctc_loss(batch.logits, frames, batch.labels, labels[:, :2])
