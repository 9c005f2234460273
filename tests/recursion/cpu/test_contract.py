"""The CPU kernel passes what every guest must, and is the default on CPUs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from benchmarks import hlo
from jax_ctc import _recursion
from jax_ctc._checks.arrays import Batch
from jax_ctc._lattice.pose import Spec, pose
from jax_ctc._numbers.extended import LOG_CUTOFF
from jax_ctc._recursion import blocked, cpu
from tests import contract, guest_contract
from tests.cases import more, named, tagged
from tests.oracle import batch_loss_and_gradient

MARK = "jax_ctc.cpu."
FULL = [c for c in tagged("ci") if 0 not in (c.batch, c.labels)]
# No frames are one padded frame, before any implementation sees them.
EMPTY = [c for c in tagged("ci") if 0 in (c.batch, c.labels)]

pytestmark = pytest.mark.usefixtures("kernel")


@pytest.mark.parametrize("case", FULL, ids=lambda case: case.name)
def test_value_and_gradient(case):
    """Against the oracle, and with the bits that the value alone has."""
    contract.check_value("cpu", case.name, "float32")
    contract.check_gradient("cpu", case.name, "float32")


@pytest.mark.parametrize("case", EMPTY, ids=lambda case: case.name)
def test_empty_arrays_go_elsewhere(case):
    """By name they are declined, else nobody notices."""
    *arrays, blank_id = case.make()
    with pytest.raises(NotImplementedError, match="cpu: there is nothing to do"):
        jax_ctc.ctc_loss(*arrays, blank_id=blank_id, implementation="cpu")
    assert jax_ctc.ctc_loss(*arrays, blank_id=blank_id).shape == (case.batch,)


@pytest.mark.parametrize("name", ["ragged", "some_empty", "many_chunks"])
@pytest.mark.parametrize(
    "check",
    [*contract.INVARIANCES, contract.check_more_padding],
    ids=lambda check: check.__name__,
)
def test_invariance(check, name):
    """What must not matter does not."""
    check("cpu", name)


TRANSFORMS = [("cpu", check) for check in guest_contract.CHECKS] + [
    (None, guest_contract.check_jit),
    (None, guest_contract.check_sharded_batch),
    (None, guest_contract.check_export),
]


@pytest.mark.parametrize(("name", "check"), TRANSFORMS)
def test_transforms(name, check):
    """Every transform, by name and as the default."""
    check(name, MARK)


def problem_of(batch, dtype=jnp.float32):
    """Pose a batch as an implementation sees it."""
    logits, *arrays, blank_id = batch
    return posed(Spec(blank_id), Batch(logits.astype(dtype), *arrays)).problem


posed = jax.jit(pose, static_argnums=0)


@pytest.mark.parametrize("name", ["ragged", "scattered", "many_chunks"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bf16", "f16"])
def test_two_byte_scores(name, dtype):
    """Float32 inside; the gradient is rounded once, to the nearest."""
    batch = named(name).make()
    problem = problem_of(batch, dtype)
    log_z, gradient = jax.jit(cpu.forward_backward, static_argnames="normalise")(
        problem, normalise=True
    )
    assert gradient.dtype == dtype
    rounded = batch._replace(logits=np.asarray(problem.scores.astype(jnp.float32)))
    loss, exact = batch_loss_and_gradient(*rounded[:4], blank_id=batch.blank_id)
    np.testing.assert_allclose(-log_z, loss, rtol=1e-6)
    nearest = np.asarray(jnp.asarray(exact.astype(np.float32)).astype(dtype))
    found, nearest = np.asarray(gradient, np.float64), nearest.astype(np.float64)
    step = float(jnp.finfo(dtype).eps)
    assert (np.abs(found - nearest) <= step * np.abs(nearest) + 2e-6).all()
    assert np.mean(found == nearest) > 0.97


@pytest.mark.parametrize("normalise", [True, False])
def test_against_scan_in_double(normalise, x64):
    """10,000 utterances of any lengths, feasible and not, as `scan` has them."""
    rng = np.random.default_rng(1)
    size, frames, classes, labels = 10_000, 23, 7, 6
    batch = Batch(
        jnp.asarray(2 * rng.normal(size=(size, frames, classes)), jnp.float32),
        jnp.asarray(rng.integers(1, classes, (size, labels)), jnp.int32),
        jnp.asarray(rng.integers(0, frames + 1, size), jnp.int32),
        jnp.asarray(rng.integers(0, labels + 1, size), jnp.int32),
    )
    problem = posed(Spec(0), batch).problem
    exactly = problem._replace(scores=problem.scores.astype(jnp.float64))
    log_z, gradient = jax.jit(cpu.forward_backward, static_argnames="normalise")(
        problem, normalise=normalise
    )
    scan = jax.jit(
        _recursion.PLAIN["scan"].forward_backward, static_argnames="normalise"
    )
    exact_log_z, exact_gradient = scan(exactly, normalise=normalise)
    assert np.array_equal(np.isfinite(log_z), np.isfinite(exact_log_z))
    assert 0.5 < np.isfinite(log_z).mean() < 1
    np.testing.assert_allclose(log_z, exact_log_z, rtol=3e-7, atol=2e-6)
    np.testing.assert_allclose(gradient, exact_gradient, rtol=0, atol=1e-6)


def hostile(name):
    """A batch whose utterance 2 is as its name says; the others are ordinary."""
    batch = named("plain").make()
    logits = batch.logits.copy()
    frames, counts = batch.logit_lengths.copy(), batch.label_lengths.copy()
    needed = batch.labels[2, 1]
    if name == "nan":
        logits[2, 4, 1] = np.nan
    elif name == "inf":
        logits[2, 4, 1] = np.inf
    elif name == "all -inf":
        logits[2, 4] = -np.inf
    elif name == "needed -inf":
        logits[2, :, needed] = -np.inf
    elif name == "needed -inf at the end":
        logits[2, -1] = -np.inf
        logits[2, -1, 5] = 0
        batch.labels[2] = 1
    elif name == "1e8 below":
        logits[2, :, 5] = 1e8
        batch.labels[2] = np.minimum(batch.labels[2], 4)
    elif name == "beyond the cut-off":
        logits[2, :, 5] = 1e9
        batch.labels[2] = np.minimum(batch.labels[2], 4)
    elif name == "as far apart as floats are":
        logits[2, :, 5] = 3e38
        logits[2, :, :5] = -3e38
        batch.labels[2] = np.minimum(batch.labels[2], 4)
    elif name == "no frames":
        frames[2] = 0
    elif name == "nothing":
        frames[2] = counts[2] = 0
    elif name == "no labels":
        counts[2] = 0
    elif name == "one frame":
        frames[2] = counts[2] = 1
    return batch._replace(logits=logits, logit_lengths=frames, label_lengths=counts)


HOSTILE = [
    *("nan", "inf", "all -inf", "needed -inf", "needed -inf at the end", "1e8 below"),
    *("beyond the cut-off", "as far apart as floats are", "no frames", "nothing"),
    *("no labels", "one frame"),
]


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_utterances(name, normalise):
    """Value, NaN and zeros as `blocked` has them; neighbours keep every bit."""
    run = jax.jit(_recursion.forward_backward, static_argnames=("name", "normalise"))
    ordinary = run("cpu", problem_of(named("plain").make()), normalise=normalise)
    problem = problem_of(hostile(name))
    log_z, gradient = run("cpu", problem, normalise=normalise)
    expected, expected_gradient = run("blocked", problem, normalise=normalise)
    np.testing.assert_allclose(log_z, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=2e-6)
    if not np.isfinite(log_z[2]):
        assert not np.any(gradient[2])
    for b in (0, 1, 3):
        assert log_z[b] == ordinary[0][b]
        np.testing.assert_array_equal(gradient[b], ordinary[1][b])


def test_a_bad_frame_shows_in_utterances_that_have_no_path():
    """Both bits are set, whichever is found first."""
    logits, labels, frames, counts, _ = named("plain").make()
    logits, labels = logits.copy(), labels.copy()
    logits[1, 2, 3] = np.nan
    labels[1, 0] = 99
    status = jax_ctc.ctc_loss_with_status(
        logits, labels, frames, counts, implementation="cpu"
    )[1]
    bits = jax_ctc.Status.LABEL_OUT_OF_RANGE | jax_ctc.Status.NONFINITE_LOGITS
    assert status.tolist() == [0, int(bits), 0, 0]
    np.testing.assert_array_equal(
        status, jax_ctc.check_batch(logits, labels, frames, counts)
    )


@pytest.mark.parametrize("share", [0.97, 1.03])
def test_the_cut_off_is_that_of_all(share):
    """Just short of 7.4e8 nats a loss is finite, just beyond it is not."""
    logits = np.zeros((1, 2, 3), np.float32)
    logits[:, :, 2] = -LOG_CUTOFF * share / 2
    losses = [
        float(jax_ctc.ctc_loss(logits, np.array([[1]]), implementation=name)[0])
        for name in ("cpu", "blocked", "scan")
    ]
    assert np.isfinite(losses).all() == (share < 1)
    np.testing.assert_allclose(losses[0], losses[1:], rtol=1e-6)


def test_a_mask_is_impossible_however_many_paths_there_are():
    """Paths are counted, so that sums of zeros might grow; they do not."""
    frames, labels = 4000, np.ones((1, 1000), np.int32)
    logits = np.zeros((1, frames, 3), np.float32)
    logits[0, -1, :2] = -np.inf
    lengths = [np.array([n], np.int32) for n in (frames, 1000)]
    problem = problem_of((logits, labels, *lengths, 0))
    for normalise in (True, False):
        log_z, gradient = cpu.forward_backward(problem, normalise=normalise)
        assert log_z[0] == -np.inf
        assert not np.any(gradient)


@functools.partial(jax.jit, static_argnums=1)
def both_best_paths(problem, normalise):
    """The kernel's, and those of plain XLA."""
    log_p, states = cpu.best_path(problem, normalise=normalise)
    return log_p, states.T, *blocked.best_path(problem, normalise=normalise)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(
    "name", ["ragged", "some_empty", "many_chunks", more("long"), "far_below"]
)
def test_best_path(name, normalise):
    """As probable as the path that `blocked` finds, and as it says."""
    problem = problem_of(named(name).make())
    log_p, states, expected, others = both_best_paths(problem, normalise)
    np.testing.assert_allclose(log_p, expected, rtol=1e-6, atol=1e-6)
    live = np.arange(len(states))[:, None] < np.asarray(problem.logit_lengths)
    same = np.asarray(states == others) | ~live
    assert same.mean() > 0.99


