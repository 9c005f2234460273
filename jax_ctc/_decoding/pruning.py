"""Which extensions of which prefixes a frame looks at: far fewer than W * V.

Prefixes i = 1, 2, .. and classes r = 1, 2, .. are both sorted, the best first. Without
a language model prefix i extended by class r is beaten by the extensions of prefixes
up to i by classes up to r: i * r - 1 of them, less one for each prefix whose last label
that class repeats, for a repeat counts only the paths that end in blank. (Where such an
extension is in the beam already, that prefix beats it too.) So the beam of W can hold
it only if

    i (r - 1) - 1 < W

and nothing is lost by looking at r <= 1 + (W + 1) / i alone. Rows are taken in blocks,
each of about four times as many as the one before, with as many classes as the first of
them needs: a block is an outer sum, which costs less than the few candidates that it
has too many, and each is compiled.

A language model has another opinion of every prefix, so the proof fails. There the same
hyperbola is drawn wider, by `slack`: i (r - 1) <= slack * W, and closer, in blocks that
double: there a candidate costs a lookup.
"""

from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """Rows first .. first + rows - 1, each with its best `columns` classes."""

    first: int
    rows: int
    columns: int


class Candidates(NamedTuple):
    """The extensions looked at in a frame, block after block, row after row."""

    blocks: tuple[Block, ...]
    row: np.ndarray  # [M] int32, prefix of each candidate
    column: np.ndarray  # [M] int32, rank of its class
    start: np.ndarray  # [W] int32, where each prefix's candidates begin
    count: np.ndarray  # [W] int32, how many it has

    @property
    def num_classes(self) -> int:
        """Classes of a frame that are looked at."""
        return self.blocks[0].columns


def candidates(width: int, num_labels: int, slack: int | None) -> Candidates:
    """Lay out what a beam of `width` looks at, of `num_labels` classes (no blank).

    slack: 1 loses nothing without a language model; None looks at everything.
    """
    growth = 3 if slack == 1 else 1  # as above
    blocks, first = [], 0
    while first < width:
        rows = min(growth * first + 1, width - first)
        columns = num_labels
        if slack is not None:
            columns = min(columns, 1 + slack * width // (first + 1))
        if blocks and blocks[-1].columns == columns:
            before = blocks.pop()
            blocks.append(Block(before.first, before.rows + rows, columns))
        else:
            blocks.append(Block(first, rows, columns))
        first += rows
    count = np.concatenate([np.full(b.rows, b.columns, np.int32) for b in blocks])
    start = np.cumsum(count, dtype=np.int32) - count
    row = np.repeat(np.arange(width, dtype=np.int32), count)
    column = np.arange(count.sum(), dtype=np.int32) - start[row]
    return Candidates(tuple(blocks), row, column, start, count)
