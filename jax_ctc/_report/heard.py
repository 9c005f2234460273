"""What was heard beside what was to be read: the fewest labels that have to go or come.

    cost(i, j) = min of   cost(i-1, j)   + 1         label i was not heard
                          cost(i, j-1)   + price(i)  the j-th heard is not in there
                          cost(i-1, j-1)             they are the same

price(i), of whatever is heard in the gap after label i, is 0 where a wildcard stands in
it, and else 1. A label that was heard as another counts twice, once on either side.
"""

import itertools
from collections.abc import Sequence

import numpy as np

AGREED, UNHEARD, BEYOND, HOLE = "agreed", "unheard", "beyond", "hole"

# A stretch of labels of one kind, in the order of time.
Stretch = tuple[str, list[int]]


def stretches(
    transcript: Sequence[int], heard: Sequence[int], wildcard_id: int | None = None
) -> list[Stretch]:
    """Return transcript and what was heard as one row of stretches.

    Of the labels that they share as many as can be agree. A wildcard is a stretch of
    its own, of what was heard in its place; and of no labels if nothing was.
    """
    labels = [label for label in transcript if label != wildcard_id]
    is_hole = [False] * (len(labels) + 1)  # by gap: before each label, and at the end
    for place, label in enumerate(transcript):
        if label == wildcard_id:
            is_hole[sum(x != wildcard_id for x in transcript[:place])] = True
    steps = _walk_back(labels, list(heard), is_hole)
    return [
        (kind, [label for _, label in group if label is not None])
        for kind, group in itertools.groupby(steps, key=lambda step: step[0])
    ]


def _walk_back(
    labels: list[int], heard: list[int], is_hole: list[bool]
) -> list[tuple[str, int | None]]:
    """Return (kind, label) in order; a hole is also named once without a label."""
    costs = _costs(labels, np.array(heard, np.int64), is_hole)
    i, j = len(labels), len(heard)
    steps: list[tuple[str, int | None]] = [(HOLE, None)] * is_hole[i]
    while i or j:
        here, price = costs[i][j], 0 if is_hole[i] else 1
        is_same = i and j and labels[i - 1] == heard[j - 1]
        if is_same and here == costs[i - 1][j - 1]:
            i, j, step = i - 1, j - 1, (AGREED, labels[i - 1])
        elif j and here == costs[i][j - 1] + price:
            j, step = j - 1, (HOLE if is_hole[i] else BEYOND, heard[j - 1])
            steps.append(step)
            continue  # in the same gap
        else:
            i, step = i - 1, (UNHEARD, labels[i - 1])
        steps.append(step)
        steps += [(HOLE, None)] * is_hole[i]
    return steps[::-1]


def _costs(
    labels: list[int], heard: np.ndarray, is_hole: list[bool]
) -> list[list[int]]:
    """Return cost(i, j), row by row: labels 0..U by heard 0..H."""
    column = np.arange(len(heard) + 1)
    prices = [0 if hole else 1 for hole in is_hole]
    row = prices[0] * column
    rows = [row]
    for label, price in zip(labels, prices[1:], strict=True):
        last, row = row, row + 1
        same = np.where(heard == label, last[:-1], row[1:])
        row[1:] = np.minimum(row[1:], same)
        # The least over all k <= j of row[k] + price * (j - k).
        row = np.minimum.accumulate(row - price * column) + price * column
        rows.append(row)
    return [row.tolist() for row in rows]
