"""Published values, by the package and by the oracle."""

import jax
import numpy as np
import pytest

import jax_ctc
from tests.cases import more
from tests.golden import GOLDEN
from tests.oracle import batch_loss_and_gradient


@pytest.fixture(params=GOLDEN, ids=lambda golden: golden.name)
def golden(request):
    """Each published batch."""
    return request.param


def lengths(golden):
    """The optional lengths, as both callees take them."""
    return golden.labels, golden.logit_lengths, golden.label_lengths


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["blocked", more("scan")])
def test_package(golden, implementation):
    """Loss and, where published, gradient."""
    options = {"blank_id": golden.blank_id, "implementation": implementation}

    def total(logits):
        loss = jax_ctc.ctc_loss(logits, *lengths(golden), **options)
        return loss.sum(), loss

    gradient, loss = jax.jit(jax.grad(total, has_aux=True))(golden.logits)
    np.testing.assert_allclose(loss, golden.loss, rtol=1e-5, atol=golden.tolerance)
    assert (loss >= 0).all()
    assert np.isfinite(gradient).all()
    if golden.gradient is not None:
        np.testing.assert_allclose(gradient, golden.gradient, atol=golden.tolerance)


# float64 still tells 1e30 nats from infinity; the oracle has no cut-off.
IN_REACH = [golden for golden in GOLDEN if golden.name != "a_label_out_of_reach"]


@pytest.mark.fast
@pytest.mark.parametrize("golden", IN_REACH, ids=lambda golden: golden.name)
def test_oracle(golden):
    """The oracle says so too, in float64."""
    logits = golden.logits.astype(np.float64)
    loss, gradient = batch_loss_and_gradient(
        logits, *lengths(golden), blank_id=golden.blank_id
    )
    np.testing.assert_allclose(loss, golden.loss, rtol=1e-5, atol=golden.tolerance)
    if golden.gradient is not None:
        np.testing.assert_allclose(gradient, golden.gradient, atol=golden.tolerance)
