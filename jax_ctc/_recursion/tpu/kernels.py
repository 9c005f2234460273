"""Two kernels: alpha through K frames, and beta back through them with what it meets.

Registers hold a column of the lattice from frame to frame, and nothing of it leaves the
chip but alpha before every block of frames, from which the second kernel computes the
alpha of a block again. A grid step is one block of one tile of utterances.

Shapes: a row is [registers, 8, 128] (slots.py), a column two rows, the blanks' and the
labels', each number in two or three parts (`Extended`). Emissions are logs.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Int

from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import Extended
from jax_ctc._recursion.tpu.column import (
    Column,
    advance,
    map_numbers,
    product,
    retreat,
)
from jax_ctc._recursion.tpu.slots import LANES, SUBLANES, Slots

# Frames of one turn of a loop, between two renormalisations: written out, so that a
# frame's loads overlap with the arithmetic of the one before. Significands grow at
# most 6-fold a frame, so a product of two stays below 4 * 6**8 * 6**8 < 2**44.
TURN = 8


class Cut(NamedTuple):
    """How the frames of a call are cut: static."""

    slots: Slots
    block: int  # frames of one grid step, a multiple of TURN
    is_ragged: bool  # some calls hold frames that are not their own
    unroll: int = TURN  # frames of a turn written out one after another; 1: not at all
    interpret: Any = False


# Arrays, their specifications, or in a kernel the memory of a block of them.
class Frames(NamedTuple):
    """K frames of all tiles: logs of emissions, over each frame's best."""

    blank: Any  # [tiles, K, 128]
    label: Any  # [tiles, K, registers, 8, 128]
    can_skip: Any  # [tiles, registers, 8, 128], 0 or 1
    first: Any  # [1]: the frames before this one are only held


class Met(NamedTuple):
    """alpha * beta in every frame, up to a factor that a frame's states share."""

    label: Any  # [tiles, K, registers, 8, 128]
    blank: Any  # [tiles, K, 128]: of all blanks of a lane together
    total: Any  # [tiles, K, 128]: of all states of a lane together


class Specs(NamedTuple):
    """How a grid of tiles x blocks of frames takes its arrays: static."""

    cut: Cut
    blocks: int
    is_reverse: bool

    def of_tile(self, x: Any) -> pl.BlockSpec:
        """One tile's part, the same in every step."""
        rest = (0,) * (x.ndim - 1)
        return pl.BlockSpec((1, *x.shape[1:]), lambda i, j: (i, *rest))

    def of_block(self, x: Any, size: int) -> pl.BlockSpec:
        """One tile's `size` rows for each block, from the right where it goes back."""
        rest = (0,) * (x.ndim - 2)

        def place(i: Any, j: Any) -> tuple:
            return i, self.blocks - 1 - j if self.is_reverse else j, *rest

        return pl.BlockSpec((1, size, *x.shape[2:]), place)

    def of_frames(self, frames: Frames) -> Frames:
        """The frames of a block."""
        size = self.cut.block
        return Frames(
            blank=self.of_block(frames.blank, size),
            label=self.of_block(frames.label, size),
            can_skip=self.of_tile(frames.can_skip),
            first=pl.BlockSpec(memory_space=pltpu.SMEM),
        )

    def options(self, name: str) -> dict[str, Any]:
        """The grid: tiles have nothing to do with one another, blocks come in order."""
        tiles = self.cut.slots.tiles
        order = pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"))
        return {
            "grid": (tiles, self.blocks),
            "compiler_params": order,
            "interpret": self.cut.interpret,
            "name": name,
        }


