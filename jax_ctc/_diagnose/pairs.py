"""Transcripts of other utterances: the batch's own, matched anew.

Every utterance is scored against every transcript, and the best one-to-one matching is
taken. An utterance with a wrong transcript may find a better one by accident, above
all where transcripts are short or alike. A shuffle leaves more behind: the transcripts
have changed places, so following "whose transcript fits mine?" leads back to the start,
or most of the batch has moved.
"""

import dataclasses
import math

import numpy as np
from scipy.optimize import linear_sum_assignment

from jax_ctc._diagnose.judge import gain_of, mixed
from jax_ctc._diagnose.odds import LOG_ODDS, STRUCK
from jax_ctc._diagnose.reading import Reading, known
from jax_ctc._diagnose.report import ERROR, Finding

# Every pair is a lattice. Larger batches are tested on their first utterances.
MOST = 64


def shuffled(base: Reading) -> tuple[Finding, Reading] | None:
    """Find transcripts that belong to other utterances of the batch."""
    part = _first(base, MOST)
    alone = np.flatnonzero(part.log_p > -np.inf)
    if len(alone) < 2:
        return None
    gain = _gain_matrix(part, alone)  # [N, N]: utterance, transcript
    same = _same_transcript(part, alone)
    gain = np.where(same, 0.0, gain)
    value = np.maximum(gain, -1e6)  # forbidden is expensive, not infinite
    _, match = linear_sum_assignment(value, maximize=True)
    place = np.arange(len(alone))
    moved = ~same[place, match] & (gain[place, match] > 0)
    moved = _in_cycles(match, moved) | (moved & (moved.sum() * 2 > len(alone)))
    tries = math.log(max(1, len(alone) - 1))
    evidence = mixed(gain[place, match] - tries, 1 - STRUCK)
    nats = float(evidence[moved].sum())
    if nats <= LOG_ODDS:
        return None
    who = alone[moved]
    of = {int(b): int(j) for b, j in zip(who, alone[match[moved]], strict=True)}
    finding = Finding(
        "PAIRS_SHUFFLED",
        ERROR,
        tuple(sorted(of)),
        {"nats": round(nats, 1), "transcript_that_fits": of},
        f"{len(of)} utterances fit the transcripts of others in the batch better than"
        " their own: scores and labels were shuffled, sorted or filtered apart; keep"
        " them together from the data set to the loss",
    )
    source = np.arange(len(base.labels))
    source[who] = alone[match[moved]]
    return finding, dataclasses.replace(
        base, labels=base.labels[source], label_lengths=base.label_lengths[source]
    )


def _first(base: Reading, count: int) -> Reading:
    """Return the first utterances of a batch."""
    if len(base.labels) <= count:
        return base
    return Reading(
        base.log_probs[:count],
        base.labels[:count],
        base.logit_lengths[:count],
        base.label_lengths[:count],
        base.blank_id,
    )


def _gain_matrix(base: Reading, rows: np.ndarray) -> np.ndarray:
    """Return [N, N] nats, what utterance i gains by transcript j over its own."""
    gain = np.zeros((len(rows), len(rows)))
    source, place = np.arange(len(base.labels)), np.arange(len(rows))
    for step in range(1, len(rows)):
        source[rows] = np.roll(rows, -step)
        labels, counts = base.labels[source], base.label_lengths[source]
        other = dataclasses.replace(base, labels=labels, label_lengths=counts)
        # The guess depends on the utterance, not on the transcript: take the base's.
        knows = known(base, labels, counts, other.log_p)
        moved = gain_of(base.log_p, other.log_p, knows)[rows]
        gain[place, (place + step) % len(rows)] = moved
    return gain


def _same_transcript(base: Reading, rows: np.ndarray) -> np.ndarray:
    """Return [N, N] bool: which transcripts read the same, each with itself too."""
    text = np.where(base.inside, base.labels, -1)[rows]
    return (text[:, None, :] == text[None, :, :]).all(2)


def _in_cycles(match: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Mark the utterances on a cycle of the matching all of whose members moved."""
    keep = np.zeros_like(moved)
    for start in np.flatnonzero(moved):
        cycle, here = [int(start)], int(match[start])
        while here != start:
            cycle.append(here)
            here = int(match[here])
        keep[start] = moved[cycle].all()
    return keep
