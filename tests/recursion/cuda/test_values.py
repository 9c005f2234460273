"""The CUDA kernels, run on this machine's CPU, against the oracle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ctc._recursion import cuda
from jax_ctc._recursion.contract import Traits
from jax_ctc._recursion.cuda.plan import Layout
from tests import contract
from tests.cases import more, sure
from tests.oracle import batch_loss_and_gradient
from tests.recursion.cuda import emulator
from tests.recursion.cuda.batches import CASES, LAYOUTS, batch_of
from tests.recursion.cuda.batches import check as check_by

pytestmark = emulator.needs_compiler
check = functools.partial(check_by, emulator.run)

# The others take a second of an emulator each.
SHORT = [case for case in CASES if case.frames < 600]


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.name)
def test_contract(guest, case):
    """Through the public loss, as every implementation."""
    contract.check_value(guest, case.name, "float32")
    contract.check_gradient(guest, case.name, "float32")


@pytest.mark.parametrize("name", ["ragged", "some_empty"])
@pytest.mark.parametrize(
    "check",
    [*contract.INVARIANCES, contract.check_more_padding],
    ids=lambda check: check.__name__,
)
def test_invariance(guest, check, name):
    """What must not matter does not."""
    check(guest, name)


@pytest.mark.parametrize(
    "sizes",
    [x if "by place" in name else more(x) for name, x in LAYOUTS.items()],
    ids=LAYOUTS,
)
def test_layouts(emulated, sizes):
    """However labels lie on lanes and warps, the sums are the same."""
    check(batch_of(*sizes, is_ragged=True))
    labels = Layout.back(sizes[3]).labels, Layout.there(sizes[3]).labels
    assert emulated.launched[-5:-3] == [
        f"ctc_there_{labels[1]}",
        f"ctc_back_{labels[0]}",
    ]


@pytest.mark.parametrize("classes", [3, 64, 129, 4100])
def test_rows(emulated, classes):
    """Rows that lanes hold, that warps go through, and that take a block of threads."""
    check(batch_of(2, 6, classes, 2))


def test_long_rows_of_ties(emulated):
    """A thread sums 128 equal terms, and all frames would be wrong alike."""
    batch = sure(12, 32768, 3, [12], is_tied=True)[:4]
    loss, _ = batch_loss_and_gradient(*batch)
    log_z, _ = emulator.run(batch)
    assert (np.abs(log_z + loss) <= 2 * np.spacing(np.float32(loss))).all()


def test_log_probs(emulated):
    """Scores that are taken as they are, sums above 1 among them."""
    run = functools.partial(emulator.run, normalise=False)
    check_by(run, batch_of(3, 50, 6, 5, is_ragged=True), normalise=False)


@pytest.mark.parametrize(("dtype", "eps"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_half_precision(emulated, dtype, eps):
    """Only the result is rounded, once."""
    scores, *rest = batch_of(3, 50, 6, 5, is_ragged=True)
    check((np.asarray(jnp.asarray(scores).astype(dtype)), *rest), atol=eps / 2 + 1e-6)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_long(emulated, scale):
    """Shortened from 4,000 frames of 32 classes."""
    check(batch_of(1, 1000, 32, 100, scale=scale))


def test_confident_and_wrong(emulated):
    """A wrong class wins every frame by 50 nats."""
    scores, _, lengths, _ = batch_of(1, 1500, 8, 3)
    scores[:, :, 7] += 50
    check((scores, np.array([[1, 2, 3]]), lengths, np.array([3])))


@pytest.mark.parametrize("is_tied", [more(False), True], ids=["random", "tied"])
def test_sure_and_right(emulated, is_tied):
    """What frames add is below the last bit of what they add to, and still counts."""
    batch = sure(1000, 4, 200, (5, 8, 17), is_tied=is_tied)
    check(batch[:4], atol=3e-7)


@pytest.mark.parametrize(("frames", "atol"), [(4000, 1e-5), more(20_000, 3e-5)])
def test_sure_of_one_label(emulated, frames, atol):
    """On the way back nothing is kept of what sums lose: of equal frames it adds up."""
    check(sure(frames, 3, 1, [5.5], is_tied=True)[:4], atol=atol)


def test_very_long(emulated):
    """Shortened from 20,000 frames and 2,000 labels."""
    check(batch_of(1, 2000, 32, 200, scale=2.0))


def test_dead_and_bad_utterances(emulated):
    """Their gradient is exactly 0, and neighbours keep every bit."""
    scores, labels, lengths, counts = batch_of(6, 40, 6, 8)
    before = emulator.run((scores, labels, lengths, counts))
    scores[0, 3, 2] = np.nan
    scores[1, 39, 4] = np.inf
    scores[2, 5] = -np.inf
    lengths[3] = 7  # of 8 labels
    counts[4] = -1
    log_z, gradient = emulator.run((scores, labels, lengths, counts))
    np.testing.assert_array_equal(np.isnan(log_z), [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(log_z[3:5], -np.inf)
    np.testing.assert_array_equal(gradient[:5], 0)
    np.testing.assert_array_equal(log_z[5], before[0][5])
    np.testing.assert_array_equal(gradient[5], before[1][5])
    assert np.isfinite(before[0]).all()


def test_tiny_probabilities(emulated):
    """Scores so far below the best that no path is left, and some just above that."""
    scores, labels, lengths, counts = batch_of(3, 8, 5, 2)
    labels[:] = [1, 2]
    scores[0, :, 1:3] -= 3e8  # two of them needed: 6e8 nats
    scores[1, :, 1:3] -= 5e8  # 1e9
    scores[2, :, 1] = -np.inf
    log_z, gradient = emulator.run((scores, labels, lengths, counts))
    np.testing.assert_allclose(log_z[0], -6e8, rtol=1e-6)
    assert np.abs(gradient[0]).max() > 0.1
    np.testing.assert_array_equal(log_z[1:], -np.inf)
    np.testing.assert_array_equal(gradient[1:], 0)


def test_any_order_of_threads(monkeypatch):
    """No bit depends on which thread, warp or block comes first."""
    batch = batch_of(2, 90, 7, 40, is_ragged=True)
    runs = []
    for seed in range(4):
        emulator.install(monkeypatch, seed)
        runs.append(emulator.run(batch))
    for log_z, gradient in runs[1:]:
        np.testing.assert_array_equal(log_z, runs[0][0])
        np.testing.assert_array_equal(gradient, runs[0][1])


def test_three_launches(emulated):
    """Value and gradient, and value alone, at any length."""
    for frames in (10, 200):
        emulator.run(batch_of(1, frames, 4, 3))
        assert emulated.launched == [
            *("ctc_softmax_float32", "ctc_there_1", "ctc_back_1"),
            *("ctc_rows_float32", "ctc_there_1", "ctc_meet"),
        ]
        emulated.launched.clear()


def test_declines():
    """What it does not take, it says; a program for elsewhere needs no GPU here."""
    traits = Traits("cuda", jnp.dtype("float32"), 2, 100, 10, 32, True)
    assert cuda.decline(traits) is None
    double = traits._replace(dtype=jnp.dtype("float64"))
    assert "float64" in cuda.decline(double)
    assert cuda.decline(traits._replace(num_labels=4095)) is None
    assert "U = 4,096" in cuda.decline(traits._replace(num_labels=4096))
    assert "2**31" in cuda.decline(traits._replace(batch=2**16, num_frames=2**15))


def test_what_cannot_launch_is_declined(monkeypatch):
    """Whatever the reason, it is told, and plain XLA runs."""
    traits = Traits("cuda", jnp.dtype("float32"), 2, 100, 10, 32, True)
    said = []

    def refuse(*args, **kwargs):
        raise RuntimeError("No such custom call\nand much more")

    monkeypatch.setattr(cuda.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(cuda, "launch", refuse)
    cuda.missing.cache_clear()
    assert cuda.decline(traits) == "PTX does not run here: No such custom call"
    cuda.missing.cache_clear()
    emulator.install(monkeypatch)
    # The first to ask is a program that is being traced.
    jax.jit(lambda x: [x, said.append(cuda.decline(traits))][0]).lower(1.0)
    assert said == [None]
    cuda.missing.cache_clear()
