"""What is kept of each batch: a record per utterance, findings, the worst's scores."""

import heapq
import warnings
from typing import Any

from jax_ctc._checks.status import Status
from jax_ctc._diagnose import Finding, diagnose
from jax_ctc._diagnose.batch import Given
from jax_ctc._report.batches import Batch, one_of
from jax_ctc._report.heard import BEYOND, UNHEARD, stretches
from jax_ctc._report.measure import Numbers
from jax_ctc._report.page import Pictured
from jax_ctc._report.records import RankedUtterance


def badness(row: RankedUtterance) -> tuple[bool, float]:
    """Order utterances: those that cannot be scored, then by loss per label.

    Equals keep their order, for sorting in reverse is stable too.
    """
    return bool(row.status), 0.0 if row.status else row.loss_per_label


class Doctor:
    """Examines the batches of a few shapes, each of which compiles anew."""

    def __init__(self, num_shapes: int, options: dict[str, Any]) -> None:
        """Start with nothing seen."""
        self.findings: list[tuple[int, Finding]] = []
        self.num_examined = 0
        self._most, self._options = num_shapes, options
        self._shapes: set[tuple[int, ...]] = set()

    def examine(self, batch: Batch, number: int) -> list[list[str]] | None:
        """Return the codes of each utterance, or None if the batch is left out."""
        shape = (*batch.given.scores.shape, batch.given.labels.shape[1])
        if shape not in self._shapes and len(self._shapes) == self._most:
            return None
        self._shapes.add(shape)
        self.num_examined += 1
        codes: list[list[str]] = [[] for _ in batch.names]
        for finding in diagnose(*batch.arrays, **self._options).findings:
            if finding.severity == "note":
                continue
            self.findings.append((number, finding))
            for index in finding.utterances:
                codes[index].append(finding.code)
        return codes

    def say_what_is_left_out(self, num_batches: int) -> None:
        """Warn if some batches were not examined."""
        if self._most == 0 or self.num_examined == num_batches:
            return
        warnings.warn(
            f"the doctor looked at {self.num_examined} of {num_batches} batches: it"
            f" compiles anew for every shape, and the others are of more than"
            f" {self._most} shapes. Pad batches to a few sizes, or pass a larger"
            " `num_shapes`",
            stacklevel=3,
        )


class Worst:
    """The scores of the worst utterances so far."""

    def __init__(self, most: int) -> None:
        """Start with none."""
        self._most = most
        self._heap: list[tuple[tuple[bool, float], int, Given]] = []
        self._count = 0

    def offer(self, row: RankedUtterance, given: Given) -> None:
        """Keep a copy of the utterance's scores if it is one of the worst so far.

        What comes after its length is of interest where something is wrong with it.
        """
        if self._most == 0:
            return
        self._count += 1
        order = badness(row), -self._count  # of equals the first is ranked first
        if len(self._heap) == self._most and order < self._heap[0][:2]:
            return
        is_odd = bool(row.status or row.findings)
        kept = (*order, one_of(given, row.index, cut=not is_odd))
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, kept)
        else:
            heapq.heapreplace(self._heap, kept)

    def in_order(self) -> tuple[Pictured, ...]:
        """Return them, the worst first."""
        ordered = sorted(self._heap, key=lambda kept: kept[:2], reverse=True)
        return tuple(Pictured(place, kept[2]) for place, kept in enumerate(ordered))


def describe(
    batch: Batch, number: int, numbers: Numbers, found: list[list[str]] | None
) -> list[RankedUtterance]:
    """Return the record of each utterance of a batch."""
    return [
        _record(batch, number, index, numbers, None if found is None else found[index])
        for index in range(len(batch.names))
    ]


def _record(
    batch: Batch, number: int, index: int, numbers: Numbers, found: list[str] | None
) -> RankedUtterance:
    given = batch.given
    wildcard_id = None if given.holes is None else given.holes.wildcard_id
    heard = numbers.heard[index, : numbers.num_heard[index]].tolist()
    transcript = given.transcript(index).tolist()
    differences = stretches(transcript, heard, wildcard_id)
    count = sum(label != wildcard_id for label in transcript)
    bits, loss = int(numbers.status[index]), float(numbers.loss[index])
    return RankedUtterance(
        name=batch.names[index],
        batch=number,
        index=index,
        loss=loss,
        loss_per_label=loss / max(1, count),
        score=float(numbers.score[index]) if count and not bits else None,
        num_beyond=sum(len(x) for kind, x in differences if kind == BEYOND),
        num_unheard=sum(len(x) for kind, x in differences if kind == UNHEARD),
        labels=given.spell_transcript(index),
        heard=given.spell(heard),
        differences=tuple(_spelt(given, differences)),
        findings=None if found is None else tuple(found),
        status=tuple(str(flag.name) for flag in Status if bits & int(flag)),
    )


def _spelt(
    given: Given, differences: list[tuple[str, list[int]]]
) -> list[tuple[str, str]]:
    """Write the stretches as text, which joined is the row: with spaces, if need be."""
    is_letters = given.names is not None and max(map(len, given.names)) <= 1
    spelt = [(kind, given.spell(labels)) for kind, labels in differences]
    if is_letters:
        return spelt
    return [
        (kind, text + " " * (place + 1 < len(spelt)))
        for place, (kind, text) in enumerate(spelt)
    ]
