"""How a column of the lattice lies in arrays, and how it moves from frame to frame.

As two rows, blank [B, U+1] and label [B, U], it takes the fewest operations: a blank
has two ways in, a label three. Woven into one row [B, 2U+1], states in their order

    blank[0] label[0] blank[1] label[1] ... blank[U]
    alpha'[s] = p_t(s) * (alpha[s] + alpha[s-1] + can_skip[s] * alpha[s-2])

every state has three, but there is half as much to launch; and a loop that takes four
frames a turn need not copy a column out of the way of the next. For accelerators, where
starting an operation costs more than the operation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from jax_ctc import _extended as extended
from jax_ctc._extended import Extended
from jax_ctc._mask import positions
from jax_ctc._recursion.blocked.step import (
    Emission,
    State,
    advance,
    emit,
    followers,
    hold,
    pad,
    take,
    ways_on,
)
from jax_ctc._types import Lattice


class Layout(NamedTuple):
    """What a column is made of, and what takes it to the next frame."""

    pack: Callable[[State], Any]
    unpack: Callable[[Any], tuple]  # blank and label, of any arrays of a column
    pack_emission: Callable[[Emission], Any]
    bare: Callable[[Any], Any]  # the emission as a column, and nothing else
    # advance(lattice)(alpha, emission) -> alpha of the next frame
    advance: Callable[[Lattice], Callable[[Any, Any], Any]]
    # retreat(lattice)(emission * beta, emission) -> beta of the frame before
    retreat: Callable[[Lattice], Callable[[Any, Any], Any]]
    # emit(beta, emission) -> emission * beta
    emit: Callable[[Any, Any], Any]
    unroll: int = 1  # frames in one turn of the loop


def _advance_rows(lattice: Lattice) -> Callable[[State, Emission], State]:
    return lambda alpha, emission: advance(lattice, alpha, emission)


def _retreat_rows(lattice: Lattice) -> Callable[[State, Emission], State]:
    may_follow = followers(lattice)

    def step(emitted: State, emission: Emission) -> State:
        ways = ways_on(may_follow, emitted)
        moved = State(extended.plus(*ways.blank), extended.plus(*ways.label))
        return hold(emission, emitted, moved)

    return step


TWO_ROWS = Layout(
    pack=lambda state: state,
    unpack=lambda column: column,
    pack_emission=lambda emission: emission,
    bare=lambda emission: State(emission.blank, emission.label),
    advance=_advance_rows,
    retreat=_retreat_rows,
    emit=emit,
)


def _weave(blank: jax.Array, label: jax.Array) -> Array:
    """Return [..., B, 2U+1] of [..., B, U+1] (or of [..., B, 1]) and [..., B, U].

    By spreading states out: a stacked pair would be padded to a TPU's 128 lanes.
    """
    num_labels = label.shape[-1]

    def spread(row: jax.Array, first: int, last: int) -> jax.Array:
        config = [(0, 0, 0)] * (row.ndim - 1) + [(first, last, 1)]
        return lax.pad(row, jnp.zeros((), row.dtype), config)

    if blank.shape[-1] == num_labels + 1:
        blank = spread(blank, 0, 0)
    is_label = positions(2 * num_labels + 1, label.ndim) % 2 == 1
    return jnp.where(is_label, spread(label, 1, min(num_labels, 1)), blank)


def _unweave(row: Any) -> tuple[Any, Any]:
    blank = jax.tree.map(lambda x: x[..., 0::2], row)
    return blank, jax.tree.map(lambda x: x[..., 1::2], row)


def _weave_all(of: State | Emission) -> Any:
    return jax.tree.map(_weave, of.blank, of.label)


def _woven_skips(lattice: Lattice) -> Bool[Array, "B S"]:
    """Tell which states may be entered from two states before."""
    never = jnp.zeros((len(lattice.can_skip), 1), bool)  # a blank
    return _weave(never, lattice.can_skip)


def _shifted(row: Extended, states: int) -> Extended:
    """Return the row `states` further on, 0 where nothing was before."""
    for _ in range(abs(states)):
        row = pad(row, left=states > 0)
        row = take(row, slice(None, -1) if states > 0 else slice(1, None))
    return row


def _advance_row(lattice: Lattice) -> Callable[[Extended, Extended], Extended]:
    skips = _woven_skips(lattice)

    def step(alpha: Extended, emission: Extended) -> Extended:
        skip = extended.select(skips, _shifted(alpha, 2))
        ways = extended.plus(alpha, _shifted(alpha, 1), skip)
        return extended.times(ways, emission)

    return step


def _retreat_row(lattice: Lattice) -> Callable[[Extended, Extended], Extended]:
    skips = _woven_skips(lattice)
    padded = jnp.pad(skips[:, 2:], ((0, 0), (0, 2)))
    may_follow = padded[:, : skips.shape[1]]  # of which there may be one

    def step(emitted: Extended, emission: Extended) -> Extended:
        del emission
        skip = extended.select(may_follow, _shifted(emitted, -2))
        return extended.plus(emitted, _shifted(emitted, -1), skip)

    return step


ONE_ROW = Layout(
    pack=_weave_all,
    unpack=_unweave,
    pack_emission=_weave_all,
    bare=lambda emission: emission,
    advance=_advance_row,
    retreat=_retreat_row,
    emit=extended.times,
    unroll=4,
)