def forward(
    frames: Frames, alpha: Extended, cut: Cut, *, has_marks: bool
) -> tuple[Extended, Extended | None]:
    """Return alpha after the frames; and before each block of them, if it is wanted.

    alpha: parts [tiles, 2, registers, 8, 128]; those of the marks are
    [tiles, blocks, 2, registers, 8, 128], without what sums lose.
    """
    specs = Specs(cut, frames.blank.shape[1] // cut.block, is_reverse=False)
    tiles, column = alpha.significand.shape[0], alpha.significand.shape[1:]
    marks = None
    if has_marks:
        marks = jax.tree.map(
            lambda x: _like(x, (tiles, specs.blocks, *column)),
            alpha._replace(lost=None),
        )
    of_alpha = jax.tree.map(specs.of_tile, alpha)
    return pl.pallas_call(
        functools.partial(_forward, cut),
        in_specs=(specs.of_frames(frames), of_alpha),
        out_specs=(of_alpha, jax.tree.map(lambda x: specs.of_block(x, 1), marks)),
        out_shape=(jax.tree.map(lambda x: _like(x, x.shape), alpha), marks),
        scratch_shapes=[_memory(alpha, column), _of_blank(cut)],
        **specs.options("ctc_alpha"),
    )(frames, alpha)


def backward(
    frames: Frames,
    marks: Extended,
    scale: Int[Array, "tiles 1 128"],
    beta: Extended,
    cut: Cut,
) -> tuple[Met, Extended]:
    """Return what alpha and beta are together in each frame, and beta before them.

    scale: the exponent of Z, which alpha * beta sums to in every frame.
    """
    specs = Specs(cut, frames.blank.shape[1] // cut.block, is_reverse=True)
    column = beta.significand.shape[1:]
    met = Met(*(_like(x, x.shape) for x in (frames.label, frames.blank, frames.blank)))
    of_beta = jax.tree.map(specs.of_tile, beta)
    sums = pltpu.VMEM((cut.block, SUBLANES, LANES), jnp.float32)
    return pl.pallas_call(
        functools.partial(_backward, cut),
        in_specs=(
            specs.of_frames(frames),
            jax.tree.map(lambda x: specs.of_block(x, 1), marks),
            specs.of_tile(scale),
            of_beta,
        ),
        out_specs=(Met(*(specs.of_block(x, cut.block) for x in met)), of_beta),
        out_shape=(met, jax.tree.map(lambda x: _like(x, x.shape), beta)),
        scratch_shapes=[
            _memory(marks, (cut.block, *column)),
            _memory(beta, column),
            _of_blank(cut),
            Sums(sums, sums),
        ],
        **specs.options("ctc_beta"),
    )(frames, marks, scale, beta)


class Sums(NamedTuple):
    """Of a block's frames, over the registers of a row: [block, 8, 128]."""

    blank: Any
    total: Any


def _like(x: jax.Array, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """Return an array to be written, which varies over the mesh axes that x does."""
    varying = jax.typeof(x).manual_axis_type
    return jax.ShapeDtypeStruct(shape, x.dtype, manual_axis_type=varying)


def _memory(number: Extended, shape: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda x: pltpu.VMEM(shape, x.dtype), number)


def _of_blank(cut: Cut) -> list[Any]:
    """Return memory for the blank's emission in each frame of a block."""
    return [pltpu.VMEM((cut.block, LANES), dtype) for dtype in (jnp.float32, jnp.int32)]


def _forward(
    cut: Cut,
    frames: Frames,
    begin: Extended,
    end: Extended,
    marks: Extended | None,
    now: Extended,
    of_blank: Any,
) -> None:
    """Alpha of one block. All arguments but the first are memory."""
    _begin(begin, now)
    if marks is not None:
        _store(marks, (0, 0), map_numbers(extended.careless, _load(now, ())))
    emission, own = _reader(cut, frames, of_blank, pl.program_id(1))
    can_skip = frames.can_skip[0] != 0

    def frame(t: Any, alpha: Column) -> Column:
        return own(t, advance(alpha, emission(t), can_skip, cut.slots), alpha)

    _store(now, (), _sweep(cut, frame, _load(now, ())))
    jax.tree.map(_copy, now, end)


def _backward(
    cut: Cut,
    frames: Frames,
    marks: Extended,
    scale: Any,
    begin: Extended,
    met: Met,
    end: Extended,
    alphas: Extended,
    now: Extended,
    of_blank: Any,
    sums: Sums,
) -> None:
    """Alpha of one block again, then beta back through it."""
    _begin(begin, now)
    block = pl.num_programs(1) - 1 - pl.program_id(1)
    emission, own = _reader(cut, frames, of_blank, block)
    can_skip = frames.can_skip[0] != 0
    scale = jnp.broadcast_to(scale[...], (1, SUBLANES, LANES))

    def replay(t: Any, alpha: Column) -> Column:
        alpha = own(t, advance(alpha, emission(t), can_skip, cut.slots), alpha)
        _store(alphas, (t,), alpha)
        return alpha

    _sweep(cut, replay, _load(marks, (0, 0)))

    def frame(k: Any, beta: Column) -> Column:
        t = cut.block - 1 - k
        blank, label = product(
            _load(alphas, (t,)), map_numbers(extended.careless, beta), scale
        )
        met.label[0, t] = label
        blank = jnp.sum(blank, axis=0)
        sums.blank[t] = blank
        sums.total[t] = blank + jnp.sum(label, axis=0)
        return own(t, retreat(beta, emission(t), can_skip, cut.slots), beta)

    _store(now, (), _sweep(cut, frame, _load(now, ())))
    met.blank[0] = jnp.sum(sums.blank[...], axis=1)
    met.total[0] = jnp.sum(sums.total[...], axis=1)
    jax.tree.map(_copy, now, end)


def _sweep(cut: Cut, frame: Any, column: Column) -> Column:
    """Run frame(t, column) over a block, renormalising before every TURN of them."""

    def turn(i: Any, column: Column) -> Column:
        return lax.fori_loop(
            0,
            TURN,
            lambda k, column: frame(i * TURN + k, column),
            map_numbers(extended.renormalise, column),
            unroll=cut.unroll,
        )

    return lax.fori_loop(0, cut.block // TURN, turn, column)


def _reader(cut: Cut, frames: Frames, of_blank: Any, block: Any) -> tuple:
    """Return emission(t), and own(t, moved, as it was), of a frame of a block."""
    blank = extended.from_log(frames.blank[0])
    of_blank[0][...], of_blank[1][...] = blank.significand, blank.exponent
    first = frames.first[0] - block * cut.block

    def emission(t: Any) -> Column:
        rows = (x[pl.ds(t, 1), :][None] for x in of_blank)
        blank = (jnp.broadcast_to(row, (1, SUBLANES, LANES)) for row in rows)
        return Column(Extended(*blank), extended.from_log(frames.label[0, t]))

    def own(t: Any, moved: Column, column: Column) -> Column:
        if not cut.is_ragged:
            return moved
        return jax.tree.map(lambda x, y: jnp.where(t >= first, x, y), moved, column)

    return emission, own


def _begin(begin: Extended, now: Extended) -> None:
    """Take over the column that a tile begins with, in its first step."""

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        jax.tree.map(lambda source, to: to.__setitem__(..., source[0]), begin, now)


def _copy(source: Any, to: Any) -> None:
    to[0] = source[...]


def _load(memory: Extended, place: tuple) -> Column:
    """Read a column from memory of [*place, 2, registers, 8, 128]."""
    rows = (jax.tree.map(lambda x, row=row: x[(*place, row)], memory) for row in (0, 1))
    return Column(*rows)


def _store(memory: Extended, place: tuple, column: Column) -> None:
    for row, number in enumerate(column):
        for part, x in zip(memory, number, strict=True):
            if part is not None:
                part[(*place, row)] = x
