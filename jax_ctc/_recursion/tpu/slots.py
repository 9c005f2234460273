"""Where a row of the lattice lies in a TPU's registers of 8 sublanes x 128 lanes.

State n of utterance b is in register r, sublane s, lane g * width + b, where

    n = (g * 8 + s) * registers + r

so that the neighbour of a state is the same place of the next register, and only the
last register of a row has to be rotated, once a frame. Utterances lie along lanes; few
of them leave room for several stretches of states, or groups, beside each other.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Shaped

SUBLANES, LANES = 8, 128

# A column has two rows, of two or three registers a place, and there are 64 in all.
_FEW_REGISTERS = 8
# Of one utterance alone. Beyond, everything of a frame would go through memory.
_MOST_REGISTERS = 16
MOST_LABELS = _MOST_REGISTERS * SUBLANES * LANES - 1


class Slots(NamedTuple):
    """How a batch of rows lies in registers: static."""

    width: int  # utterances side by side in the lanes, a power of two
    tiles: int  # of so many utterances
    registers: int  # of one row of one tile

    @property
    def groups(self) -> int:
        """Stretches of states side by side in the lanes."""
        return LANES // self.width

    @property
    def row(self) -> tuple[int, int, int]:
        """The shape of one row of one tile."""
        return self.registers, SUBLANES, LANES


def lay_out(batch: int, num_labels: int) -> Slots:
    """Return how rows of U + 1 states lie; U is MOST_LABELS at most.

    As many utterances side by side as there are, or as a few registers can hold.
    """
    width = 1
    while width < min(batch, LANES):
        width *= 2
    while _registers(num_labels, width) > _FEW_REGISTERS and width > 1:
        width //= 2
    return Slots(width, -(-batch // width), _registers(num_labels, width))


def _registers(num_labels: int, width: int) -> int:
    return -(-(num_labels + 1) // (SUBLANES * LANES // width))


def spread(
    rows: Shaped[Array, "K B n"], slots: Slots, fill: float | int
) -> Shaped[Array, "tiles K registers 8 128"]:
    """Lay out rows of states; `fill` where there is no state or no utterance."""
    frames, batch, states = rows.shape
    tiles, width, groups = slots.tiles, slots.width, slots.groups
    places = groups * SUBLANES * slots.registers
    more = ((0, 0), (0, tiles * width - batch), (0, places - states))
    x = jnp.pad(rows, more, constant_values=fill)
    x = x.reshape(frames, tiles, width, groups, SUBLANES, slots.registers)
    return x.transpose(1, 0, 5, 4, 3, 2).reshape(tiles, frames, *slots.row)


def collect(
    x: Shaped[Array, "tiles K registers 8 128"], slots: Slots, batch: int, states: int
) -> Shaped[Array, "K B n"]:
    """Undo `spread`."""
    tiles, frames = x.shape[:2]
    x = x.reshape(tiles, frames, slots.registers, SUBLANES, slots.groups, slots.width)
    x = x.transpose(1, 0, 5, 4, 3, 2).reshape(frames, tiles * slots.width, -1)
    return x[:, :batch, :states]


def spread_numbers(
    numbers: Shaped[Array, "K B"], slots: Slots, fill: float | int
) -> Shaped[Array, "tiles K 128"]:
    """Lay out a number for each utterance, the same in every group of its lanes."""
    frames, batch = numbers.shape
    more = ((0, 0), (0, slots.tiles * slots.width - batch))
    x = jnp.pad(numbers, more, constant_values=fill)
    x = x.reshape(frames, slots.tiles, 1, slots.width).transpose(1, 0, 2, 3)
    x = jnp.broadcast_to(x, (slots.tiles, frames, slots.groups, slots.width))
    return x.reshape(slots.tiles, frames, LANES)


def collect_sums(
    x: Shaped[Array, "tiles K 128"], slots: Slots, batch: int
) -> Shaped[Array, "K B"]:
    """Add up each utterance's numbers over the groups of its lanes."""
    tiles, frames = x.shape[:2]
    x = x.reshape(tiles, frames, slots.groups, slots.width).sum(2)
    return x.transpose(1, 0, 2).reshape(frames, tiles * slots.width)[:, :batch]
