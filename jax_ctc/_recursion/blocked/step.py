"""One frame in extended range: the two rows of the lattice, and how they move.

    blank'[n] = p_t(blank)    * (blank[n] + label[n-1])
    label'[n] = p_t(labels_n) * (label[n] + blank[n] + can_skip[n] * label[n-1])

Both rows have U + 1 places: after the last label comes one that nothing is ever in,
for its emission is 0. Rows of one shape are computed in one piece: a TPU's compiler
makes two or three operations of a frame, of rows of two shapes seven.

The ways into a state are the same for every question: `advance` adds them up, and
`keep_back` (paths.py) takes the best.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import ZERO, Extended
from jax_ctc._numbers.masks import is_at
from jax_ctc._numbers.precision import accumulator


class State(NamedTuple):
    """One frame's column of alpha or beta, or one of each side (sides.py)."""

    blank: Extended  # [..., B, U+1]
    label: Extended  # [..., B, U+1]; label[U] = 0


class Emission(NamedTuple):
    """One frame's (or, stacked, one chunk's) emission probabilities over its best."""

    blank: Extended  # [..., B, 1], or [..., B, U+1]
    label: Extended  # [..., B, U+1]; of label[U] 0
    is_held: Bool[Array, "... 1 1"] | None = None  # past a stretch, before the next


class Ways(NamedTuple):
    """The ways into each state, before the frame's emission: stay, move, skip."""

    blank: tuple[Extended, Extended]  # from blank[n], label[n-1]
    label: tuple[Extended, Extended, Extended]  # from label[n], blank[n], label[n-1]


def ways_into(can_skip: Bool[Array, "... B U"], alpha: State) -> Ways:
    """Return what each state of the next frame can come from, nearest first."""
    blank, label = alpha
    previous = shift(label, by=1)  # label[n-1]
    skip = extended.select(_wide(can_skip), previous)
    return Ways((blank, previous), (label, blank, skip))


def advance(
    can_skip: Bool[Array, "... B U"], alpha: State, emission: Emission
) -> State:
    """Return alpha of the next frame, given its emission."""
    ways = ways_into(can_skip, alpha)
    blank, label = extended.plus(*ways.blank), extended.plus(*ways.label)
    return hold(emission, alpha, emit(State(blank, label), emission))


def retreat(can_skip: Bool[Array, "... B U"], beta: State, emission: Emission) -> State:
    """Return beta of the frame before, given this frame's emission."""
    ways = ways_out(can_skip, beta, emission)
    moved = State(extended.plus(*ways.blank), extended.plus(*ways.label))
    return hold(emission, beta, moved)


def ways_out(can_skip: Bool[Array, "... B U"], beta: State, emission: Emission) -> Ways:
    """Return what each state of the frame before can go on to, nearest first.

    With b = p_t(blank) * blank and l = p_t(labels) * label:
    blank'[n] = b[n] + l[n]
    label'[n] = l[n] + b[n+1] + can_skip[n+1] * l[n+1]
    """
    blank, label = emit(beta, emission)
    skip = shift(extended.select(_wide(can_skip), label), by=-1)
    return Ways((blank, label), (label, shift(blank, by=-1), skip))


def emit(state: State, emission: Emission) -> State:
    """Return emission * state."""
    return State(*map(extended.times, state, emission[:2]))


def initial(problem: Problem, *, is_mirrored: bool = False) -> State:
    """Return alpha before the first frame: blank[0] = 1.

    Of a mirrored utterance blank[U - N]: what pads the labels comes before them.
    """
    start = jnp.zeros_like(problem.num_labels)
    nowhere = start - 1
    if is_mirrored:
        start = problem.can_skip.shape[1] - problem.num_labels
    return State(_indicator(problem, start), _indicator(problem, nowhere))


def final(problem: Problem) -> State:
    """Return beta after the last frame: blank[N] = label[N-1] = 1."""
    last = problem.num_labels
    return State(_indicator(problem, last), _indicator(problem, last - 1))


def careful(state: State) -> State:
    """Return the state, whose sums from here on keep what rounding loses."""
    return State(*map(extended.careful, state))


def careless(state: State) -> State:
    """Return the state with what was lost added, rounded once."""
    return State(*map(extended.careless, state))


def zeros(problem: Problem) -> Float[Array, " B"]:
    """Return zeros made from the lengths: inside `shard_map` they vary as alpha does.

    A constant would not, and a scan may not start from a constant and then vary.
    """
    return jnp.zeros_like(problem.logit_lengths, accumulator(problem.scores.dtype))


def at_end(problem: Problem, row: Array, empty: float | int) -> Array:
    """Return row[b, N], or `empty`, less than all, where no path can end."""
    here = is_at(problem.num_labels, row.shape[1])
    return jnp.max(jnp.where(here, row, jnp.asarray(empty, row.dtype)), axis=1)


def _wide(can_skip: Bool[Array, "... B U"]) -> Bool[Array, "... B G"]:
    return pad_last(can_skip, 0, 1, False)


def shift(row: Extended, *, by: int) -> Extended:
    """Return the row moved to the right, or to the left; 0 where nothing came from."""

    def move(x: jax.Array, zero: int) -> jax.Array:
        return pad_last(x, by, -by, zero)

    return extended.map_parts(move, row)


def pad_last(x: jax.Array, left: int, right: int, value: float | int) -> jax.Array:
    """Pad the last axis; where a number is negative, cut."""
    config = [(0, 0, 0)] * (x.ndim - 1) + [(left, right, 0)]
    return lax.pad(x, jnp.asarray(value, x.dtype), config)


def held(emission: Emission, is_held: Bool[Array, "K ... 1 1"]) -> Emission:
    """Return a chunk's emission, 1 in the frames that hold the state as it is."""
    blank, label = (
        Extended(
            jnp.where(is_held, 1, x.significand), jnp.where(is_held, 0, x.exponent)
        )
        for x in emission[:2]
    )
    return Emission(blank, label, is_held)


def hold(emission: Emission, state: State, moved: State) -> State:
    """Return the state, not moved, where the frame is one that holds it.

    The padding of an utterance's end may move label[N-1] to blank[N]; between two
    stretches of one utterance nothing may move.
    """
    is_held = emission.is_held
    if is_held is None:
        return moved
    return jax.tree.map(lambda old, new: jnp.where(is_held, old, new), state, moved)


def _indicator(problem: Problem, place: Int[Array, " B"]) -> Extended:
    """Return a row that is 1 in the place given, 0 elsewhere."""
    size, one = problem.can_skip.shape[1] + 1, zeros(problem)[:, None] + 1
    return Extended(
        jnp.broadcast_to(one, (one.shape[0], size)),
        jnp.where(is_at(place, size), jnp.int32(0), jnp.int32(ZERO)),
    )
