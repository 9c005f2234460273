r"""Labels by the numbers of another vocabulary, or all by the same number.

A model and its transcripts may disagree on which class is which by any permutation.
There are too many to try, so the best one is found: labels and what is heard are laid
beside one another, first by their place and then by the alignment with the fewest
errors, and classes are matched one to one by how often they meet.

What was fitted pays for it: of V - 1 classes, K can be chosen and renamed in

    (V - 1 choose K) (V - 1)! / (V - 1 - K)!

ways. And as an untrained model answers each sound alike, with a
class drawn by lot, it too has a permutation that fits it. But it does not know what a
blank is for. So the model must *read*, in other numbers: nine labels of ten, no more
and no fewer of them than there are, and, in most utterances, between labels that follow
one another more blanks than it inserts labels.
"""

import collections
import dataclasses
import itertools
import math
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln

from jax_ctc._diagnose.heard import Heard, errors, hear, pair, transcripts
from jax_ctc._diagnose.judge import compare
from jax_ctc._diagnose.odds import LABEL_ERRORS, LOG_ODDS, WRONG_TRANSCRIPTS
from jax_ctc._diagnose.pairs import MOST
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.report import ERROR, Finding
from jax_ctc._diagnose.structure import Mended, log_choose, shift_message

_ROUNDS = 6  # alignments; it settles in three or so

# Fewer classes that are renamed show no shift.
_LEAST = 5

_MISHEARD = 2 * LABEL_ERRORS

# What follows from an alignment by place alone is worth: here, and one beside it.
_HERE, _BESIDE = 1.0, 0.4


def renamed(base: Reading) -> tuple[Finding, Reading] | None:
    """Find a permutation of the classes that makes the labels what is heard."""
    rows = np.flatnonzero(base.label_lengths > 0)[:MOST].tolist()
    said, heard = transcripts(base, rows), hear(base, rows)
    good = {c for c in range(base.num_classes) if c != base.blank_id}
    both = [
        (s, h) for s, h in zip(said, heard, strict=True) if h.labels and set(s) <= good
    ]
    pairs = [(s, h.labels) for s, h in both]
    if len(pairs) * 2 <= len(rows):
        return None
    if _misheard(pairs) <= LABEL_ERRORS:
        return None  # it hears them by the numbers that they have
    names = _fitted(pairs, base.num_classes, base.blank_id)
    if _share_read(pairs, names) < 1 - 2 * WRONG_TRANSCRIPTS:
        return None
    if not _separates(both, names):
        return None
    table = np.arange(base.num_classes)
    table[list(names)] = list(names.values())
    inside = base.inside & (base.labels >= 0) & (base.labels < base.num_classes)
    labels = np.where(inside, table[np.where(inside, base.labels, 0)], base.labels)
    reading = dataclasses.replace(base, labels=labels.astype(np.int32))
    moved = {a: b for a, b in sorted(names.items()) if a != b and base.share[a] > 0}
    spare = base.num_classes - 1
    ways = gammaln(spare + 1) - gammaln(spare - len(moved) + 1)
    ways += log_choose(spare, np.array(len(moved)))
    nats = compare(base, reading).nats - float(ways)
    if nats <= LOG_ODDS or not moved:
        return None
    evidence: dict[str, Any] = {"nats": round(nats, 1), "heard_as": moved}
    shift = _shift(moved, spare)
    if shift:
        code, message = "LABELS_SHIFTED", shift_message(shift)
        evidence["shift"] = shift
    else:
        code = "LABELS_RENAMED"
        message = (
            f"the scores read the transcripts by other numbers, {len(moved)} classes"
            " are renamed: labels were made with another vocabulary than the model's,"
            " with the same in another order, or in the other case of its letters;"
            " make both from one file, and pass `vocabulary` to see letters"
        )
    finding = Finding(code, ERROR, tuple(rows), evidence, message)
    return finding, reading


def _shift(moved: dict[int, int], num_labels: int) -> int:
    """Return by how much nearly all are moved, around the end or not; 0 for various.

    One in ten may be wrong, as a stray label is.
    """
    [(shift, times)] = collections.Counter(
        (b - a) % num_labels for a, b in moved.items()
    ).most_common(1)
    if len(moved) < _LEAST or len(moved) - times > max(1, LABEL_ERRORS * len(moved)):
        return 0
    return shift if shift * 2 <= num_labels else shift - num_labels


