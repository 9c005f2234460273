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
from jaxtyping import Array, Float, Int

from jax_ctc._decoding.names import Name, constant
from jax_ctc._numbers.masks import positions

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
    is_parent = name.high[:, None] == parent.high[None]  # [parent, child]
    is_parent &= name.low[:, None] == parent.low[None]
    place = jnp.where(is_parent, positions(last.shape[0])[:, None], -1)
    place = jnp.max(place, axis=0)  # over the first axis: a CPU is quick at whole rows

    def theirs(x: Any) -> Any:
        return x.at[jnp.maximum(place, 0)].get(mode="promise_in_bounds")

    mass = jnp.where(theirs(last) == last, theirs(blank), theirs(total))
    return Parents(place, jnp.where(place >= 0, mass, -jnp.inf))