def test_the_default_on_cpus():
    """Unasked it runs, and float64 goes on elsewhere."""
    [default] = [i for i in jax_ctc.implementations() if i.is_default]
    assert default.name == "cpu"
    assert default.platform == "cpu"
    assert default.declines is None


def test_float64_is_declined(x64):
    """In a sentence."""
    *arrays, _ = named("plain").make()
    arrays[0] = arrays[0].astype(np.float64)
    with pytest.raises(NotImplementedError, match="cpu: it takes float32, bfloat16"):
        jax_ctc.ctc_loss(*arrays, implementation="cpu")
    assert jax_ctc.ctc_loss(*arrays).dtype == jnp.float64


def test_debug_nans():
    """A kernel's own arithmetic sets off no alarm."""
    *arrays, _ = named("ragged").make()
    with jax.debug_nans(True):
        jax.grad(lambda x: jax_ctc.ctc_loss(x, *arrays[1:]).sum())(arrays[0])


def test_alignments_use_it(monkeypatch):
    """`ctc_align` is the same by either, on one device and on eight."""
    *arrays, _ = named("many_chunks").make()
    align = jax.jit(jax_ctc.ctc_align)
    assert "jax_ctc.cpu.best_path" in align.lower(*arrays).compile().as_text()
    ours = align(*arrays)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    placed = [jax.device_put(x, place) for x in arrays]
    text = align.lower(*placed).compile().as_text()
    assert "jax_ctc.cpu.best_path" in text
    assert not hlo.collectives(text)
    np.testing.assert_array_equal(align(*placed).tokens, ours.tokens)
    mapped = jax.vmap(jax_ctc.ctc_align)(*arrays)
    np.testing.assert_array_equal(mapped.tokens, ours.tokens)
    monkeypatch.setattr(_recursion, "PREFERRED", "blocked")
    logits, *rest = arrays  # a frame longer, or what is compiled already would run
    theirs = align(np.pad(logits, ((0, 0), (0, 1), (0, 0))), *rest)
    np.testing.assert_allclose(ours.log_prob, theirs.log_prob, rtol=1e-6)
    assert np.mean(np.asarray(ours.tokens == theirs.tokens[:, :-1])) > 0.99
