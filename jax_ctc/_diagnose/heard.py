"""What the scores say by themselves, laid beside the transcripts.

The best class of each frame, repeats and blanks taken out, is what a model hears. Where
it hears well, how that differs from the transcripts shows mistakes that no fixed other
reading of the batch can: labels that are missing, or go by other numbers.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jax_ctc._diagnose.reading import Reading


@dataclasses.dataclass(frozen=True)
class Heard:
    """One utterance's labels as heard, and the frames [start, stop) of each."""

    labels: list[int]
    starts: list[int]
    stops: list[int]


def hear(base: Reading, rows: Sequence[int]) -> list[Heard]:
    """Return what is heard in some utterances."""
    best = np.where(base.live, base.log_probs.argmax(2), base.blank_id)
    heard = []
    for row in rows:
        classes = best[row]
        change = np.flatnonzero(np.diff(classes)) + 1
        starts, stops = np.r_[0, change], np.r_[change, len(classes)]
        is_label = classes[starts] != base.blank_id
        starts, stops = starts[is_label], stops[is_label]
        heard.append(Heard(classes[starts].tolist(), starts.tolist(), stops.tolist()))
    return heard


def transcripts(base: Reading, rows: Sequence[int]) -> list[list[int]]:
    """Return the labels of some utterances."""
    return [base.labels[row][base.inside[row]].tolist() for row in rows]


def pair(said: Sequence[int], heard: Sequence[int]) -> list[int]:
    """Return for each label heard the place of the one said, or -1 for none.

    The alignment has the fewest insertions, deletions and substitutions; of several,
    that which leaves out what is heard at the end.
    """
    rows, columns = len(said), len(heard)
    row = np.arange(columns + 1)
    cost = [row]
    other = np.asarray(heard)
    for i, label in enumerate(said, start=1):
        swap = row[:-1] + (other != label)
        new = np.concatenate([[i], np.minimum(row[1:] + 1, swap)]) - np.arange(
            columns + 1
        )
        row = np.minimum.accumulate(new) + np.arange(columns + 1)
        cost.append(row)
    place = [-1] * columns
    i, j = rows, columns
    while i and j:
        here = cost[i][j]
        if cost[i][j - 1] + 1 == here:
            j -= 1
        elif cost[i - 1][j - 1] + (said[i - 1] != heard[j - 1]) == here:
            i, j = i - 1, j - 1
            place[j] = i
        else:
            i -= 1
    return place


def errors(said: Sequence[int], heard: Sequence[int], place: list[int]) -> int:
    """Return how many labels were misheard or not heard at all."""
    right = sum(i >= 0 and said[i] == h for i, h in zip(place, heard, strict=True))
    return len(said) - right


@dataclasses.dataclass(frozen=True)
class Beside:
    """An utterance's transcript beside what is heard."""

    row: int
    said: list[int]
    heard: Heard
    place: list[int]  # of what was said, for each label heard; -1 for none

    @property
    def extra(self) -> list[int]:
        """Places in what is heard of all that was not said."""
        return [j for j, i in enumerate(self.place) if i < 0]

    @property
    def is_end(self) -> bool:
        """Whether what was not said is the end of what is heard."""
        size = len(self.place)
        return self.extra == list(range(size - len(self.extra), size))


def lay_beside(base: Reading, rows: Sequence[int]) -> list[Beside]:
    """Lay the transcripts of some utterances beside what is heard of them."""
    return [
        Beside(row, said, heard, pair(said, heard.labels))
        for row, said, heard in zip(
            rows, transcripts(base, rows), hear(base, rows), strict=True
        )
    ]
