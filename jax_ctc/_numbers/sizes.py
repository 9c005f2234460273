"""Sizes of arrays: numbers, unless a program is exported that leaves them open.

`jax.export` may leave the batch and the frames to whoever calls the program. Such a
size adds and multiplies as a number does, but whether it is large, nobody can say yet.
"""

from typing import Any, TypeAlias

import jax
from jax import core

# An int, or a dimension of `jax.export.symbolic_shape`, which has no public type.
Size: TypeAlias = Any

USUAL_BATCH, USUAL_FRAMES, USUAL_LABELS = 32, 1500, 100


def is_open(*sizes: Size) -> bool:
    """Tell whether some of these are left open."""
    return any(map(jax.export.is_symbolic_dim, sizes))


def usual(size: Size, otherwise: int) -> int:
    """Return the size, or what is usual where it is open, to cut work into pieces."""
    return otherwise if is_open(size) else size


def smaller(a: Size, b: Size) -> Size:
    """Return the smaller of two sizes."""
    return core.min_dim(a, b) if is_open(a, b) else min(a, b)
