"""Sums over many frames in two floats: the sum, and what rounding lost of it.

References:
    D. E. Knuth, "The Art of Computer Programming", volume 2, section 4.2.2.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a + b rounded, and exactly what rounding lost."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def sum_frames(
    terms: Float[Array, "K B"],
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Sum over frames by halves; what rounding loses goes to the second number."""
    high, low = terms, jnp.zeros_like(terms)
    while high.shape[0] > 1:
        if high.shape[0] % 2:
            high, low = (jnp.pad(x, ((0, 1), (0, 0))) for x in (high, low))
        total, error = two_sum(high[0::2], high[1::2])
        high, low = total, low[0::2] + low[1::2] + error
    return high[0], low[0]
