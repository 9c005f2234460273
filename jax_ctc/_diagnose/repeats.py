"""Repeated labels that were merged in the transcripts.

A label heard twice where it was said once is an error like others, so it is as rare:
one kind of three of them. Where a batch has few others, it was taken out of the text.
A model that stutters at a label does so every time, so each class is one draw.

A transcript or two may have come from elsewhere and kept their repeats: of those that
should have some, one in ten is expected, and two are not too many.
"""

import dataclasses
import math
import operator

import numpy as np

from jax_ctc._diagnose.heard import Beside
from jax_ctc._diagnose.odds import LOG_ODDS, WRONG_TRANSCRIPTS, error_rate
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.report import ERROR, Finding

# Kinds of errors that a model makes: it inserts a label, leaves one out, or swaps one.
_KINDS = 3


def collapsed(
    base: Reading, beside: list[Beside], wrong: int
) -> tuple[Finding, Reading] | None:
    """Find labels heard twice in a row where hardly a transcript has two of any.

    wrong: how many labels are misheard, or not at all.
    """
    twice = [_heard_twice(b) for b in beside]
    heard = np.array([len(pairs) > 0 for pairs in twice])
    said = np.array([any(map(operator.eq, b.said, b.said[1:])) for b in beside])
    if said.sum() > 2 * WRONG_TRANSCRIPTS * (said | heard).sum():
        return None
    struck = heard & ~said
    times = np.array([len(pairs) for pairs in twice]) * struck
    count = int(times.sum())
    others = wrong + sum(len(b.extra) for b in beside) - count
    rate = error_rate(others, sum(len(b.said) for b in beside)) / _KINDS
    merged = [
        pairs for pairs, is_struck in zip(twice, struck, strict=True) if is_struck
    ]
    classes = len({label for pairs in merged for _, label in pairs})
    if -math.log(rate) * classes <= LOG_ODDS:
        return None
    rows = np.array([b.row for b in beside])
    other = _written_out(base, dict(zip(rows[struck].tolist(), merged, strict=True)))
    gain = other.knows[rows] - np.maximum(base.knows[rows], 0)
    gain = np.where(struck, np.minimum(gain, -math.log(rate) * times), 0)
    nats = float(gain.sum()) * classes / count
    if nats <= LOG_ODDS:
        return None
    have = int(said.sum())
    aside = f" ({have} with repeats left aside)" if have else ""
    finding = Finding(
        "REPEATS_COLLAPSED",
        ERROR,
        tuple(rows[gain > 0].tolist()),
        {
            "nats": round(nats, 1),
            "heard_twice": count,
            "classes": classes,
            "transcripts_with_repeats": have,
        },
        f"{count} labels are heard twice in a row where {len(merged)} transcripts"
        f" without a single repeat{aside} say them once: repeated labels were merged,"
        " as a decoder does with frames; pass the text as it is written",
    )
    return finding, other


def _heard_twice(b: Beside) -> list[tuple[int, int]]:
    """Return (place in the transcript, label) of all that is heard a second time."""
    twice = []
    for j in b.extra:
        # The alignment pairs one of the two; the other is extra, beside it.
        for k in (j - 1, j + 1):
            is_there = 0 <= k < len(b.place) and b.place[k] >= 0
            if is_there and b.said[b.place[k]] == b.heard.labels[j]:
                twice.append((b.place[k], b.heard.labels[j]))
                break
    return twice


def _written_out(base: Reading, pairs: dict[int, list[tuple[int, int]]]) -> Reading:
    """Return the reading in which some rows' labels stand twice, by _heard_twice."""
    said = {row: base.labels[row, : base.label_lengths[row]].tolist() for row in pairs}
    for row, twice in pairs.items():
        for i, label in sorted(twice, reverse=True):
            said[row].insert(i, label)
    width = max(base.labels.shape[1], *map(len, said.values()))
    labels = np.full((len(base.labels), width), -1, np.int32)
    labels[:, : base.labels.shape[1]] = base.labels
    lengths = base.label_lengths.copy()
    for row, text in said.items():
        labels[row, : len(text)], lengths[row] = text, len(text)
    return dataclasses.replace(base, labels=labels, label_lengths=lengths)
