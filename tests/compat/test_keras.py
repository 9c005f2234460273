"""`compat.keras`: the function beside Optax, the class beside Keras."""

import importlib.util

import jax
import numpy as np
import optax
import pytest

import jax_ctc
from jax_ctc.compat import keras as ours

pytestmark = pytest.mark.relaxed  # Optax and Keras promote


def test_function(batch):
    """Keras's order of arguments; its JAX backend computes what Optax does."""
    arguments = batch.labels, batch.logits, batch.label_lengths, batch.logit_lengths
    frames, labels = batch.paddings()
    expected = optax.ctc_loss(batch.logits, frames, batch.labels, labels)
    np.testing.assert_allclose(ours.ctc_loss(*arguments), expected, atol=2e-5)


def test_function_options(infeasible):
    """The blank elsewhere, and what stands for no loss."""
    labels = np.where(infeasible.labels == 4, 0, infeasible.labels)
    lengths = infeasible.label_lengths, infeasible.logit_lengths
    loss = ours.ctc_loss(labels, infeasible.logits, *lengths, 4, infeasible="zero")
    expected = jax_ctc.ctc_loss(
        infeasible.logits, labels, *lengths[::-1], blank_id=4, infeasible="zero"
    )
    np.testing.assert_array_equal(loss, expected)
    assert loss[1] == 0


@pytest.mark.skipif(importlib.util.find_spec("keras") is not None, reason="Keras is")
def test_without_keras():
    """The class says what is missing; what is not there is not there."""
    with pytest.raises(ModuleNotFoundError, match="keras"):
        _ = ours.CTCLoss
    assert "CTCLoss" in dir(ours)


def test_unknown_names():
    """As of any module."""
    with pytest.raises(AttributeError, match="'CTC'"):
        _ = ours.CTC


@pytest.fixture
def keras():
    """Keras on JAX, where it is installed."""
    module = pytest.importorskip("keras")
    assert module.backend.backend() == "jax"
    return module


def both(loss, batch):
    """Value and gradient of one number."""
    return jax.value_and_grad(lambda logits: loss(batch.labels, logits))(batch.logits)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_class_beside_keras(keras, batch, reduction):
    """Value and gradient are those of `keras.losses.CTC`."""
    found = both(ours.CTCLoss(reduction=reduction), batch)
    expected = both(keras.losses.CTC(reduction=reduction), batch)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], atol=2e-5)


def test_function_beside_keras(keras, batch):
    """Per utterance, with lengths."""
    arguments = batch.labels, batch.logits, batch.label_lengths, batch.logit_lengths
    expected = keras.ops.ctc_loss(*arguments)
    np.testing.assert_allclose(ours.ctc_loss(*arguments), expected, atol=2e-5)


def test_class_where_keras_differs(keras, batch):
    """A blank between labels flags; Keras shortens the row by it."""
    batch.labels[0] = [1, 0, 3]
    per_utterance = ours.CTCLoss(reduction=None)
    assert per_utterance(batch.labels, batch.logits)[0] == np.inf
    assert np.isfinite(
        keras.losses.CTC(reduction=None)(batch.labels, batch.logits)
    ).all()
    zero = ours.CTCLoss(reduction=None, infeasible="zero")
    assert zero(batch.labels, batch.logits)[0] == 0


def test_large_ids_survive_half_precision(keras):
    """Keras hands the labels over in its dtype, and bfloat16 has no 257."""
    keras.config.set_floatx("bfloat16")
    try:
        loss = ours.CTCLoss()(np.array([[257]]), 9 * np.eye(300)[None, 257:258])
    finally:
        keras.config.set_floatx("float32")
    assert loss < 0.1


@pytest.mark.filterwarnings("default")  # Keras warns of itself
def test_fit_and_load(keras, tmp_path):
    """Under `fit` it learns, and a saved model comes back with it."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(8, 12, 6)).astype(np.float32)
    labels = rng.integers(1, 4, (8, 2))
    model = keras.Sequential([keras.layers.Input((12, 6)), keras.layers.Dense(4)])
    model.compile("adam", loss=ours.CTCLoss())
    model.optimizer.learning_rate = 0.05
    history = model.fit(inputs, labels, batch_size=8, epochs=30, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < losses[0] / 2
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.evaluate(inputs, labels, verbose=0),
        model.evaluate(inputs, labels, verbose=0),
        rtol=1e-6,
    )
