"""The precision that scores are computed in."""

import jax.numpy as jnp


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """Return the precision that scores of this dtype are computed in."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
