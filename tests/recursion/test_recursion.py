"""`blocked` and `scan`, which do everything, pass all of the contract.

What a guest does is tested in a folder of its own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ctc import _recursion
from jax_ctc._checks.arrays import Batch
from jax_ctc._lattice.pose import Spec, pose
from jax_ctc._recursion import blocked
from jax_ctc._recursion.blocked import chunks
from tests import contract
from tests.cases import more, named, tagged

NAMES = [case.name for case in tagged("ci")]
# Values, not shapes, are what these vary; one small shape and one of many chunks do.
VARIED = ["ragged", "some_empty", "many_chunks"]
# One compilation each of float64: all of the small shape, and the chunked one.
DOUBLE = [case.name for case in tagged("ci") if case.batch == 4] + ["many_chunks"]

# Three shapes: the small one in all its variety, an empty one, and one of many chunks.
# Where the blank is, a recursion is not told: what the values above show is enough.
READ = [case.name for case in tagged("ci") if case.batch == 4 and not case.blank_id]
READ += ["no_labels", "many_chunks", "untrained"]
# `scan` is what others are compared with: of its readings one shape is enough.
READ_BY = [("blocked", "float32", name) for name in READ]
READ_BY += [("blocked", "float64", "ragged"), ("scan", "float32", "ragged")]
READ_BY += [more("blocked", "float64", name) for name in READ if name != "ragged"]
READ_BY += [
    more("scan", dtype, name)
    for dtype in ("float32", "float64")
    for name in READ
    if (dtype, name) != ("float32", "ragged")
]


@pytest.fixture(scope="module", params=_recursion.PLAIN)
def implementation(request):
    """Each line of the table."""
    return request.param


@pytest.mark.fast
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient(implementation, name):
    """Against the oracle, in float32."""
    contract.check_value(implementation, name, "float32")
    contract.check_gradient(implementation, name, "float32")


@pytest.mark.parametrize(
    "name", [more(x) if x in ("blank_last", "many_chunks") else x for x in DOUBLE]
)
def test_value_and_gradient_in_double(implementation, name, x64):
    """Against the oracle, in float64, to 1e-9."""
    contract.check_value(implementation, name, "float64")
    contract.check_gradient(implementation, name, "float64")


@pytest.mark.parametrize(("implementation", "dtype", "name"), READ_BY)
@pytest.mark.parametrize(
    "check",
    [
        contract.check_posteriors,
        contract.check_best_path,
        contract.check_entropy,
        contract.check_entropy_gradient,
    ],
    ids=lambda check: check.__name__,
)
def test_readings(implementation, check, dtype, name, request):
    """Posteriors, best path and entropy, against the oracle's."""
    if dtype == "float64":
        request.getfixturevalue("x64")
    check(implementation, name, dtype)


@pytest.mark.parametrize("name", READ)
def test_samples(implementation, name):
    """Every path drawn says the labels, and implementations draw alike."""
    contract.check_samples(implementation, name)


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize(
    "check",
    contract.INVARIANCES,
    ids=lambda check: check.__name__,
)
def test_invariance(implementation, check, name):
    """What must not matter does not."""
    check(implementation, name)


@pytest.mark.parametrize("name", ["ragged", "scattered"])
def test_more_padding(implementation, name):
    """Nor does the width of the arrays."""
    contract.check_more_padding(implementation, name)


def problem_of(batch):
    """Pose a batch as an implementation sees it."""
    *arrays, blank_id = batch
    posed = jax.jit(pose, static_argnums=0)(Spec(blank_id), Batch(*arrays))
    return posed.problem


def test_both_methods_agree_on_log_z(implementation):
    """Forward alone, and forward with backward, are one lattice."""
    problem = problem_of(named("many_chunks").make())

    @jax.jit
    def both(problem):
        forward = _recursion.forward(implementation, problem, normalise=True)
        return forward, _recursion.forward_backward(
            implementation, problem, normalise=True
        )[0]

    np.testing.assert_array_equal(*both(problem))


@pytest.mark.parametrize("platform", _recursion.HOW)
def test_as_on_other_platforms(platform):
    """What only makes a platform faster changes nothing."""
    problem = problem_of(named("ragged").make())
    how = _recursion.HOW[platform]
    for method in (blocked.forward, blocked.forward_backward):
        plain = jax.jit(functools.partial(method, normalise=True))
        other = jax.jit(functools.partial(method, normalise=True, **how))
        for a, b in zip(
            jax.tree.leaves(plain(problem)),
            jax.tree.leaves(other(problem)),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_prefixes(implementation):
    """Log p of the first n labels, in one pass, is minus the loss of each."""
    batch = named("ragged").make()
    read = jax.jit(_recursion.read, static_argnums=(0, 1), static_argnames="normalise")
    log_p = np.asarray(
        read(implementation, "prefixes", problem_of(batch), normalise=True)
    )
    for n in range(batch.labels.shape[1] + 1):
        shorter = batch._replace(label_lengths=np.minimum(batch.label_lengths, n))
        loss = contract.run("scan", shorter)[0]
        inside = n <= batch.label_lengths
        np.testing.assert_allclose(-log_p[inside, n], loss[inside], rtol=1e-5)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 23, 24, 25, 37, 600, 601, 4000, 65_537])
def test_plan_covers_the_frames(frames, sides, monkeypatch):
    """Chunks cover T with less than one a side to spare; blocks keep to 24 frames."""
    problem = problem_of(named("plain").make())
    problem = problem._replace(scores=jnp.zeros((4, frames, 6)))
    for budget in (0, 2**40):
        monkeypatch.setattr(chunks, "_KEEP_BYTES", budget)
        plan = chunks.make_plan(problem, normalise=True, sides=sides)
        assert plan.renorm <= 24
        assert plan.chunk % plan.renorm == 0
        turn = sides * plan.chunk
        assert 0 <= plan.num_chunks * turn - frames < turn
        if budget == 0:
            assert plan.chunk <= 2 * frames**0.5 + 24
        else:
            assert plan.num_chunks == 1


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("frames", [1, more(2), 5, 12, more(13), 25])
def test_every_raggedness(frames, sides, monkeypatch):
    """Many tiny chunks give what one chunk gives, whatever is left over."""
    rng = np.random.default_rng(frames)
    batch = (
        named("plain")
        .make()
        ._replace(
            logits=rng.normal(size=(4, frames, 6)).astype(np.float32),
            logit_lengths=np.minimum([frames, frames - 1, frames, 1], frames).astype(
                int
            ),
            label_lengths=np.minimum([1, 0, (frames + 1) // 2, 1], frames).astype(int),
            labels=np.tile(np.array([1, 2, 3, 4], np.int32), (4, 1)),
        )
    )
    problem = problem_of(batch)

    def value_and_gradient(problem, **how):
        return blocked.forward_backward(problem, normalise=True, **how)

    whole = jax.jit(value_and_gradient)(problem)
    monkeypatch.setattr(chunks, "_KEEP_BYTES", 0)
    monkeypatch.setattr(chunks, "RENORM_FRAMES", 2)
    how = {"sides": sides, "least_chunk": 2}
    plan = chunks.make_plan(problem, normalise=True, **how)
    assert frames <= 2 * sides or plan.num_chunks > 1
    pieces = jax.jit(functools.partial(value_and_gradient, **how))(problem)
    np.testing.assert_allclose(pieces[0], whole[0], rtol=1e-6)
    np.testing.assert_allclose(pieces[1], whole[1], atol=1e-6)
