"""Repeated labels that were merged in the transcripts.

A label heard twice where it was said once is an error like others, so it is as rare:
one kind of three of them. Where a batch has few others, it was taken out of the text.
A model that stutters at a label does so every time, so each class is one draw.

A transcript may have come from elsewhere and kept its repeats. Of those that should
have some, one in ten is expected to, and one in five, or a single one, is no veto.
"""

import dataclasses
import math
import operator

import numpy as np

from jax_ctc._diagnose.heard import Beside
from jax_ctc._diagnose.judge import mixed
from jax_ctc._diagnose.odds import LOG_ODDS, WRONG_TRANSCRIPTS, error_rate
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.report import ERROR, Finding

# Kinds of errors that a model makes: it inserts a label, leaves one out, or swaps one.
_KINDS = 3


def collapsed(
    base: Reading, beside: list[Beside], wrong: int
) -> tuple[Finding, Reading] | None:
    """Find labels heard twice in a row where hardly a transcript has two of any.

    wrong: how many labels are misheard, or not at all, in all of them.
    """
    twice = [_heard_twice(b) for b in beside]
    have = [any(map(operator.eq, b.said, b.said[1:])) for b in beside]
    concerned = sum(bool(pairs) or has for pairs, has in zip(twice, have, strict=True))
    if sum(have) > max(1, 2 * WRONG_TRANSCRIPTS * concerned):
        return None
    struck = [
        (b, pairs)
        for b, pairs, has in zip(beside, twice, have, strict=True)
        if pairs and not has
    ]
    count = sum(len(pairs) for _, pairs in struck)
    others = wrong + sum(len(b.extra) for b in beside) - count
    rate = error_rate(others, sum(len(b.said) for b in beside)) / _KINDS
    limit = -math.log(rate)
    classes = len({label for _, pairs in struck for _, label in pairs})
    if classes * limit <= LOG_ODDS:
        return None
    other = _written_out(base, struck)
    rows = [b.row for b, _ in struck]
    gain = mixed(other.knows[rows] - np.maximum(base.knows[rows], 0), WRONG_TRANSCRIPTS)
    gain = np.minimum(gain, [limit * len(pairs) for _, pairs in struck])
    nats = float(gain.sum()) * classes / count
    if nats <= LOG_ODDS:
        return None
    aside = f"; {sum(have)} others have some" if any(have) else ""
    finding = Finding(
        "REPEATS_COLLAPSED",
        ERROR,
        tuple(row for row, each in zip(rows, gain, strict=True) if each > 0),
        {
            "nats": round(nats, 1),
            "heard_twice": count,
            "classes": classes,
            "transcripts_with_repeats": sum(have),
        },
        f"{count} labels are heard twice in a row and written once, in transcripts"
        f" ({len(struck)}) that have no repeat at all{aside}: repeated labels were"
        " merged, as a decoder does with frames; pass the text as it is written",
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


def _written_out(
    base: Reading, struck: list[tuple[Beside, list[tuple[int, int]]]]
) -> Reading:
    """Return the reading in which transcripts have all that was heard twice."""
    texts = {}
    for b, pairs in struck:
        texts[b.row] = list(b.said)
        for i, label in sorted(pairs, reverse=True):
            texts[b.row].insert(i, label)
    width = max(base.labels.shape[1], *map(len, texts.values()))
    labels = np.full((len(base.labels), width), -1, np.int32)
    labels[:, : base.labels.shape[1]] = base.labels
    lengths = base.label_lengths.copy()
    for row, text in texts.items():
        labels[row, : len(text)], lengths[row] = text, len(text)
    return dataclasses.replace(base, labels=labels, label_lengths=lengths)
