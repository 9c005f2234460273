"""Batches that lie on many devices, of which each process composes its own rows only.

Line i of step s is drawn from a generator seeded by (seed, s, i), and by nothing else.
So the batch is the same however many processes share it, and a run that resumes at
step s needs to know nothing of the steps before.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from examples.handwriting.lines import Digits, Lines, compose_lines


def make_mesh(devices: Sequence[Any]) -> Mesh:
    """Returns a mesh of one axis, "data", over the devices of all processes."""
    shape, kinds = (len(devices),), (AxisType.Auto,)
    return jax.make_mesh(shape, ("data",), kinds, devices=devices)


def by_rows(mesh: Mesh) -> NamedSharding:
    """Returns where a batch lies: some rows on each device."""
    return NamedSharding(mesh, PartitionSpec("data"))


def everywhere(mesh: Mesh) -> NamedSharding:
    """Returns where parameters lie: whole, on every device."""
    return NamedSharding(mesh, PartitionSpec())


def training_batch(
    digits: Digits, num_lines: int, mesh: Mesh, *, seed: int, step: int
) -> Lines:
    """Composes the batch of one step; this process draws the rows of its devices."""

    def rows(start: int, stop: int) -> Lines:
        lines = [
            compose_lines(np.random.default_rng((seed, step, row)), digits, 1)
            for row in range(start, stop)
        ]
        return Lines(*map(np.concatenate, zip(*lines, strict=True)))

    return _spread(rows, num_lines, mesh)


def held_out_batch(lines: Lines, mesh: Mesh) -> Lines:
    """Spreads lines that every process has, with empty lines up to an even share."""
    num_lines = -(-len(lines.widths) // mesh.size) * mesh.size
    missing = num_lines - len(lines.widths)
    padded = Lines(
        *(np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in lines)
    )

    def rows(start: int, stop: int) -> Lines:
        return Lines(*(field[start:stop] for field in padded))

    return _spread(rows, num_lines, mesh)


def _spread(rows: Callable[[int, int], Lines], num_lines: int, mesh: Mesh) -> Lines:
    """Builds global arrays out of rows(start, stop), asked for this process's only."""
    sharding = by_rows(mesh)
    places = sharding.addressable_devices_indices_map((num_lines,)).values()
    own = {index[0].indices(num_lines)[:2] for index in places if index}
    pieces = {start: rows(start, stop) for start, stop in own}

    def field(arrays: tuple[np.ndarray, ...]) -> jax.Array:
        by_start = dict(zip(pieces, arrays, strict=True))

        def piece(index: Any) -> np.ndarray:
            return by_start[index[0].indices(num_lines)[0]]

        shape = (num_lines, *arrays[0].shape[1:])
        return jax.make_array_from_callback(shape, sharding, piece)

    # Arrays of JAX in fields declared for NumPy: whoever reads them takes both.
    return Lines(*map(field, zip(*pieces.values(), strict=True)))  # pyright: ignore
