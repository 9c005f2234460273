r"""Transcripts that leave out what is heard: the rest of it, or a piece.

A model that has learned to read hears m labels where the transcript has fewer, and all
of those among them. It inserts some; how many, nobody knows, but they come anywhere.
What is missing from a transcript is missing in one piece, or in a few: the end of it,
in one case of two, or k labels in r runs. Of all places for k of m labels that is

    gain = log (m choose k) - log ways

One utterance more or less is a wrong transcript; a mistake leaves out more than a
tenth, LABEL_ERRORS, of most. That the transcript is there at all has to be known, too:
with the frames of the k labels made blank, the scores must know it,

    gain <= knows' - log ways

and the model hear what is said, nine labels of ten. Not so many untrained ones do.
"""

import dataclasses
import math

import numpy as np

from jax_ctc._diagnose.heard import Beside, errors, lay_beside
from jax_ctc._diagnose.judge import mixed
from jax_ctc._diagnose.odds import LABEL_ERRORS, LOG_ODDS, WRONG_TRANSCRIPTS
from jax_ctc._diagnose.pairs import MOST
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.repeats import collapsed
from jax_ctc._diagnose.report import ERROR, Finding
from jax_ctc._diagnose.structure import log_choose

# Of a frame whose label is taken out, everything but the blank keeps this, in nats.
_OUT = -30.0

# A model of which more than this is wrong does not read well enough to be a witness.
_MISHEARD = 2 * LABEL_ERRORS


def unsaid(base: Reading) -> tuple[Finding, Reading] | None:
    """Find transcripts that leave out most of what is heard, or repeated labels."""
    can = (base.log_p > -np.inf) & (base.label_lengths > 0)
    rows = np.flatnonzero(can)[:MOST].tolist()
    beside = lay_beside(base, rows)
    if not beside:
        return None
    wrong = np.array([errors(b.said, b.heard.labels, b.place) for b in beside])
    said = np.array([len(b.said) for b in beside])
    right = np.argsort(wrong / said, kind="stable")
    right = right[: math.ceil((1 - 2 * WRONG_TRANSCRIPTS) * len(beside))]
    if wrong[right].sum() > _MISHEARD * said[right].sum():
        return None
    return _left_out(base, beside) or collapsed(base, beside, int(wrong.sum()))


def _left_out(base: Reading, beside: list[Beside]) -> tuple[Finding, Reading] | None:
    count = np.array([len(b.extra) for b in beside])
    total = np.array([len(b.place) for b in beside])
    ways = np.array([_log_ways(b) for b in beside])
    gain = np.where(count > 0, log_choose(total, count) - ways, 0.0)
    is_cut = (count > LABEL_ERRORS * total) & (gain > 0)
    if is_cut.sum() * 2 <= len(beside):
        return None
    if mixed(gain, WRONG_TRANSCRIPTS).sum() <= LOG_ODDS:
        return None
    log_probs = base.log_probs.copy()
    for b in beside:
        for j in b.extra:
            frames = log_probs[b.row, b.heard.starts[j] : b.heard.stops[j]]
            frames[:] = _OUT
            frames[:, base.blank_id] = 0
    masked = dataclasses.replace(base, log_probs=log_probs)
    rows = [b.row for b in beside]
    gain = np.where(count > 0, np.minimum(gain, masked.knows[rows] - ways), gain)
    nats = float(mixed(gain, WRONG_TRANSCRIPTS).sum())
    if nats <= LOG_ODDS:
        return None
    at_end = sum(b.is_end for b in beside if b.extra)
    is_end = bool(at_end * 2 > (count > 0).sum())
    share = float((total - count).sum() / total.sum())
    where = "stop early" if is_end else "have holes"
    who = tuple(b.row for b, g in zip(beside, gain, strict=True) if g > 0)
    finding = Finding(
        "LABELS_MISSING",
        ERROR,
        who,
        {
            "nats": round(nats, 1),
            "share_of_what_is_heard": round(share, 3),
            "labels_heard": int(total.sum()),
            "left_out": int(count.sum()),
            "at_the_end": is_end,
        },
        f"transcripts {where}: they cover {share:.0%} of the labels that are heard, and"
        " the loss teaches blank for the rest; look for a cut of the text (a maximum"
        " length, a split, segments), or mark the holes and pass wildcard_id",
    )
    return finding, masked


def _log_ways(beside: Beside) -> float:
    """Return the log of how many ways there are to leave out as many, see above.

    The end is one way, half of the time; else r runs of k labels lie in r of the n + 1
    gaps of what was said, for any r of 1..k.
    """
    count = len(beside.extra)
    if not count:
        return 0.0
    runs = 1 + int((np.diff(beside.extra) > 1).sum())
    gaps = len(beside.place) - count + 1
    places = log_choose(gaps, np.array(min(runs, gaps)))
    ways = places + log_choose(count - 1, np.array(runs - 1)) + math.log(count)
    return math.log(2) + (0.0 if beside.is_end else float(ways))
