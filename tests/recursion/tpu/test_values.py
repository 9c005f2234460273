"""The TPU kernels, interpreted on this machine's CPU, against the oracle.

To interpret a kernel takes seconds to compile: few shapes serve many values.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from jax_ctc import _recursion
from jax_ctc._recursion import tpu
from jax_ctc._recursion.contract import Traits
from jax_ctc._recursion.tpu.slots import MOST_LABELS, Slots, collect, lay_out, spread
from tests import contract
from tests.cases import more, named, tagged
from tests.oracle import batch_loss_and_gradient

TRAITS = Traits("tpu", jnp.dtype("float32"), 2, 100, 10, 32, True)
SMALL = [c.name for c in tagged("ci") if c.batch == 4 and c.blank_id == 0]


@pytest.mark.parametrize("name", SMALL)
def test_contract(guest, name):
    """Through the public loss, as every implementation."""
    contract.check_value(guest, name, "float32")
    contract.check_gradient(guest, name, "float32")


@pytest.mark.parametrize("name", ["ragged", "some_empty"])
@pytest.mark.parametrize(
    "check",
    [
        contract.check_padding,
        contract.check_shift,
        contract.check_determinism,
        contract.check_permutation,
    ],
    ids=lambda check: check.__name__,
)
def test_invariance(guest, check, name):
    """What must not matter does not."""
    check(guest, name)


def test_chunks(guest, short_chunks):
    """Ten of two blocks each, of which the last reaches back."""
    contract.check_value(guest, "long", "float32")
    contract.check_gradient(guest, "long", "float32")


# What is compiled for an interpreter runs once or twice.
QUICKLY = {"xla_backend_optimization_level": 0}


@functools.partial(jax.jit, static_argnames=("inputs",), compiler_options=QUICKLY)
def losses(logits, labels, frames, counts, inputs="logits"):
    """Return the losses, and the gradient of their sum, impossible ones as 0."""
    loss_of = jax_ctc.ctc_loss
    if inputs == "log_probs":
        loss_of = jax_ctc.ctc_loss_from_log_probs

    def total(logits):
        loss = loss_of(logits, labels, frames, counts, implementation="tpu")
        return jnp.sum(jnp.where(loss < jnp.inf, loss, 0)), loss

    gradient, loss = jax.grad(total, has_aux=True)(logits)
    return loss, gradient


def batch_of(batch, frames, classes, labels, *, is_ragged=False):
    """Return a feasible batch."""
    rng = np.random.default_rng(batch)
    logits = rng.normal(size=(batch, frames, classes)).astype(np.float32)
    ids = rng.integers(1, classes, (batch, labels)).astype(np.int32)
    lengths, counts = np.full(batch, frames), np.full(batch, labels)
    if is_ragged:
        lengths = rng.integers(min(2 * labels, frames), frames + 1, batch)
        counts = rng.integers(0, labels + 1, batch)
    return logits, ids, lengths.astype(np.int32), counts.astype(np.int32)


def check(arrays, *, atol=2e-6):
    """Compare with the oracle: the loss to what float32 holds, and the gradient."""
    loss, gradient = losses(*arrays)
    exact, slopes = batch_loss_and_gradient(*arrays)
    assert (np.abs(loss - exact) <= bound(exact, arrays[0].shape[1])).all()
    np.testing.assert_allclose(gradient, slopes, rtol=0, atol=atol)


def bound(exact, frames):
    """Eight ulp, 1e-6 nats and 2e-9 nats a frame."""
    return 8 * np.spacing(np.abs(exact).astype(np.float32)) + 1e-6 + 2e-9 * frames


def shortened(name, frames, labels):
    """Return the first frames and labels of a case of the precision table."""
    logits, ids, *_ = named(name).make()
    full = (
        np.full(len(logits), frames, np.int32),
        np.full(len(logits), labels, np.int32),
    )
    return logits[:, :frames], ids[:, :labels], *full


@pytest.mark.slow
@pytest.mark.parametrize("name", [more("normal"), "normal_times_5"])
def test_long(guest, name):
    """Shortened from 4,000 frames; three chunks, of which the last reaches back."""
    check(shortened(name, 600, 50))


def test_confident_and_wrong(guest):
    """A wrong class wins every frame by 50 nats; shortened from 3,000 frames."""
    logits, labels, lengths, counts = batch_of(2, 600, 32, 50)
    logits[:] = np.where(np.arange(32) == 7, 50, 0)
    labels[:, :3], counts[:] = [1, 2, 3], 3
    check((logits, labels, lengths, counts))


@pytest.mark.parametrize("margin", [12.0, 17.0])
def test_confident_models(guest, margin):
    """The loss is what is left beside a 1, in normalisers and sums: both keep it."""
    logits, labels, lengths, counts = batch_of(2, 600, 32, 50)
    counts[:] = 20
    spoken = 30 * np.arange(20) + 3
    logits[:, :, 0] += margin
    for b in range(2):
        logits[b, spoken, 0] -= margin
        logits[b, spoken, labels[b, :20]] += margin
    check((logits, labels, lengths, counts), atol=3e-7)


@pytest.mark.slow
def test_very_long(guest):
    """Shortened from 20,000 frames and 2,000 labels; one utterance has all lanes."""
    check(shortened("very_long", 1000, 100))


@pytest.mark.slow
def test_two_tiles(guest):
    """All lanes taken, and two utterances more, in a tile of their own."""
    check(batch_of(130, 24, 5, 6, is_ragged=True))


def test_one_whole_tile(guest):
    """As many utterances as lanes."""
    arrays = batch_of(128, 24, 5, 6, is_ragged=True)
    value = jax.jit(functools.partial(jax_ctc.ctc_loss, implementation=guest))
    exact, _ = batch_loss_and_gradient(*arrays)
    assert (np.abs(value(*arrays) - exact) <= bound(exact, 24)).all()


def test_dead_and_bad_utterances(guest):
    """Their gradient is exactly 0, and their neighbours keep every bit."""
    arrays = logits, labels, lengths, counts = batch_of(8, 40, 6, 8)
    loss, gradient = map(np.asarray, losses(*arrays))
    assert np.isfinite(loss).all()
    logits[0, 3, 2] = np.nan
    logits[1, 39, 4] = np.inf
    logits[2, 5] = -np.inf
    lengths[3] = 7  # of 8 labels
    labels[4, 0] = 6  # of 6 classes
    labels[5, 2] = 1
    logits[5, :, 1] = -np.inf  # needed, and impossible
    changed, slopes = map(np.asarray, losses(*arrays))
    np.testing.assert_array_equal(np.isnan(changed), [1, 1, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(changed[3:6], np.inf)
    np.testing.assert_array_equal(slopes[:6], 0)
    np.testing.assert_array_equal(changed[6:], loss[6:])
    np.testing.assert_array_equal(slopes[6:], gradient[6:])


def test_tiny_probabilities(guest):
    """Scores so far below the best that no path is left, and some just above that."""
    arrays = logits, labels, lengths, counts = batch_of(8, 40, 6, 8)
    labels[:], counts[:], lengths[:] = 3, 2, 8
    labels[:, 1] = 4
    logits[0, :, 3:5] -= 3e8  # two of them needed: 6e8 nats
    logits[1, :, 3:5] -= 5e8  # 1e9
    logits[2] *= 1e8
    loss, gradient = losses(*arrays)
    np.testing.assert_allclose(loss[0], 6e8, rtol=1e-6)
    assert np.abs(gradient[0]).max() > 0.1
    assert loss[1] == np.inf
    assert not gradient[1].any()
    exact, slopes = batch_loss_and_gradient(*arrays)
    np.testing.assert_allclose(loss[2:], exact[2:], rtol=1e-6)
    np.testing.assert_allclose(gradient[2:], slopes[2:], rtol=0, atol=2e-6)


def test_log_probs(guest):
    """Scores that are taken as they are, sums above 1 among them."""
    arrays = batch_of(8, 40, 6, 8, is_ragged=True)
    loss, gradient = losses(*arrays, inputs="log_probs")
    exact, slopes = batch_loss_and_gradient(*arrays, normalise=False)
    np.testing.assert_allclose(loss, exact, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(gradient, slopes, rtol=0, atol=2e-6)


def test_half_precision(guest):
    """Only the result is rounded, once."""
    logits, *rest = batch_of(8, 40, 6, 8, is_ragged=True)
    logits = jnp.asarray(logits).astype(jnp.bfloat16)
    loss, gradient = losses(logits, *rest)
    assert gradient.dtype == jnp.bfloat16
    wide = np.asarray(logits.astype(jnp.float32))
    exact, slopes = batch_loss_and_gradient(wide, *rest)
    np.testing.assert_allclose(loss, exact, rtol=1e-6)
    gradient = np.asarray(gradient.astype(jnp.float32))
    np.testing.assert_allclose(gradient, slopes, rtol=0, atol=2**-9 + 1e-6)


def test_where_there_is_nothing_to_do(guest, monkeypatch):
    """By name it says so; preferred, it stands back."""
    empty = np.zeros((2, 0), np.int32)
    logits = np.zeros((2, 5, 4), np.float32)
    with pytest.raises(NotImplementedError, match="tpu: there is nothing to do"):
        jax_ctc.ctc_loss(logits, empty, implementation=guest)
    monkeypatch.setattr(_recursion, "PREFERRED", guest)
    np.testing.assert_allclose(
        jax_ctc.ctc_loss(logits, empty), 5 * np.log(4), rtol=1e-6
    )


def test_declines():
    """What it does not take, it says."""
    assert tpu.decline(TRAITS) is None
    assert tpu.decline(TRAITS._replace(dtype=jnp.dtype("bfloat16"))) is None
    assert "float64" in tpu.decline(TRAITS._replace(dtype=jnp.dtype("float64")))
    assert MOST_LABELS == 16_383
    assert tpu.decline(TRAITS._replace(num_labels=MOST_LABELS)) is None
    assert "U = 16,384" in tpu.decline(TRAITS._replace(num_labels=MOST_LABELS + 1))


def test_it_is_taken_by_name_alone(monkeypatch):
    """Nobody has run it, so on a TPU the default is plain XLA; here it is refused."""
    record = {r.name: r for r in jax_ctc.implementations()}["tpu"]
    assert record.has_run_on is None
    assert not record.is_default
    assert _recursion._guest(None, TRAITS) is None
    assert _recursion._guest("tpu", TRAITS) == "tpu"
    monkeypatch.setattr(_recursion, "PREFERRED", "tpu")
    assert _recursion._guest(None, TRAITS) == "tpu"
    logits, labels = np.zeros((1, 2, 3), np.float32), np.ones((1, 1), np.int32)
    with pytest.raises(NotImplementedError, match="tpu: it is for tpu, and this is"):
        jax_ctc.ctc_loss(logits, labels, implementation="tpu")


@pytest.mark.parametrize(
    ("batch", "labels", "expected"),
    [
        (1, 100, Slots(1, 1, 1)),
        (32, 100, Slots(32, 1, 4)),
        (130, 12, Slots(128, 2, 2)),
        (128, 64, Slots(64, 2, 5)),
        (8, 600, Slots(8, 1, 5)),
        (3, MOST_LABELS, Slots(1, 3, 16)),
    ],
)
def test_slots(batch, labels, expected):
    """Utterances side by side as far as 8 registers a row go."""
    assert lay_out(batch, labels) == expected


def test_spread_and_collect():
    """Each state has a place of its own, and its neighbour the next register."""
    slots = lay_out(3, 20)
    rows = np.arange(2 * 3 * 21).reshape(2, 3, 21)
    laid = spread(jnp.asarray(rows), slots, -1)
    np.testing.assert_array_equal(collect(laid, slots, 3, 21), rows)
    assert sorted(np.asarray(laid)[np.asarray(laid) >= 0]) == list(range(rows.size))
