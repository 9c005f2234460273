"""Who is whose parent: prefixes are told apart by a hash of their labels.

A prefix is known by 64 bits, a rolling hash of its labels in two streams of 32 bits,
and knows those of its parent, the prefix without the last label. A pointer to the
parent's place in the beam would not do: a prefix that was dropped and is found again
would no longer be recognised as the parent of one that stayed.

Two prefixes in one beam that share all 64 bits would be taken for one: of a label
sequence the paths through one of them would be added to another's, or not counted, and
the beam's scores be off by them; `log_prob`, read from the lattice, would still be
right. In a frame there are W**2 pairs to confuse, so this befalls one of
2**64 / (T * W**2) utterances: with T = 1,000 and W = 64, one in 4e12.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt

# Odd multipliers and offsets of the two streams, and of their last mixing.
_STREAMS = (
    (np.uint32(0x9E3779B1), np.uint32(0x27D4EB2F)),
    (np.uint32(0x85EBCA77), np.uint32(0x165667B1)),
)
_MIX = np.uint32(0x2C1B3C6D)
_UNROLL = 8
# Names that no prefix has but by chance: of a place that is empty, and of its parent.
_NOBODY, _NOBODYS_PARENT = np.uint32(0x7FB5D329), np.uint32(0x68E31DA4)


class Name(NamedTuple):
    """The hash of a prefix, in two streams."""

    high: UInt[Array, " W"]
    low: UInt[Array, " W"]


def empty(like: Int[Array, " W"]) -> tuple[Name, Name]:
    """Return the names of the empty prefix and of its parent, which there is not."""
    zeros = jnp.zeros_like(like, jnp.uint32)
    return Name(zeros, zeros), Name(zeros + _NOBODYS_PARENT, zeros + _NOBODYS_PARENT)


def child(name: Name, label: Int[Array, " W"]) -> Name:
    """Return the name of the prefix that is longer by one label."""
    streams = []
    for part, (multiplier, offset) in zip(name, _STREAMS, strict=True):
        part = (part + label.astype(jnp.uint32) + offset) * multiplier
        part = (part ^ (part >> np.uint32(15))) * _MIX
        streams.append(part ^ (part >> np.uint32(13)))
    return Name(*streams)


class Parents(NamedTuple):
    """Of each prefix: its parent's place in the beam, and what the parent gives it."""

    place: Int[Array, " W"]  # -1: not in the beam
    mass: Float[Array, " W"]  # paths of the parent that the last label may follow


def find_parents(
    name: Name,
    parent: Name,
    last: Int[Array, " W"],
    blank: Float[Array, " W"],
    total: Float[Array, " W"],
) -> Parents:
    """Look for each prefix's parent among all; those at -inf are nobody's.

    A label that repeats the parent's last follows only its paths that end in blank.
    """
    is_alive = total > -jnp.inf
    name = _unless(is_alive, name, _NOBODY)
    parent = _unless(is_alive, parent, _NOBODYS_PARENT)

    def look_at(place: Any, found: Parents) -> Parents:
        def of(row: jax.Array) -> jax.Array:
            return lax.dynamic_slice_in_dim(row, place, 1)

        is_parent = (of(name.high) == parent.high) & (of(name.low) == parent.low)
        mass = jnp.where(of(last) == last, of(blank), of(total))
        return Parents(
            jnp.where(is_parent, jnp.int32(place), found.place),
            jnp.where(is_parent, mass, found.mass),
        )

    nobody = Parents(jnp.full_like(last, -1), jnp.full_like(total, -jnp.inf))
    width = last.shape[0]
    return lax.fori_loop(0, width, look_at, nobody, unroll=min(width, _UNROLL))


def _unless(is_alive: Bool[Array, " W"], name: Name, other: np.uint32) -> Name:
    return Name(*(jnp.where(is_alive, part, other) for part in name))
