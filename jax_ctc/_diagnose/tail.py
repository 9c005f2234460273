"""Padding counted as frames: where scores stop changing, an utterance has ended.

Two frames of a real utterance never have the same scores to the last bit. Where a batch
is padded, the scores of the padding often have: zeros, or what a network says of zeros.
A blank there costs nothing; anything else costs nats in every frame.
"""

import dataclasses

import numpy as np

from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.judge import mixed
from jax_ctc._diagnose.odds import LOG_ODDS, WRONG_TRANSCRIPTS
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.report import ERROR, Finding
from jax_ctc._diagnose.structure import Mended

# Fewer equal frames at the end are no padding to speak of.
_LEAST = 2


def left_out(given: Given, base: Reading) -> Mended | None:
    """Find lengths that are all T where the frames of most utterances end earlier."""
    frames = base.log_probs.shape[1]
    if frames < 2 or (given.logit_lengths != frames).any():
        return None
    ends = _ends(given.scores)
    # A constant from end to end says nothing about where an end is.
    who = (frames - ends >= _LEAST) & (ends > 0)
    who &= (base.label_lengths <= ends) & (base.log_p > -np.inf)
    count = len(ends)
    if not who.any() or who.sum() * 2 < count - 1:
        return None
    mended = dataclasses.replace(
        base, logit_lengths=np.where(who, ends, frames).astype(np.int32)
    )
    who &= mended.log_p > -np.inf
    change = np.where(who, mended.log_p - np.where(who, base.log_p, 0), 0)
    nats = float(mixed(change[who], WRONG_TRANSCRIPTS).sum())
    if nats <= LOG_ODDS:
        return None
    finding = Finding(
        "LENGTHS_LEFT_OUT",
        ERROR,
        tuple(np.flatnonzero(who).tolist()),
        {
            "nats": round(nats, 1),
            "frames": frames,
            "median_end": int(np.median(ends[who])),
        },
        f"logit_lengths are all T = {frames}, or were left out, but the scores of"
        f" {int(who.sum())} utterances stop changing before: padding is read as speech"
        f" and costs {change[who].mean():.1f} nats each; pass the lengths from before"
        " padding, divided as the model divides time",
    )
    return Mended(finding, mended)


def _ends(scores: np.ndarray) -> np.ndarray:
    """Return [B] how many frames come before the equal ones at the end."""
    differs = (scores != scores[:, -1:]).any(2)  # [B, T]
    return scores.shape[1] - np.where(
        differs.any(1), differs[:, ::-1].argmax(1), scores.shape[1]
    )
