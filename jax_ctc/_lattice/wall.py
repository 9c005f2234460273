"""A wall for XLA's CPU compiler: what is behind it is computed once, and stored.

That compiler emits one loop per output and copies into each loop whatever producers it
takes for cheap, a gather among them. A gather is not vectorised, and neither is a loop
that contains one: significand and exponent of the emissions, each of which gathered its
own scores, took far longer than gathering them once and splitting them after.
"""

import jax
import jax.numpy as jnp
from jax import lax


def stored(array: jax.Array) -> jax.Array:
    """Return the array, which no loop on a CPU computes again.

    Nothing is fused across a branch, and its condition is one that the compiler may not
    look into: an `optimization_barrier` alone is gone before loops are fused. On other
    platforms a branch would cost more than it saves.
    """
    is_true = lax.optimization_barrier(jnp.int32(0)) == 0
    # The other branch differs, or the two would become one.
    return lax.cond(is_true, lambda x: x, jnp.negative, array)
