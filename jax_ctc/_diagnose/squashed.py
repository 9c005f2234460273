"""Scores that something went over that should not have: the arrays give it away.

What a softmax over time or over the batch, or a ReLU, has taken from the scores cannot
be had back, so nothing else is looked for beside these.
"""

import math

import numpy as np
from scipy.special import logsumexp

from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.odds import LOG_ODDS
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.report import ERROR, Finding
from jax_ctc._diagnose.structure import Mended, tolerances

_AXES = {"time": 1, "batch": 0}

# Sums that meet 1 settle it soon: of so many, spread over the array, three do.
_SUMS = 64


def softmax_axis(given: Given, base: Reading, is_usable: np.ndarray) -> Mended | None:
    """Find a softmax, or a log_softmax, over the frames or over the utterances.

    Free scores sum to anything in a range of 1 at least, so one sum is 1 by chance with
    a probability of 2 * tolerance; sums of equal columns are one.
    """
    scores = given.scores[is_usable]
    of_sum, of_log = tolerances(given)
    if scores.size == 0 or scores.max() > 1 + of_sum or not np.isfinite(scores).all():
        return None
    scores = scores.astype(np.float64)
    is_share = bool(((scores >= 0) & (scores <= 1 + of_sum)).all())
    if not is_share and not (scores <= of_log).all():
        return None
    tolerance = of_sum if is_share else of_log
    if _is_one(scores, 2, is_share, tolerance).all():
        return None  # the right axis: `structure.scale` judges that
    for name, axis in _AXES.items():
        columns = np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis])
        columns = columns[columns.any(1)]  # zeros are padding
        columns = columns[:: -(-len(columns) // _SUMS) or 1]
        if not len(columns) or not _is_one(columns, 1, is_share, tolerance).all():
            continue
        nats = -len(np.unique(columns, axis=0)) * math.log(2 * tolerance)
        if nats <= LOG_ODDS:
            continue
        what = "softmax" if is_share else "log_softmax"
        unit = "frames" if name == "time" else "utterances"
        finding = Finding(
            "SOFTMAX_AXIS",
            ERROR,
            tuple(np.flatnonzero(is_usable).tolist()),
            {"nats": round(nats, 1), "axis": name, "sums": len(columns)},
            f"the scores of each class sum to 1 over the {unit}: a {what} went over"
            f" axis {axis} of [B, T, V]; pass the logits, or take it over axis=-1",
        )
        return Mended(finding, base, is_lost=True)
    return None


def _is_one(
    values: np.ndarray, axis: int, is_share: bool, tolerance: float
) -> np.ndarray:
    """Tell which sums, of probabilities or of exponentials, are 1."""
    off = values.sum(axis) - 1 if is_share else logsumexp(values, axis=axis)
    return np.abs(off) <= tolerance


def relu(given: Given, base: Reading, is_usable: np.ndarray) -> Mended | None:
    """Find scores that are never negative, and 0 now and then in class after class.

    A class that is both 0 and not, and never below, is so by chance as rarely as a sum
    of free scores is a round number. Scores that take a few values only are somebody's
    example.
    """
    rows = given.scores[base.live & is_usable[:, None]]
    rows = rows[rows.any(1)]  # zeros are padding
    if not len(rows) or not np.isfinite(rows).all() or rows.min() < 0:
        return None
    clipped = (rows == 0).any(0) & (rows > 0).any(0)
    positive = rows[:, clipped]
    positive = positive[positive > 0]
    of_sum, _ = tolerances(given)
    nats = -clipped.sum() * math.log(2 * of_sum)
    if nats <= LOG_ODDS or len(np.unique(positive)) * 2 < len(positive):
        return None
    finding = Finding(
        "LOGITS_SQUASHED",
        ERROR,
        tuple(np.flatnonzero(is_usable).tolist()),
        {
            "nats": round(float(nats), 1),
            "by": "relu",
            "zeros": round(float((rows == 0).mean()), 3),
            "classes": int(clipped.sum()),
        },
        "no score is negative and many are exactly 0: a ReLU went over the logits, so"
        " classes that are out of the question share a frame with the winner, and learn"
        " nothing; pass what goes into it",
    )
    return Mended(finding, base, is_lost=True)
