"""Edit distances of a batch, and which edits they are."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Shaped

from jax_ctc._mesh.varying import steady_scan
from jax_ctc._numbers.masks import is_inside, positions


def count_edits(
    read: Any,
    lengths: Int[Array, " B"],
    references: Any,
    reference_lengths: Int[Array, " B"],
) -> tuple[Int[Array, " B"], Int[Array, " B"], Int[Array, " B"]]:
    """Return substitutions, insertions and deletions of the shortest edits.

    Sequences are pytrees of arrays [B, H] and [B, R]; items are equal where all arrays
    are. Of equally short edits it counts those that rapidfuzz, and so jiwer, finds.
    """
    before, after = _common_ends(read, lengths, references, reference_lengths)
    rows = reference_lengths - before - after  # R of each
    columns = lengths - before - after  # H of each
    read, references = _skip(read, before), _skip(references, before)
    substitutions, insertions = _walk(read, columns, references, rows)
    deletions = insertions + rows - columns
    return substitutions, insertions, deletions


# cost(i, j) = min of   cost(i-1, j)   + 1        delete the i-th of the reference
#                       cost(i, j-1)   + 1        insert the j-th that was read
#                       cost(i-1, j-1) + [they differ]
#
# A deletion is taken wherever it is one of the shortest ways, else an insertion where
# it is better than leaving out both, else the diagonal. Diagonal d holds the cells with
# i + j = d, all of which follow from the two before it.
def _walk(
    read: Any, columns: Int[Array, " B"], references: Any, rows: Int[Array, " B"]
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """Return substitutions and insertions, diagonal by diagonal."""
    num_rows = jax.tree.leaves(references)[0].shape[1]
    num_columns = jax.tree.leaves(read)[0].shape[1]
    i = positions(num_rows + 1, 2)

    def differ(diagonal: Any) -> Bool[Array, "B I"]:
        """Compare the i-th of the reference with the (d - i)-th that was read."""

        def pair(ours: Shaped[Array, "B H"], theirs: Shaped[Array, "B R"]) -> jax.Array:
            margin = ((0, 0), (num_rows + 1, num_rows + 1))
            turned = jnp.pad(ours[:, ::-1], margin)
            start = num_rows + 1 + num_columns - diagonal
            here = lax.dynamic_slice_in_dim(turned, start, num_rows + 1, axis=1)
            return here != jnp.pad(theirs, ((0, 0), (1, 0)))

        pairs = jax.tree.leaves(jax.tree.map(pair, read, references))
        return jnp.any(jnp.stack(pairs), axis=0)

    def step(carry: tuple, diagonal: Int[Array, ""]) -> tuple[tuple, None]:
        last, before_last, found = carry
        above = tuple(_shift(x) for x in last)  # (i-1, j) of the diagonal before
        corner = tuple(_shift(x) for x in before_last)  # (i-1, j-1)
        j = diagonal - i
        differs = differ(diagonal).astype(jnp.int32)
        cost = jnp.minimum(jnp.minimum(above[0], last[0]) + 1, corner[0] + differs)
        is_deletion = cost == above[0] + 1
        is_insertion = (last[0] < corner[0]) & (j > 1)
        substitutions = jnp.where(is_insertion, last[1], corner[1] + differs)
        insertions = jnp.where(is_insertion, last[2] + 1, corner[2])
        edge = (i == 0) | (j == 0)
        cells = (
            jnp.where(edge, diagonal, cost),
            jnp.where(edge, 0, jnp.where(is_deletion, above[1], substitutions)),
            jnp.where(
                i == 0,
                diagonal,
                jnp.where(edge, 0, jnp.where(is_deletion, above[2], insertions)),
            ),
        )
        is_end = diagonal == rows + columns
        here = tuple(
            jnp.take_along_axis(x, rows[:, None], axis=1, mode="clip")[:, 0]
            for x in cells[1:]
        )
        found = tuple(
            jnp.where(is_end, new, old) for new, old in zip(here, found, strict=True)
        )
        return (cells, last, found), None

    zeros = jnp.zeros_like(rows)
    row = tuple(zeros[:, None] + 0 * i for _ in range(3))
    diagonals = positions(num_rows + num_columns) + 1
    (_, _, found), _ = steady_scan(step, (row, row, (zeros, zeros)), diagonals)
    return found


def _shift(row: Int[Array, "B S"]) -> Int[Array, "B S"]:
    """Move a row one place to the right; what comes in first is never read."""
    return jnp.pad(row[:, :-1], ((0, 0), (1, 0)))


def _common_ends(
    read: Any,
    lengths: Int[Array, " B"],
    references: Any,
    reference_lengths: Int[Array, " B"],
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """Return how many items are equal at the start, and how many more at the end."""
    shorter = jnp.minimum(lengths, reference_lengths)
    before = _run(read, references, shorter)
    ends = _from_the_end(read, lengths), _from_the_end(references, reference_lengths)
    return before, _run(*ends, shorter - before)


def _run(one: Any, other: Any, most: Int[Array, " B"]) -> Int[Array, " B"]:
    """Count equal items from the start, up to `most`."""

    def equal(a: Shaped[Array, "B H"], b: Shaped[Array, "B R"]) -> jax.Array:
        size = min(a.shape[1], b.shape[1])
        return a[:, :size] == b[:, :size]

    pairs = jax.tree.leaves(jax.tree.map(equal, one, other))
    same = jnp.all(jnp.stack(pairs), axis=0)
    same = same & is_inside(most, same.shape[1])
    is_run = jnp.cumprod(same, axis=1, dtype=jnp.int32)
    return jnp.sum(is_run, axis=1, dtype=jnp.int32)


def _from_the_end(items: Any, lengths: Int[Array, " B"]) -> Any:
    """Return the items in reverse; past the first one anything."""

    def turn(x: Shaped[Array, "B H"]) -> Shaped[Array, "B H"]:
        return _take(x, lengths[:, None] - 1 - positions(x.shape[1], 2))

    return jax.tree.map(turn, items)


def _skip(items: Any, count: Int[Array, " B"]) -> Any:
    """Return the items without the first ones; past the last one anything."""

    def move(x: Shaped[Array, "B H"]) -> Shaped[Array, "B H"]:
        return _take(x, count[:, None] + positions(x.shape[1], 2))

    return jax.tree.map(move, items)


def _take(row: Shaped[Array, "B H"], index: Int[Array, "B H"]) -> jax.Array:
    if row.shape[1] == 0:
        return row
    return jnp.take_along_axis(row, index, axis=1, mode="clip")
