"""`compat.torch`: PyTorch's conventions, and beside PyTorch where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ctc.compat.torch import ctc_loss
from tests.oracle import loss_and_gradient

LENGTHS = ("logit_lengths", "label_lengths")


def log_probs_of(batch):
    """[T, N, C], as PyTorch has it."""
    return jnp.swapaxes(jax.nn.log_softmax(batch.logits), 0, 1)


def concatenated(batch):
    """The labels of all utterances, one behind the other."""
    rows = zip(batch.labels, batch.label_lengths, strict=True)
    return np.concatenate([row[:length] for row, length in rows])


def lengths(batch):
    """Frames and labels, as PyTorch's callers have them: lists."""
    return batch.logit_lengths.tolist(), batch.label_lengths.tolist()


@pytest.fixture
def truth(batch):
    """Losses, and the gradient of their sum with respect to log-probs, by float64."""
    losses, gradient = [], np.zeros(batch.logits.shape)
    rows = np.swapaxes(log_probs_of(batch), 0, 1)
    for b, (frames, labels) in enumerate(zip(*lengths(batch), strict=True)):
        loss, part = loss_and_gradient(
            rows[b, :frames], batch.labels[b, :labels], normalise=False
        )
        losses.append(loss)
        gradient[b, :frames] = part
    return np.array(losses), np.swapaxes(gradient, 0, 1)


