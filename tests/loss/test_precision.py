"""The precision table: float32 against the float64 oracle, on long and hard inputs.

`pytest tests/loss/test_precision.py -s` prints the rows that docs/promises.md shows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jax_ctc
from jax_ctc._numbers import extended
from tests import contract
from tests.cases import more, tagged

pytestmark = pytest.mark.optimised


def optax_loss(logits, labels):
    """The same loss as Optax users write it."""
    return optax.ctc_loss(
        logits, jnp.zeros(logits.shape[:2]), labels, jnp.zeros(labels.shape)
    )


@jax.jit
def optax_gradient(logits, labels):
    """That loss, and the gradient of its sum."""
    loss, pull = jax.vjp(lambda x: optax_loss(x, labels), logits)
    return loss, pull(jnp.ones(len(labels)))[0]


def errors(loss, gradient, exact):
    """Return the largest error of the loss, and of any gradient entry."""
    return np.abs(loss - exact[0]).max(), np.abs(gradient - exact[1]).max()


@pytest.mark.slow
@pytest.mark.relaxed
@pytest.mark.parametrize(
    "case",
    [
        more(case, id=case.name)
        if case.name == "very_long"
        else pytest.param(case, id=case.name)
        for case in tagged("precision")
    ],
)
def test_float32_is_as_good_as_float64(case, capsys):
    """Gradient within 1e-5, loss as promised; kernels 5e-6, and 2 ulp + 1e-7 nats."""
    batch, exact = case.make(), contract.exact(case.name)
    ones = np.ones(case.batch)
    loss, gradient = contract.run("blocked", batch, cotangent=ones)
    ours = errors(loss, gradient, exact)
    # Optax keeps every intermediate of [T, U]: at this length only its loss fits.
    if case.frames > 4000:
        theirs = np.asarray(jax.jit(optax_loss)(batch.logits, batch.labels))
        peer = f"{np.abs(theirs - exact[0]).max():8.1e} | not run"
    else:
        rows = errors(*optax_gradient(batch.logits, batch.labels), exact)
        peer = f"{rows[0]:8.1e} | {rows[1]:8.1e}"
    sizes = f"{case.batch}×{case.frames}×{case.classes}×{case.labels}"
    with capsys.disabled():
        print(
            f"\n| {case.note} | {sizes} | {exact[0].max():.1f}"
            f" | {ours[0]:8.1e} | {ours[1]:8.1e} | {peer} |"
        )
    assert ours[1] <= 1e-5
    assert (
        np.abs(loss - exact[0]) <= contract.loss_atol(exact[0], case.frames, "float32")
    ).all()
    # Kernels are held to more; float64 takes a while, and so is found once.
    ulp = np.spacing(np.abs(exact[0]).astype(np.float32))
    for kernel in jax_ctc.implementations():
        if kernel.platform and kernel.declines is None:
            loss, gradient = contract.run(kernel.name, batch, cotangent=ones)
            assert (np.abs(loss - exact[0]) <= 2 * ulp + 1e-7).all(), kernel.name
            assert errors(loss, gradient, exact)[1] <= 5e-6, kernel.name


@pytest.mark.exhaustive
def test_double_precision_agrees_on_a_long_case(x64):
    """float64: blocked, scan and the oracle to 1e-9 at T = 4000."""
    [case] = [case for case in tagged("precision") if case.name == "normal"]
    batch, exact = case.make(), contract.exact("normal")
    for implementation in ("blocked", "scan"):
        loss, gradient = contract.run(
            implementation, batch, "float64", cotangent=np.ones(case.batch)
        )
        np.testing.assert_allclose(loss, exact[0], rtol=1e-12)
        np.testing.assert_allclose(gradient, exact[1], atol=1e-9)


def test_powers_of_two_are_rounded_well():
    """On the emissions' whole range, as well as float32 holds it; 2**0 is 1."""
    fraction = np.linspace(0, 1, 100_001, dtype=np.float32)[:-1]
    significand = np.asarray(jax.jit(extended._exp2)(fraction), np.float64)
    error = significand / np.exp2(fraction.astype(np.float64)) - 1
    print(f"2**x: off by {np.abs(error).max():.1e}")
    assert np.abs(error).max() < 2**-23
    assert significand[0] == 1
    assert significand.max() <= 2
