"""The k largest of a row, against NumPy's stable sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ctc._decoding import largest as largest_module
from jax_ctc._decoding.largest import largest


def rows(n):
    """Rows full of ties, infinities, both zeros, and numbers of every size."""
    rng = np.random.default_rng(n)
    values = rng.normal(size=(2, 3, n)) * 10.0 ** rng.integers(-30, 30, (2, 3, n))
    values[0, 0] = 0.0
    values[0, 0, ::2] = -0.0
    values[0, 1] = np.round(rng.normal(size=n))
    values[0, 2, : n // 2] = -np.inf
    values[1, 0] = -np.inf
    values[1, 1, n // 3] = np.inf
    return values.astype(np.float32)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 7), (33, 5), (100, 17), (1100, 40)])
def test_against_a_stable_sort(n, k):
    """The first of equals goes first, and -0 equals 0."""
    values = rows(n)
    found, index = jax.jit(largest, static_argnums=1)(values, k)
    expected = np.argsort(-values, axis=-1, kind="stable")[..., :k]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(found, np.take_along_axis(values, expected, -1))


@pytest.mark.parametrize("platform", ["gpu", "default"])
def test_accelerators_choose_the_same(monkeypatch, platform):
    """What runs elsewhere finds the places that are found here."""
    values = jnp.asarray(rows(65))
    _, here = jax.jit(largest, static_argnums=1)(values, 9)
    monkeypatch.setattr(
        largest_module, "by_platform", lambda *args, **choice: choice[platform](*args)
    )
    _, elsewhere = largest(values, 9)
    np.testing.assert_array_equal(here, elsewhere)


def test_float64(x64):
    """Numbers that float32 cannot tell apart."""
    values = 1 + 1e-12 * np.random.default_rng(0).normal(size=(4, 50))
    _, index = jax.jit(largest, static_argnums=1)(jnp.asarray(values), 6)
    np.testing.assert_array_equal(index, np.argsort(-values, -1, "stable")[:, :6])