def test_reductions(batch, truth):
    """None, their sum, and the mean of each over its labels; the gradient is true."""
    losses, gradient = truth
    mean = (losses / np.maximum(batch.label_lengths, 1)).mean()
    for reduction, expected in (
        ("none", losses),
        ("sum", losses.sum()),
        ("mean", mean),
    ):
        found = ctc_loss(
            log_probs_of(batch), batch.labels, *lengths(batch), 0, reduction
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(
        ctc_loss(log_probs_of(batch), batch.labels, *lengths(batch)), mean, rtol=1e-5
    )
    found = jax.grad(ctc_loss)(
        log_probs_of(batch), batch.labels, *lengths(batch), 0, "sum"
    )
    np.testing.assert_allclose(found, gradient, atol=1e-5)


def test_concatenated_targets(batch, truth):
    """Also with lengths that only the device knows, and with more than is needed."""
    flat, log_probs = concatenated(batch), log_probs_of(batch)
    found = ctc_loss(log_probs, flat, *lengths(batch), reduction="none")
    np.testing.assert_allclose(found, truth[0], rtol=1e-5)
    traced = jax.jit(lambda *arrays: ctc_loss(*arrays, reduction="none"))
    found = traced(log_probs, flat, batch.logit_lengths, batch.label_lengths)
    np.testing.assert_allclose(found, truth[0], rtol=1e-5)
    more = batch.label_lengths + np.array([0, 0, 0, 1], np.int32)
    found = traced(log_probs, flat, batch.logit_lengths, more)
    np.testing.assert_allclose(found[:3], truth[0][:3], rtol=1e-5)
    assert found[3] == np.inf
    with pytest.raises(ValueError, match="holds 8 labels.*add up to 9"):
        ctc_loss(log_probs, flat, batch.logit_lengths, more)


def test_one_utterance(batch, truth):
    """[T, C] and [S], with lengths as numbers or in lists of one."""
    one = log_probs_of(batch)[:, 0], batch.labels[0]
    for frames, labels in ((7, 3), ([7], [3])):
        found = ctc_loss(*one, frames, labels, reduction="none")
        assert found.shape == ()
        np.testing.assert_allclose(found, truth[0][0], rtol=1e-5)
    np.testing.assert_allclose(ctc_loss(*one, 7, 3), truth[0][0] / 3, rtol=1e-5)


def test_no_labels_at_all(batch):
    """PyTorch takes an empty tensor then."""
    log_probs, frames = log_probs_of(batch), batch.logit_lengths
    none = np.zeros(0, np.int32), frames.tolist(), [0, 0, 0, 0]
    found = ctc_loss(log_probs, *none, reduction="none")
    silent = np.cumsum(log_probs[:, :, 0], 0)[frames - 1, np.arange(4)]
    np.testing.assert_allclose(found, -silent, rtol=1e-5)


def test_zero_infinity(infeasible):
    """0 in place of +inf, counted as an utterance; no gradient either way."""
    log_probs = log_probs_of(infeasible)
    arguments = infeasible.labels, *lengths(infeasible), 0
    for zero_infinity, value in ((False, np.inf), (True, 0)):
        loss = ctc_loss(log_probs, *arguments, "none", zero_infinity)
        assert loss[1] == value
        gradient = jax.grad(ctc_loss)(log_probs, *arguments, "mean", zero_infinity)
        assert (gradient[:, 1] == 0).all()
        assert jnp.isfinite(gradient).all()
    mean = (np.asarray(loss) / np.maximum(infeasible.label_lengths, 1)).mean()
    np.testing.assert_allclose(
        ctc_loss(log_probs, *arguments, "mean", True), mean, rtol=1e-6
    )


def test_mistakes(batch):
    """Named by PyTorch's names."""
    log_probs, frames = log_probs_of(batch), batch.logit_lengths
    more = frames, batch.label_lengths
    with pytest.raises(ValueError, match=r"reduction"):
        ctc_loss(log_probs, batch.labels, *more, reduction="avg")
    with pytest.raises(ValueError, match=r"`targets` must be \[N, S\] with N=4"):
        ctc_loss(log_probs, batch.labels[:3], *more)
    with pytest.raises(ValueError, match=r"`log_probs` must be \[T, N, C\]"):
        ctc_loss(log_probs[0], batch.labels, *more)
    with pytest.raises(ValueError, match=r"`input_lengths` must have"):
        ctc_loss(log_probs, batch.labels, frames[:2], batch.label_lengths)


@pytest.fixture
def theirs():
    """PyTorch's loss, and its gradient with respect to what `log_softmax` was given."""
    torch = pytest.importorskip("torch")

    def run(batch, *, targets=None, upstream=True, **options):
        logits = torch.tensor(np.swapaxes(batch.logits, 0, 1), requires_grad=True)
        log_probs = logits.log_softmax(-1) if upstream else logits
        rows = torch.tensor(batch.labels if targets is None else targets)
        loss = torch.nn.functional.ctc_loss(
            log_probs, rows, *map(torch.tensor, lengths(batch)), **options
        )
        loss.sum().backward()
        return loss.detach().numpy(), logits.grad.numpy()

    return run


def ours(batch, *, targets=None, upstream=True, **options):
    """The same by us: value, and gradient of the sum."""
    rows = batch.labels if targets is None else targets

    def total(logits):
        log_probs = jax.nn.log_softmax(logits) if upstream else logits
        loss = ctc_loss(log_probs, rows, *lengths(batch), **options)
        return loss.sum(), loss

    gradient, loss = jax.grad(total, has_aux=True)(jnp.swapaxes(batch.logits, 0, 1))
    return loss, gradient


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_beside_pytorch(batch, theirs, flat, reduction):
    """Value and gradient, behind a log_softmax, are PyTorch's."""
    options = {"targets": concatenated(batch) if flat else None, "reduction": reduction}
    for found, expected in zip(
        ours(batch, **options), theirs(batch, **options), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_infeasible_beside_pytorch(infeasible, theirs):
    """The same values; NaN in PyTorch's gradient without `zero_infinity`."""
    loss, gradient = ours(infeasible, reduction="none")
    other_loss, other_gradient = theirs(infeasible, reduction="none")
    np.testing.assert_allclose(loss, other_loss, rtol=1e-5)
    assert np.isnan(other_gradient[:2, 1]).all()
    assert (gradient[:, 1] == 0).all()
    options = {"zero_infinity": True, "reduction": "mean"}
    for found, expected in zip(
        ours(infeasible, **options), theirs(infeasible, **options), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_gradient_of_log_probs(batch, theirs):
    """PyTorch's lacks exp(log_probs) to be the derivative of what was passed."""
    normalised = batch._replace(logits=np.asarray(jax.nn.log_softmax(batch.logits)))
    options = {"upstream": False, "reduction": "sum"}
    _, gradient = ours(normalised, **options)
    _, other = theirs(normalised, **options)
    is_live = np.arange(7)[:, None] < batch.logit_lengths
    expected = np.exp(log_probs_of(batch)) * is_live[..., None]
    np.testing.assert_allclose(other - gradient, expected, atol=2e-5)