def _separates(both: list[tuple[list[int], Heard]], names: dict[int, int]) -> bool:
    """Tell whether blanks stand between labels, in most utterances.

    What a model inserts by accident may be a blank, once in V times: the blanks have to
    be more than the labels. A model of few frames a label has none between most.
    """
    shown = 0
    for said, heard in both:
        place = pair([names[label] for label in said], heard.labels)
        follows = [0 <= i == j - 1 for i, j in itertools.pairwise(place)]
        gaps = [a < b for a, b in zip(heard.stops, heard.starts[1:], strict=False)]
        blanks = sum(f and g for f, g in zip(follows, gaps, strict=True))
        shown += blanks > place.count(-1)
    return shown * 2 > len(both)


def _misheard(pairs: list[tuple[list[int], list[int]]]) -> float:
    """Return the share of labels that are not heard as they are."""
    wrong = sum(errors(said, heard, pair(said, heard)) for said, heard in pairs)
    return wrong / max(1, sum(len(said) for said, _ in pairs))


def _share_read(
    pairs: list[tuple[list[int], list[int]]], names: dict[int, int]
) -> float:
    """Return the share of utterances of which most labels are heard as they should."""
    good = 0
    for said, heard in pairs:
        new = [names[label] for label in said]
        wrong = errors(new, heard, pair(new, heard))
        wrong += max(0, len(heard) - len(said))
        good += wrong <= math.ceil(_MISHEARD * len(said))
    return good / len(pairs)


def _fitted(
    pairs: list[tuple[list[int], list[int]]], num_classes: int, blank_id: int
) -> dict[int, int]:
    """Return {label: class that is heard}, one to one, over all but the blank."""
    meet = np.zeros((num_classes, num_classes))
    for said, heard in pairs:
        for i, label in enumerate(said):
            j = round((i + 0.5) * len(heard) / len(said) - 0.5)
            for k, weight in ((j, _HERE), (j - 1, _BESIDE), (j + 1, _BESIDE)):
                if 0 <= k < len(heard):
                    meet[label, heard[k]] += weight
    classes = [c for c in range(num_classes) if c != blank_id]
    names: dict[int, int] = {}
    for _ in range(_ROUNDS):
        # How often they meet beyond chance; where nobody meets, names stay.
        beyond = meet - np.outer(meet.sum(1), meet.sum(0)) / max(1.0, meet.sum())
        beyond += 1e-6 * np.eye(num_classes)
        _, match = linear_sum_assignment(beyond[np.ix_(classes, classes)], True)
        new = {c: classes[m] for c, m in zip(classes, match.tolist(), strict=True)}
        if new == names:
            break
        names, meet = new, np.zeros_like(meet)
        for said, heard in pairs:
            place = pair([names[label] for label in said], heard)
            for j, i in enumerate(place):
                if i >= 0:
                    meet[said[i], heard[j]] += 1
    return names


def constant(base: Reading) -> Mended | None:
    """Find labels that are all one id, where others could be and are heard.

    Of two neighbours in a text, the second is the first again in less than one case of
    two; how often, what is heard tells, where there is something.
    """
    used = base.labels[base.inside]
    if base.num_classes < 3 or not used.size or (used != used[0]).any():
        return None
    label = int(used[0])
    if not 0 <= label < base.num_classes or label == base.blank_id:
        return None
    heard = hear(base, range(len(base.labels)))
    again = [
        a == b for h in heard for a, b in zip(h.labels, h.labels[1:], strict=False)
    ]
    others = sum(c != label for h in heard for c in h.labels)
    if others * 2 <= sum(len(h.labels) for h in heard) and others + len(again):
        return None  # the model hears that label, and little else
    share = min(0.5, (sum(again) + 1) / (len(again) + 2))
    pairs = int(np.maximum(base.label_lengths - 1, 0).sum())
    nats = -pairs * math.log(share)
    if nats <= LOG_ODDS:
        return None
    finding = Finding(
        "LABELS_CONSTANT",
        ERROR,
        tuple(np.flatnonzero(base.label_lengths > 0).tolist()),
        {"nats": round(nats, 1), "id": label, "labels": int(used.size)},
        f"all {used.size} labels are id {label}: the text was looked up in the wrong"
        " vocabulary (an unknown token, another case, another script); print"
        " labels beside their text",
    )
    return Mended(finding, base)
