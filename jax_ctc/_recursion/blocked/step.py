"""One frame in extended range: the two rows of the lattice, and how they move.

    blank'[n] = p_t(blank)    * (blank[n] + label[n-1])
    label'[n] = p_t(labels_n) * (label[n] + blank[n] + can_skip[n] * label[n-1])

The ways into a state are the same for every question: `advance` adds them up, and
`keep_back` (paths.py) takes the best.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice.protocol import Emissions
from jax_ctc._lattice.topology import Lattice
from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import ZERO, Extended
from jax_ctc._numbers.masks import is_at
from jax_ctc._numbers.precision import accumulator


class State(NamedTuple):
    """One frame's column of alpha or beta."""

    blank: Extended  # [B, U+1]
    label: Extended  # [B, U]


class Emission(NamedTuple):
    """One frame's (or, stacked, one chunk's) emission probabilities over its best."""

    blank: Extended  # [..., B, 1]
    label: Extended  # [..., B, U]
    is_held: Bool[Array, "..."] | None = None  # past a stretch, before the next one


class Ways(NamedTuple):
    """The ways into each state, before the frame's emission: stay, move, skip."""

    blank: tuple[Extended, Extended]  # from blank[n], label[n-1]
    label: tuple[Extended, Extended, Extended]  # from label[n], blank[n], label[n-1]


def ways_into(lattice: Lattice, alpha: State) -> Ways:
    """Return what each state of the next frame can come from, nearest first."""
    blank, label = alpha  # [B, U+1], [B, U]
    previous = pad(label, left=True)  # label[n-1], [B, U+1]
    stay = take(blank, slice(None, -1))  # [B, U]
    skip = extended.select(lattice.can_skip, take(previous, slice(None, -1)))
    return Ways((blank, previous), (label, stay, skip))


def advance(lattice: Lattice, alpha: State, emission: Emission) -> State:
    """Return alpha of the next frame, given its emission."""
    ways = ways_into(lattice, alpha)
    moved = State(
        extended.times(extended.plus(*ways.blank), emission.blank),
        extended.times(extended.plus(*ways.label), emission.label),
    )
    return hold(emission, alpha, moved)


def followers(lattice: Lattice) -> Bool[Array, "B U"]:
    """Tell which labels may step straight to the next: can_skip[n+1]."""
    may_follow = jnp.pad(lattice.can_skip[:, 1:], ((0, 0), (0, 1)))
    return may_follow[:, : lattice.can_skip.shape[1]]  # U may be 0


def retreat(may_follow: Bool[Array, "B U"], beta: State, emission: Emission) -> State:
    """Return beta of the frame before, given this frame's emission.

    With b = p_t(blank) * blank and l = p_t(labels) * label:
    blank'[n] = b[n] + l[n]
    label'[n] = l[n] + b[n+1] + may_follow[n] * l[n+1]    may_follow[n] = can_skip[n+1]
    """
    ways = ways_out(may_follow, beta, emission)
    moved = State(extended.plus(*ways.blank), extended.plus(*ways.label))
    return hold(emission, beta, moved)


def emit(beta: State, emission: Emission) -> State:
    """Return emission * beta: the ways on from a state, its own frame included."""
    return State(
        extended.times(beta.blank, emission.blank),
        extended.times(beta.label, emission.label),
    )


def ways_out(may_follow: Bool[Array, "B U"], beta: State, emission: Emission) -> Ways:
    """Return what each state of the frame before can go on to, nearest first."""
    return ways_on(may_follow, emit(beta, emission))


def ways_on(may_follow: Bool[Array, "B U"], emitted: State) -> Ways:
    """Return the same, given emission * beta."""
    blank, label = emitted  # [B, U+1], [B, U]
    here = pad(label, left=False)  # [B, U+1], no label to follow the last
    skip = extended.select(may_follow, take(here, slice(1, None)))  # [B, U]
    return Ways((blank, here), (label, take(blank, slice(1, None)), skip))


def initial(lattice: Lattice, zero: Float[Array, " B"]) -> State:
    """Return alpha before the first frame: blank[0] = 1."""
    num_labels = lattice.can_skip.shape[1]
    return State(
        _indicator(jnp.zeros_like(lattice.num_labels), num_labels + 1, zero),
        _indicator(jnp.full_like(lattice.num_labels, -1), num_labels, zero),
    )


def final(lattice: Lattice, zero: Float[Array, " B"]) -> State:
    """Return beta after the last frame: blank[N] = label[N-1] = 1."""
    num_labels = lattice.can_skip.shape[1]
    end = lattice.num_labels
    return State(
        _indicator(end, num_labels + 1, zero),
        _indicator(end - 1, num_labels, zero),
    )


def zeros(emissions: Emissions) -> Float[Array, " B"]:
    """Return zeros made from the lengths: inside `shard_map` they vary as alpha does.

    A constant would not, and a scan may not start from a constant and then vary; nor
    would the scores do, whose classes may lie on several devices when alpha does not.
    """
    return jnp.zeros_like(emissions.logit_lengths, accumulator(emissions.scores.dtype))


def pad(row: Extended, *, left: bool) -> Extended:
    """Add one state that holds 0 at the left, or at the right."""
    low, high = int(left), int(not left)

    def add(x: jax.Array, fill: int) -> jax.Array:
        return lax.pad(x, jnp.asarray(fill, x.dtype), ((0, 0, 0), (low, high, 0)))

    return Extended(add(row.significand, 1), add(row.exponent, ZERO))


def take(row: Extended, states: slice) -> Extended:
    """Return some states of a row."""
    return Extended(row.significand[:, states], row.exponent[:, states])


def held(emission: Emission, is_held: Bool[Array, " K"]) -> Emission:
    """Return a chunk's emission, 1 in the frames that hold the state as it is."""

    def one_where_held(number: Extended) -> Extended:
        here = is_held[:, None, None]
        return Extended(
            jnp.where(here, 1, number.significand), jnp.where(here, 0, number.exponent)
        )

    return Emission(
        one_where_held(emission.blank), one_where_held(emission.label), is_held
    )


def hold(emission: Emission, state: State, moved: State) -> State:
    """Return the state, not moved, where the frame is one that holds it.

    The padding of an utterance's end may move label[N-1] to blank[N]; between two
    stretches of one utterance nothing may move.
    """
    is_held = emission.is_held
    if is_held is None:
        return moved
    return jax.tree.map(lambda old, new: jnp.where(is_held, old, new), state, moved)


def _indicator(
    place: Int[Array, " B"], num_states: int, zero: Float[Array, " B"]
) -> Extended:
    """Return 1 in the state at the place given, 0 in the others."""
    one = jnp.ones((1, num_states), zero.dtype) + zero[:, None]  # [B, n]
    return Extended(
        one, jnp.where(is_at(place, num_states), jnp.int32(0), jnp.int32(ZERO))
    )
