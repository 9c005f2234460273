"""Sums over many frames in two floats: the sum, and what rounding lost of it.

References:
    D. E. Knuth, "The Art of Computer Programming", volume 2, section 4.2.2.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jax_ctc._numbers.derivatives import with_derivative_of

Pair: TypeAlias = tuple[jax.Array, jax.Array]


def two_sum(a: jax.Array, b: jax.Array) -> Pair:
    """Return a + b rounded, and exactly what rounding lost."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def sum_frames(
    terms: Float[Array, "K B"],
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Sum over frames; what rounding loses goes to the second number."""
    zero = jnp.zeros((), terms.dtype)

    def add(a: Pair, b: Pair) -> Pair:
        total, lost = two_sum(a[0], b[0])
        return total, a[1] + b[1] + lost

    constants = lax.stop_gradient(terms)
    high, low = lax.reduce((constants, jnp.zeros_like(terms)), (zero, zero), add, (0,))
    return with_derivative_of(jnp.sum(terms, axis=0), high), low
