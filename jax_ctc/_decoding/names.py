"""Names of label sequences: a rolling hash of 64 bits, in two streams of 32.

Two sequences share a name with probability 2**-64. What that would do is said where
names are compared.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt

# Odd multipliers and offsets of the two streams, and of their last mixing.
_STREAMS = (
    (np.uint32(0x9E3779B1), np.uint32(0x27D4EB2F)),
    (np.uint32(0x85EBCA77), np.uint32(0x165667B1)),
)
_MIX = np.uint32(0x2C1B3C6D)


class Name(NamedTuple):
    """The hash of a sequence, in two streams."""

    high: UInt[Array, "..."]
    low: UInt[Array, "..."]


def constant(like: Int[Array, "..."], value: int) -> Name:
    """Return one name for all."""
    every = jnp.full_like(like, value, jnp.uint32)
    return Name(every, every)


def longer(name: Name, label: Int[Array, "..."]) -> Name:
    """Return the name of the sequence that is longer by one label."""
    streams = []
    for part, (multiplier, offset) in zip(name, _STREAMS, strict=True):
        part = (part + label.astype(jnp.uint32) + offset) * multiplier
        part = (part ^ (part >> np.uint32(15))) * _MIX
        streams.append(part ^ (part >> np.uint32(13)))
    return Name(*streams)
