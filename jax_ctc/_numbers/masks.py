"""Lengths to masks: lengths are the truth, and every mask is derived from them here."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jax_ctc._numbers.sizes import Size


def positions(size: Size, ndim: int = 1) -> Int[Array, "..."]:
    """Return 0 .. size - 1 on the last of `ndim` axes, the others of size 1.

    int32 also under x64, and of full rank, because callers may run with dtype
    promotion or rank promotion forbidden.
    """
    return jnp.arange(size, dtype=jnp.int32).reshape((1,) * (ndim - 1) + (size,))


def is_inside(lengths: Int[Array, "..."], size: Size) -> Bool[Array, "... N"]:
    """Mark the first `lengths` of N = `size` places."""
    return positions(size, lengths.ndim + 1) < lengths[..., None]


def is_at(places: Int[Array, "..."], size: Size) -> Bool[Array, "... N"]:
    """Mark the one place of N = `size` given; none where it is outside."""
    return positions(size, places.ndim + 1) == places[..., None]
