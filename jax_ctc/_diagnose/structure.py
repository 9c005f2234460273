"""Scores of a wrong kind and padding in the labels: the arrays give them away.

Each function takes the reading so far and returns a finding and the reading that mends
it, or None. The evidence is a likelihood ratio here too: how improbable the pattern
would be, had it come about by chance.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, log_softmax, logsumexp

from jax_ctc._diagnose.batch import Given, live_frames
from jax_ctc._diagnose.odds import LOG_EVEN, LOG_ODDS, LOG_SURE
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.report import ERROR, WARNING, Finding

# How far a row's sum may be from 1 by rounding. In bfloat16, exp, the sum and the
# division round by 2^-9 each, and this is twice their total; a float32 sum of
# 2^14 classes rounds by 2^-24 for each.
_OFF_HALF, _OFF = 3 * 2.0**-8, 2.0**-10

# A log-probability is logits minus their log-sum, and half precision rounds that as
# coarsely as it is large: by 2^-9 of, say, 16 nats, and as much again for the result.
_OFF_LOG_HALF = 16 * 2.0**-8

# Three rows that sum to 1 and differ settle what they are. Of so many, spread over the
# batch, three differ unless hardly any do.
_ROWS = 64

# Softmax of the most confident model leaves 0 in float32; its log must stay a number.
_LEAST = np.float32(1e-37)


class Mended(NamedTuple):
    """A finding, and the reading without that mistake."""

    finding: Finding
    reading: Reading
    is_lost: bool = False  # what the scores were cannot be had back


def tolerances(given: Given) -> tuple[float, float]:
    """Return how far rounding takes a sum, and a log-sum, of one frame from 1 and 0."""
    return (_OFF_HALF, _OFF_LOG_HALF) if given.is_half else (_OFF, _OFF)


def usable(given: Given) -> np.ndarray:
    """Return [B] bool: no live frame holds NaN, +inf, or -inf only."""
    live = live_frames(given.logit_lengths, given.scores.shape[1])
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(given.scores.max(2))
    return ~(bad & live).any(1)


def first_reading(given: Given, is_usable: np.ndarray) -> Reading:
    """Return the batch as the loss reads it."""
    scores = np.where(is_usable[:, None, None], given.scores, 0)
    return Reading(
        normalise(scores),
        given.labels,
        given.logit_lengths,
        given.label_lengths,
        given.blank_id,
    )


def scale(given: Given, base: Reading, is_usable: np.ndarray) -> Mended | None:
    """Find rows that are probabilities, or log-probabilities that are none."""
    live = base.live & is_usable[:, None]
    rows = given.scores[live].astype(np.float64)  # [N, V]
    if not len(rows) or given.scores.shape[2] < 2:
        return None
    tolerance, of_log = tolerances(given)
    # Rows of zeros are padding that the lengths do not leave out.
    filled = rows[rows.any(1)]
    sums = filled.sum(1)
    everyone = tuple(np.flatnonzero(live.any(1)).tolist())
    is_share = (rows >= 0).all() and (np.abs(sums - 1) <= tolerance).all()
    if len(filled) and is_share:
        # A row of free scores sums to anything in a range of 1 at least, so it meets 1
        # by chance with a probability of 2 * tolerance. Equal rows are one row.
        some = filled[:: -(-len(filled) // _ROWS)]
        distinct = len(np.unique(some, axis=0))
        nats = -distinct * math.log(2 * tolerance)
        if nats > LOG_ODDS:
            scores = np.where(is_usable[:, None, None], given.scores, 1)
            mended = dataclasses.replace(
                base, log_probs=normalise(np.log(np.maximum(scores, _LEAST)))
            )
            return Mended(_probabilities(given, base, mended, nats, everyone), mended)
    if given.inputs != "log_probs":
        return None
    excess = np.zeros(live.shape)
    excess[live] = logsumexp(rows, axis=1)
    frames = np.maximum(live.sum(1), 1)
    off = np.abs(excess).sum(1) / frames > of_log
    if not off.any():
        return None
    worst = float(np.abs(excess.sum(1)).max())
    finding = Finding(
        "NOT_NORMALISED",
        WARNING,
        tuple(np.flatnonzero(off).tolist()),
        {
            "largest_log_sum": round(float(excess.flat[np.abs(excess).argmax()]), 4),
            "loss_off_by_nats": round(worst, 3),
        },
        "these log-probabilities do not sum to 1 in each frame, which moves the loss by"
        f" up to {worst:.1f} nats: pass logits to ctc_loss, or jax.nn.log_softmax of"
        " them, unless a prior or a mask is meant to be in there",
    )
    return Mended(finding, base)


def counted_padding(given: Given, base: Reading) -> Mended | None:
    """Find label lengths that include a trailing id which no label can be."""
    lengths = np.clip(base.label_lengths, 0, base.labels.shape[1])
    inside = np.arange(base.labels.shape[1])[None, :] < lengths[:, None]
    odd = (base.labels < 0) | (base.labels >= base.num_classes)
    odd = inside & (odd | (base.labels == base.blank_id))
    ids = np.unique(base.labels[odd])
    if len(ids) != 1:
        return None
    pad = int(ids[0])
    run = trailing(base.labels, lengths, pad)
    if (odd.sum(1) != run).any():
        return None  # it occurs among the labels too
    if (run == 0).any() and (lengths != base.labels.shape[1]).any():
        return None  # padding is counted up to the full width, or in every row
    # That all m odd ids of a row are its last m has a probability of 1 in (length, m).
    nats = float(log_choose(lengths, run).sum())
    mended = dataclasses.replace(
        base, label_lengths=(base.label_lengths - run).astype(np.int32)
    )
    if nats < LOG_EVEN:
        return None
    return Mended(padding_finding(given, pad, run, nats), mended)


def padding_finding(given: Given, pad: int, run: np.ndarray, nats: float) -> Finding:
    """Word the finding for a padding id and how often it was counted."""
    return Finding(
        "PADDING_COUNTED",
        ERROR,
        tuple(np.flatnonzero(run).tolist()),
        {"nats": round(nats, 1), "pad_id": pad, "counted": int(run.sum())},
        f"label lengths count trailing padding, id {given.name(pad)}, as labels: pass"
        " label_lengths without it, for instance (labels != pad_id).sum(-1)",
    )


def shift_message(shift: int) -> str:
    """Word the finding for labels that fit when `shift` is added."""
    sign = "+" if shift > 0 else "-"
    return (
        f"label ids are off by {-shift:+d}: the scores fit `labels {sign}"
        f" {abs(shift)}`; a blank or another special class was put in front of the"
        " vocabulary, or removed, on one side only"
    )


def trailing(labels: np.ndarray, lengths: np.ndarray, pad: int) -> np.ndarray:
    """Return [B] how many ids in a row at the end of each label row are `pad`."""
    place = np.arange(labels.shape[1])[None, :]
    other = (labels != pad) & (place < lengths[:, None])
    last = np.where(other, place + 1, 0).max(1, initial=0)
    return (lengths - last).astype(np.int32)


def tempered(reading: Reading) -> Reading:
    """Flatten the scores of a model that is surer of each frame than anyone can be.

    One wrong frame of a model that wins by 50 nats would outweigh ten right ones. Any
    distribution gives a valid likelihood ratio, so it may as well be a humble one.
    """
    rows = reading.log_probs[reading.live]
    if not len(rows) or rows.shape[1] < 2:
        return reading
    best, second = -np.partition(-rows, 1, axis=1)[:, :2].T
    margin = best.astype(np.float64) - second
    finite = margin[np.isfinite(margin)]
    if not finite.size or np.median(finite) <= LOG_SURE:
        return reading
    flatter = reading.log_probs * np.float32(LOG_SURE / np.median(finite))
    return dataclasses.replace(reading, log_probs=normalise(flatter))


def _probabilities(
    given: Given, base: Reading, mended: Reading, nats: float, who: tuple[int, ...]
) -> Finding:
    both = (base.log_p > -np.inf) & (mended.log_p > -np.inf)
    evidence = {"nats": round(nats, 1)}
    if both.any():
        evidence |= {
            "mean_loss": round(float(-base.log_p[both].mean()), 3),
            "mean_loss_of_log": round(float(-mended.log_p[both].mean()), 3),
        }
    fix = (
        "pass the scores from before the softmax"
        if given.inputs == "logits"
        else "pass jnp.log of them, or better jax.nn.log_softmax of the logits"
    )
    return Finding(
        "PROBABILITIES_AS_LOGITS",
        ERROR,
        who,
        evidence,
        f"every row lies in 0..1 and sums to 1, so these are probabilities: {fix}",
    )


def log_choose(n: np.ndarray | int, k: np.ndarray) -> np.ndarray:
    """Return the log of the number of ways to choose k places of n."""
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0))


def normalise(scores: np.ndarray) -> np.ndarray:
    """Return log softmax; frames that hold no distribution become uniform."""
    with np.errstate(all="ignore"):
        log_probs = log_softmax(scores.astype(np.float32), axis=2)
    bad = np.isnan(log_probs).any(2, keepdims=True)
    return np.where(bad, -np.log(np.float32(scores.shape[2])), log_probs)
