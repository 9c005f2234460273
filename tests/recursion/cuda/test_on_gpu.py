"""The CUDA kernels on an NVIDIA GPU: the contract, the transforms, every bit 20 times.

    JAX_PLATFORMS=cuda,cpu python -m pytest tests/recursion/cuda/test_on_gpu.py

All of it is skipped where there is none; `test_values.py` has the same on a CPU.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from jax_ctc._recursion import cuda
from tests import contract, guest_contract
from tests.loss import test_confident
from tests.recursion.cuda.batches import (
    CASES,
    LAYOUTS,
    batch_of,
    check,
    problem_of,
)

MARK = "__gpu$xla.gpu.ptx"
NEED_EIGHT = {
    guest_contract.check_sharded_batch,
    guest_contract.check_shard_map,
    guest_contract.check_partly_manual,
    guest_contract.check_explicit_axes,
}

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="JAX runs on no GPU here"
)


def test_it_runs_here():
    """Or every other test would say why it does not, at length."""
    [here] = [i for i in jax_ctc.implementations() if i.name == "cuda"]
    assert here.declines is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_contract(case):
    """Through the public loss, as every implementation."""
    contract.check_value("cuda", case.name, "float32")
    contract.check_gradient("cuda", case.name, "float32")


@pytest.mark.parametrize("name", ["ragged", "some_empty"])
@pytest.mark.parametrize(
    "check",
    [*contract.INVARIANCES, contract.check_more_padding],
    ids=lambda check: check.__name__,
)
def test_invariance(check, name):
    """What must not matter does not."""
    check("cuda", name)


@pytest.mark.parametrize("check", guest_contract.CHECKS, ids=lambda x: x.__name__)
def test_transforms(check):
    """Every transform; those over eight devices where there are eight."""
    if check in NEED_EIGHT and jax.device_count() < 8:
        pytest.skip("it needs eight GPUs")
    check("cuda", MARK)


@functools.cache
def jitted(normalise):
    """Both functions, as programs."""
    return (
        jax.jit(functools.partial(cuda.forward, normalise=normalise)),
        jax.jit(functools.partial(cuda.forward_backward, normalise=normalise)),
    )


def run(batch, normalise=True):
    """Return log p and gradient; log p has the same bits where asked for alone."""
    alone, both = jitted(normalise)
    problem = problem_of(batch)
    log_z, gradient = map(np.asarray, both(problem))
    np.testing.assert_array_equal(np.asarray(alone(problem)), log_z)
    return log_z, gradient


@pytest.mark.parametrize("sizes", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(sizes):
    """However labels lie on lanes and warps; and the same bits 20 times."""
    batch = batch_of(*sizes, is_ragged=True)
    check(run, batch)
    first = run(batch)
    for _ in range(20):
        for array, again in zip(first, run(batch), strict=True):
            np.testing.assert_array_equal(array, again)


def test_many_utterances():
    """A thousand at a time, two blocks each."""
    check(run, batch_of(1024, 30, 6, 5, is_ragged=True))


@pytest.mark.parametrize("is_tied", [False, True], ids=["random", "tied"])
@pytest.mark.parametrize("shape", test_confident.SHAPES)
def test_sure_and_right(shape, is_tied):
    """What frames add is below the last bit of what they add to, and still counts."""
    test_confident.test_confident_models("cuda", shape, is_tied)


@pytest.mark.parametrize("classes", [3, 64, 129, 4100])
def test_rows(classes):
    """Rows that lanes hold, that warps go through, and that take a block of threads."""
    check(run, batch_of(2, 6, classes, 2))


def test_log_probs():
    """Scores that are taken as they are, sums above 1 among them."""
    batch = batch_of(3, 50, 6, 5, is_ragged=True)
    check(functools.partial(run, normalise=False), batch, normalise=False)


@pytest.mark.parametrize(("dtype", "eps"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_half_precision(dtype, eps):
    """Only the result is rounded, once."""
    scores, *rest = batch_of(3, 50, 6, 5, is_ragged=True)
    scores = np.asarray(jnp.asarray(scores).astype(dtype))
    check(run, (scores, *rest), atol=eps / 2 + 1e-6)


def test_neighbours_and_order():
    """Forty batches in another order, with other padding: each utterance's own bits."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        scores, labels, lengths, counts = batch_of(8, 90, 9, 30, is_ragged=True)
        scores = rng.normal(size=scores.shape).astype(np.float32)
        first = run((scores, labels, lengths, counts))
        order = rng.permutation(8)
        padded = np.where(
            (np.arange(90) < lengths[:, None])[:, :, None], scores, np.nan
        ).astype(np.float32)
        other = run((padded[order], labels[order], lengths[order], counts[order]))
        for array, again in zip(first, other, strict=True):
            np.testing.assert_array_equal(array[order], again)
