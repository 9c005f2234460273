"""One frame in registers: the two rows of the lattice, and how they move.

    blank'[n] = p_t(blank)    * (blank[n] + label[n-1])
    label'[n] = p_t(labels_n) * (label[n] + blank[n] + can_skip[n] * label[n-1])

The arithmetic is that of `_recursion/blocked`, on rows of registers [registers, 8, 128]
(slots.py). Places past the last state are labels of probability 0.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int, Shaped

from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import Extended
from jax_ctc._recursion.tpu.slots import LANES, SUBLANES, Slots


class Column(NamedTuple):
    """Alpha or beta of one frame, or what it emits (the blank then in one register)."""

    blank: Extended
    label: Extended


def advance(
    alpha: Column,
    emission: Column,
    can_skip: Bool[Array, "registers 8 128"],
    slots: Slots,
) -> Column:
    """Return alpha of the next frame, given its emission."""
    before = extended.map_parts(
        lambda x, zero: _from_left(x, slots, zero), alpha.label
    )  # label[n-1]
    skip = extended.select(can_skip, before)
    return Column(
        extended.times(extended.plus(alpha.blank, before), emission.blank),
        extended.times(extended.plus(alpha.label, alpha.blank, skip), emission.label),
    )


def retreat(
    beta: Column,
    emission: Column,
    can_skip: Bool[Array, "registers 8 128"],
    slots: Slots,
) -> Column:
    """Return beta of the frame before, given this frame's emission.

    With b = p_t(blank) * blank and l = p_t(labels) * label:
    blank'[n] = b[n] + l[n]
    label'[n] = l[n] + b[n+1] + can_skip[n+1] * l[n+1]
    """
    blank = extended.times(beta.blank, emission.blank)
    label = extended.times(beta.label, emission.label)
    enter = extended.plus(blank, extended.select(can_skip, label))
    after = extended.map_parts(
        lambda x, zero: _from_right(x, slots, zero), enter
    )  # at n + 1
    return Column(extended.plus(blank, label), extended.plus(label, after))


def product(
    alpha: Column, beta: Column, scale: Int[Array, "1 8 128"]
) -> tuple[Float[Array, "registers 8 128"], Float[Array, "registers 8 128"]]:
    """Return alpha * beta / 2**scale of the blanks and of the labels."""

    def multiply(a: Extended, b: Extended) -> jax.Array:
        both = extended.times(a, b)
        weight = extended.power_of_two(both.exponent - scale, jnp.dtype(jnp.float32))
        return both.significand * weight

    return multiply(alpha.blank, beta.blank), multiply(alpha.label, beta.label)


def map_numbers(function: Any, column: Column) -> Column:
    """Return the column with a function of each of its rows."""
    return Column(function(column.blank), function(column.label))


def _from_left(
    row: Shaped[Array, "registers 8 128"], slots: Slots, edge: float | int
) -> Shaped[Array, "registers 8 128"]:
    """Return row[n-1] at n, `edge` at 0."""
    last = lax.index_in_dim(row, slots.registers - 1, keepdims=False)
    moved = _rotated(last, slots, edge, right=True)[None]
    return _joined(moved, lax.slice_in_dim(row, 0, slots.registers - 1))


def _from_right(
    row: Shaped[Array, "registers 8 128"], slots: Slots, edge: float | int
) -> Shaped[Array, "registers 8 128"]:
    """Return row[n+1] at n, `edge` at the last of all places."""
    first = lax.index_in_dim(row, 0, keepdims=False)
    moved = _rotated(first, slots, edge, right=False)[None]
    return _joined(lax.slice_in_dim(row, 1, slots.registers), moved)


def _rotated(
    x: jax.Array, slots: Slots, edge: float | int, *, right: bool
) -> jax.Array:
    """Move a register by one place along the states: a sublane, or into a group."""
    end, sublane, lane = (
        (0, 1, slots.width)
        if right
        else (SUBLANES - 1, SUBLANES - 1, LANES - slots.width)
    )
    moved = pltpu.roll(x, sublane, 0)
    beside: Any = jnp.asarray(edge, x.dtype)
    if slots.groups > 1:
        of_group = lax.broadcasted_iota(jnp.int32, x.shape, 1)
        at_end = of_group < slots.width if right else of_group >= LANES - slots.width
        beside = jnp.where(at_end, beside, pltpu.roll(moved, lane, 1))
    is_end = lax.broadcasted_iota(jnp.int32, x.shape, 0) == end
    return jnp.where(is_end, beside, moved)


def _joined(*parts: jax.Array) -> jax.Array:
    return jnp.concatenate([part for part in parts if part.shape[0]])
