"""Mesh axes inside `shard_map`: give arrays that meet the same varying axes.

Inside `shard_map` a value either varies over a mesh axis or is the same on all of its
devices, and that is part of its type. A scan whose carry starts as a constant and then
varies is a type error; and a derivative taken inside a rule, with respect to scores
that do not vary while the labels do, would be summed over devices there and then, and
once more outside. Where all inputs vary alike, neither can happen; the sum is left to
the transpose of the cast, outside.
"""

import jax
from jax import lax


def vary_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Return the arrays, each varying over every axis that any of them varies over."""
    axes = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    union = frozenset().union(*axes)
    return tuple(
        lax.pcast(array, tuple(sorted(union - own)), to="varying")
        for array, own in zip(arrays, axes, strict=True)
    )
