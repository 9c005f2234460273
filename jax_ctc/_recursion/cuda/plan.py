"""How a problem is laid over warps, and how its frames are cut.

The numbers of `source/walk.h`: a lane has R labels, a step has F = 8 / R frames, and the
lanes that a warp shares with its left neighbour hold F labels at least.
"""

import math
from typing import NamedTuple

MOST_LABELS = 4095

_LANES = 32
_WARPS = {1: 5, 2: 5, 4: 5, 8: 16}  # that walk, at most, for each R
_READERS = 4  # warps that read scores for those that walk, where R < 8
_WRITERS = 4  # warps that write the gradient, likewise
_WIDE = 1024  # classes from which on a row has a block of threads


class Plan(NamedTuple):
    """How T frames and U labels are laid out."""

    labels: int  # R, of one lane
    warps: int  # of a crew, which has all places
    step: int  # F, frames between two exchanges of warps
    group: int  # G, steps between two columns that are kept
    groups: int  # Q, of half an utterance, at most

    @staticmethod
    def of(num_frames: int, num_labels: int, *, keep: bool) -> "Plan":
        """Give a lane as few labels as will do, and groups near sqrt(T) / 2 frames.

        Of each half a column is kept per group (16 bytes a place), and two groups of
        rows and occupancies (48 bytes a place and frame) are under way: memory grows
        with sqrt(T), and is least at sqrt(T / 6) frames a group.
        """
        places = num_labels + 1
        labels = next(r for r in _WARPS if places <= _reach(r, _WARPS[r]))
        warps = next(w for w in range(1, 17) if places <= _reach(labels, w))
        step = 8 // labels
        steps = -(-(-(-num_frames // 2)) // step)
        group = max(1, round(math.sqrt(num_frames) / 2 / 8)) * 8 // step
        if not keep:
            group = max(steps, 1)
        return Plan(labels, warps, step, group, max(1, -(-steps // group)))

    @property
    def there_warps(self) -> int:
        """Warps of a block that goes to the middle: a crew, or one for all roles."""
        return self.warps if self.labels == 8 else self.warps + _READERS

    @property
    def back_warps(self) -> int:
        """Warps of a block that goes back: two crews and writers, or one for all."""
        return self.warps if self.labels == 8 else 2 * self.there_warps + _WRITERS


def _reach(labels: int, warps: int) -> int:
    """Return how many places so many warps have."""
    halo = -(-(8 // labels) // labels) if labels < 8 else 0
    return (warps * (_LANES - halo) + halo) * labels


def rows_per_block(num_classes: int) -> tuple[int, int]:
    """Return rows, and threads, of a block that looks at all classes of a frame."""
    return (1, 256) if num_classes >= _WIDE else (4, 128)
