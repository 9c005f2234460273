"""A scan around what is differentiated twice: JAX drops the rules of its body there.

Where a gradient through `lax.scan` is differentiated again, JAX differentiates what a
`custom_jvp` of the body computes, and no longer its rule: what has none is an error,
and what is made of bits would have a derivative of 0. A loop of Python keeps all rules.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jax_ctc
from tests.cases import more

N, B, T, V, D = 3, 2, 7, 5, 6
LABELS = np.array([[1, 2, 2], [3, 4, 0]])
HOLES = np.array([[1, 9, 2], [3, 4, 0]])
LENGTHS = np.array([7, 5]), np.array([3, 2])
KERNEL = np.random.default_rng(6).normal(size=(V, D))
NAMED = {"implementation": "blocked"}


def squares(tree):
    """Sum the squares of what is finite."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum(jnp.sum(jnp.where(jnp.isfinite(x), x, 0) ** 2) for x in leaves)


CALLS = {
    "loss": lambda x: jax_ctc.ctc_loss(x, LABELS, *LENGTHS),
    "blocked": lambda x: jax_ctc.ctc_loss(x, LABELS, *LENGTHS, **NAMED),
    "wildcards": lambda x: jax_ctc.ctc_loss(x, HOLES, *LENGTHS, wildcard_id=9),
    "linear": lambda x: jax_ctc.linear_ctc_loss(x, KERNEL, None, LABELS, *LENGTHS),
    "posteriors": lambda x: jax_ctc.ctc_posteriors(x, LABELS, *LENGTHS),
    "entropy": lambda x: jax_ctc.alignment_entropy(x, LABELS, *LENGTHS),
    "best path": lambda x: jax_ctc.ctc_align(x, LABELS, *LENGTHS),
    "samples": lambda x: jax_ctc.sample_alignments(
        jax.random.key(0), x, LABELS, *LENGTHS, num_samples=2
    ),
}


SLOW = ("posteriors", "entropy", "wildcards", "linear")


@pytest.mark.parametrize(
    "name",
    ["loss"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in SLOW]
    + [more(name) for name in ("blocked", "best path", "samples")],
)
def test_second_derivatives_through_a_scan(x64, name):
    """Forward over reverse, and reverse over reverse, are those without a scan."""
    rng = np.random.default_rng(0)
    x, direction = rng.normal(size=(2, N, B, T, V))

    def scanned(x):
        return lax.scan(lambda sum, x: (sum + squares(CALLS[name](x)), None), 0.0, x)[0]

    def looped(x):
        return sum(squares(CALLS[name](x)) for x in x)

    @jax.jit
    def products(x, direction):
        found = []
        for function in (looped, scanned):
            gradient = jax.grad(function)
            found += [
                jax.jvp(gradient, (x,), (direction,))[1],
                jax.grad(lambda x, g=gradient: jnp.vdot(g(x), direction))(x),
            ]
        return found

    expected, *others = products(x, direction)
    assert np.abs(expected).max() > 0.1
    for other in others:
        np.testing.assert_allclose(other, expected, rtol=0, atol=1e-9)
