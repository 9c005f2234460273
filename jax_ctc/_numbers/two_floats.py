"""Sums and products in two floats: what is rounded, and what rounding lost of it.

References:
    D. E. Knuth, "The Art of Computer Programming", volume 2, section 4.2.2.
    T. J. Dekker, "A floating-point technique for extending the available precision",
    Numerische Mathematik 18 (1971).
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


def two_product(a: jax.Array, b: jax.Array) -> Pair:
    """Return a * b rounded, and exactly what rounding lost.

    Halves of a significand multiply exactly; whether a compiler fuses such a product
    with a sum or not changes nothing.
    """
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    error = (a_high * b_high - product) + a_high * b_low + a_low * b_high
    return product, error + a_low * b_low


def _halves(x: jax.Array) -> Pair:
    """Return the leading bits of a number, half of them at most, and the rest."""
    integer, bits = (jnp.int64, 27) if x.dtype == jnp.float64 else (jnp.int32, 12)
    leading = lax.bitcast_convert_type(x, integer) & jnp.asarray(-(2**bits), integer)
    high = lax.bitcast_convert_type(leading, x.dtype)
    return high, x - high


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
