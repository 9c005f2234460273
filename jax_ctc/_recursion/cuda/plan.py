"""How a problem is laid over warps, and how its frames are cut.

The numbers of `source/`: a lane has R labels. Where these are fewer than 8, a step has
F = 8 / R frames, and a warp repeats so many lanes of its left neighbour as hold F
labels; else a step is a frame.
"""

import math
from typing import NamedTuple

MOST_LABELS = 4095

_LANES = 32
_ALIGNED = 8  # frames of a group are a multiple
_READERS = 4  # warps that read for those that walk, where R < 8
_WRITERS = 4  # warps that write the gradient, where R < 8
# Warps that walk, at most, for each R: to the middle, and back.
_THERE = {1: 8, 2: 10, 4: 10, 8: 8, 16: 8}
_BACK = {1: 5, 2: 5, 4: 5, 8: 8, 16: 8}
_WIDE = 4096  # classes from which on a row has a block of threads


class Layout(NamedTuple):
    """How U labels lie on the warps of a block."""

    labels: int  # R, of one lane
    warps: int  # that walk
    threads: int  # of the block

    @staticmethod
    def there(num_labels: int) -> "Layout":
        """Lay out the walk to the middle: a crew, and one warp that sums."""
        labels, warps = _least(_THERE, num_labels + 1)
        others = _READERS + 1 if labels < 8 else 0
        return Layout(labels, warps, _LANES * (warps + others))

    @staticmethod
    def back(num_labels: int) -> "Layout":
        """Lay out the way back: two crews who walk and read, and who writes."""
        labels, warps = _least(_BACK, num_labels + 1)
        if labels >= 8:  # one crew, which does it all
            return Layout(labels, warps, _LANES * warps)
        return Layout(labels, warps, _LANES * (2 * (warps + _READERS) + _WRITERS))


class Cut(NamedTuple):
    """How T frames are cut."""

    group: int  # frames between two columns that are kept
    groups: int  # of half an utterance, at most

    @staticmethod
    def of(num_frames: int) -> "Cut":
        """Make groups of 0.6 sqrt(T) frames, and memory grow with sqrt(T).

        Of each half a column is kept per group (16 bytes a place), and two groups of
        rows and occupancies (48 bytes a place and frame) are under way: least together
        at sqrt(T / 6) frames. Longer ones take less time.
        """
        group = max(1, round(0.6 * math.sqrt(num_frames) / _ALIGNED)) * _ALIGNED
        return Cut(group, _groups(num_frames, group))

    @staticmethod
    def nowhere(num_frames: int) -> "Cut":
        """Keep nothing but the start: for a value alone."""
        group = -(-num_frames // _ALIGNED) * _ALIGNED
        return Cut(group, _groups(num_frames, group))


def _groups(num_frames: int, group: int) -> int:
    half = -(-num_frames // 2)
    padded = -(-half // _ALIGNED) * _ALIGNED
    return max(1, -(-padded // group))


def _least(most: dict[int, int], places: int) -> tuple[int, int]:
    """Return how many labels a lane has, as few as will do, and how many warps."""
    labels = next(r for r, warps in most.items() if places <= reach(r, warps))
    warps = next(w for w in range(1, most[labels] + 1) if places <= reach(labels, w))
    return labels, warps


def reach(labels: int, warps: int) -> int:
    """Return how many places so many warps have, with so many labels a lane."""
    halo = -(-(8 // labels) // labels) if labels < 8 else 0
    return (warps * (_LANES - halo) + halo) * labels


def rows_per_block(num_classes: int) -> tuple[int, int]:
    """Return rows, and threads, of a block that looks at all classes of a frame."""
    return (1, 256) if num_classes >= _WIDE else (4, 128)
