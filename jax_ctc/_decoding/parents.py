"""Who is whose parent: prefixes are told apart by the names of their labels.

A prefix knows its own name and that of its parent, the prefix without the last label.
A pointer to the parent's place in the beam would not do: a prefix that was dropped and
is found again would no longer be recognised as the parent of one that stayed.

Two prefixes in one beam that share all 64 bits would be taken for one: paths through
one of them would be added to the other's, or not counted, and the beam's scores be off
by them; `log_prob`, read from the lattice, would still be right. In a frame there are
W**2 pairs to confuse, so this befalls one of 2**64 / (T * W**2) utterances: with
T = 1,000 and W = 64, one in 4e12.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._decoding.names import Name, constant
from jax_ctc._decoding.platforms import by_platform
from jax_ctc._numbers.masks import positions

_UNROLL = 8
EMPTY, NOBODY, NOBODYS_PARENT = 0, 0x7FB5D329, 0x68E31DA4


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

    def alive(name: Name, otherwise: int) -> Name:
        other = constant(last, otherwise)
        return jax.tree.map(lambda a, b: jnp.where(is_alive, a, b), name, other)

    name, parent = alive(name, NOBODY), alive(parent, NOBODYS_PARENT)
    return by_platform(
        name,
        parent,
        *(last, blank, total),
        cpu=_one_by_one,
        default=_all_at_once,
    )


def _one_by_one(
    name: Name,
    parent: Name,
    last: Int[Array, " W"],
    blank: Float[Array, " W"],
    total: Float[Array, " W"],
) -> Parents:
    """Compare all prefixes with one after the other: rows, which a CPU is quick at."""

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


def _all_at_once(
    name: Name,
    parent: Name,
    last: Int[Array, " W"],
    blank: Float[Array, " W"],
    total: Float[Array, " W"],
) -> Parents:
    """Compare all with all: one launch on an accelerator, where a loop is many."""
    is_parent = name.high[None] == parent.high[:, None]
    is_parent = is_parent & (name.low[None] == parent.low[:, None])  # [child, parent]
    mass = jnp.where(last[None] == last[:, None], blank[None], total[None])
    place = jnp.where(is_parent, positions(last.shape[0], 2), -1)
    return Parents(
        jnp.max(place, axis=1),
        jnp.max(jnp.where(is_parent, mass, -jnp.inf), axis=1),
    )
