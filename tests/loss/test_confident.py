"""Models that are sure: each frame costs little, and the sum of all must keep it."""

import functools

import numpy as np
import pytest

import jax_ctc
from tests import contract
from tests.cases import Batch, more, sure
from tests.oracle import batch_loss_and_gradient

pytestmark = [pytest.mark.optimised, pytest.mark.usefixtures("both_ends")]

# What runs here where none is named, and the plain one, here and on accelerators.
DEFAULTS = {i.name for i in jax_ctc.implementations() if i.is_default}
DEFAULTS |= {"blocked", "both_ends"}

MARGINS = (5, 8, 12, 17, 30)  # of the best class over the runner-up, nats
SHAPES = {  # T, V, U
    "short": (50, 4, 8),
    "binary": (1000, 4, 200),
    "characters": (1000, 128, 25),
    "long": (4000, 4, 25),
    "one_label": (4000, 3, 1),  # what every frame rounds in the same way adds up
    "word_pieces": (1000, 1024, 25),
    "large": (100, 32768, 8),
}
EVERY_DAY = ("long", "one_label", "large")
# On the way back the CUDA kernels keep nothing of what sums lose.
LOOSE = {("cuda", "one_label"): 1e-5}


@functools.cache
def exact(shape, is_tied):
    """Return a batch with an utterance per margin, its loss and its gradient."""
    batch = sure(*SHAPES[shape], MARGINS, is_tied=is_tied)
    return batch, *batch_loss_and_gradient(batch.logits, batch.labels)


@pytest.mark.parametrize("is_tied", [False, True], ids=["random", "tied"])
@pytest.mark.parametrize("shape", [x if x in EVERY_DAY else more(x) for x in SHAPES])
@pytest.mark.parametrize("implementation", sorted(DEFAULTS))
def test_confident_models(implementation, shape, is_tied):
    """Loss within 8 ulp, 1e-6 nats and 2e-9 nats a frame; gradients within 3e-7."""
    batch, exact_loss, exact_gradient = exact(shape, is_tied)
    ones = np.ones(len(MARGINS))
    loss, gradient = contract.run(implementation, batch, cotangent=ones)
    atol = contract.loss_atol(exact_loss, batch.logits.shape[1], "float32")
    assert (np.abs(loss - exact_loss) <= atol).all()
    most = LOOSE.get((implementation, shape), 3e-7)
    assert np.abs(gradient - exact_gradient).max() <= most


@pytest.mark.parametrize("implementation", sorted(DEFAULTS))
def test_small_losses_keep_their_digits(implementation):
    """Those of a millionth of a nat as well: within 1e-5 of themselves."""
    batch, exact_loss, _ = exact("short", False)
    loss, _ = contract.run(implementation, batch, cotangent=np.ones(len(MARGINS)))
    is_counted = np.array(MARGINS) <= 17  # at 30 logits of float32 say no more
    assert 1e-6 < exact_loss[is_counted].min() < 1e-5
    np.testing.assert_allclose(loss[is_counted], exact_loss[is_counted], rtol=1e-5)


@pytest.mark.parametrize("frames", [1000, more(20_000)])
@pytest.mark.parametrize("implementation", sorted(DEFAULTS))
def test_two_classes_that_are_alike(implementation, frames):
    """A model that knows nothing: what its paths gain its frames cost, to 3 nats."""
    count = frames // 4
    batch = Batch(
        logits=np.zeros((1, frames, 2), np.float32),
        labels=np.ones((1, count), np.int32),
        logit_lengths=np.array([frames], np.int32),
        label_lengths=np.array([count], np.int32),
        blank_id=0,
    )
    exact_loss, _ = batch_loss_and_gradient(batch.logits, batch.labels)
    loss, _ = contract.run(implementation, batch, cotangent=np.ones(1))
    atol = contract.loss_atol(exact_loss, frames, "float32")
    assert (np.abs(loss - exact_loss) <= atol).all()
