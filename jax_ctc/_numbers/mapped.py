"""What `vmap` hands to a primitive of ours."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def in_front(
    arrays: Sequence[jax.Array], axes: Sequence[int | None]
) -> list[jax.Array]:
    """Return the arrays with the mapped axis first; along it, those without repeat."""
    pairs = list(zip(arrays, axes, strict=True))
    [size] = {x.shape[axis] for x, axis in pairs if axis is not None}
    return [
        jnp.broadcast_to(x[None], (size, *x.shape))
        if axis is None
        else jnp.moveaxis(x, axis, 0)
        for x, axis in pairs
    ]
