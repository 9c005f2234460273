"""Speech after the stated length: where else might the utterances end?

Two mistakes make lengths too short. A wrong factor cuts all of them alike, so a few
factors are tried on the batch as a whole. A data loader cuts them one by one, so for
each utterance a few places between the stated length and T are tried, too.

A transcript that says more than the audio does would also be glad of more frames,
whatever is in them. So the rival is that its beginning was spoken and the rest is
guesswork: the frames after the end must *know* the rest of the transcript, not merely
leave room for it.
"""

import dataclasses
import math

import numpy as np

from jax_ctc._diagnose.judge import mixed
from jax_ctc._diagnose.odds import LOG_EVEN, LOG_ODDS, STRUCK, WRONG_TRANSCRIPTS
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.report import ERROR, Finding

# Every place tried is a pass of the guess, and costs log PLACES of the evidence. With a
# sixth of the room between them, one lies near enough to any end to hear most of what
# was cut, and the end need not be right for that.
PLACES = 6


def cut(base: Reading, is_usable: np.ndarray) -> tuple[Finding, Reading] | None:
    """Find utterances whose transcript goes on after their last frame."""
    short = _speaks_on(base) & is_usable & (base.label_lengths > 0)
    if not short.any():
        return None
    nats, who, ends = max(
        (_by_factor(base, short), _one_by_one(base, short)), key=lambda found: found[0]
    )
    nats -= math.log(2)
    if nats <= LOG_ODDS or not who.any():
        return None
    count = int(who.sum())
    missing = ends[who] - base.logit_lengths[who]
    finding = Finding(
        "FRAMES_CUT",
        ERROR,
        tuple(np.flatnonzero(who).tolist()),
        {
            "nats": round(nats, 1),
            "median_frames_missing": int(np.median(missing)),
            "longest": int(base.logit_lengths.max()),
            "frames": base.log_probs.shape[1],
        },
        f"{count} transcript{'s go' if count > 1 else ' goes'} on in the frames after"
        " logit_lengths: the lengths are too short; compute them after the network's"
        " own padding and subsampling, in whole frames, rounding up",
    )
    return finding, dataclasses.replace(
        base, logit_lengths=np.where(who, ends, base.logit_lengths)
    )


def _speaks_on(base: Reading) -> np.ndarray:
    """Return [B] bool: some frame after the stated length is not blank."""
    spoken = (base.log_probs.argmax(2) != base.blank_id) & ~base.live
    return spoken.any(1)


def _by_factor(
    base: Reading, short: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return nats, [B] who is cut and [B] where they end, for the best factor."""
    full = base.log_probs.shape[1]
    largest = full / max(1, int(base.logit_lengths[short].max()))
    best = (-np.inf, short, base.logit_lengths)
    for place in range(1, PLACES + 1):
        scaled = np.ceil(base.logit_lengths * largest ** (place / PLACES))
        ends = np.where(short, np.clip(scaled, 0, full), base.logit_lengths)
        gain = _gain(base, short, ends.astype(np.int32))
        evidence = mixed(gain, WRONG_TRANSCRIPTS)
        nats = float(evidence[short].sum()) - math.log(PLACES)
        if nats > best[0]:
            best = (nats, short & (gain > 0), ends.astype(np.int32))
    return best


def _one_by_one(
    base: Reading, short: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return nats, [B] who is cut and [B] where they end, each by itself."""
    room = base.log_probs.shape[1] - base.logit_lengths
    ends = np.stack(
        [
            base.logit_lengths + np.where(short, np.ceil(room * (p / PLACES)), 0)
            for p in range(1, PLACES + 1)
        ]
    ).astype(np.int32)
    gain = np.stack([_gain(base, short, row) for row in ends])  # [PLACES, B]
    # Where it really ends is not known: each place is as likely as another.
    mean = np.logaddexp.reduce(gain, axis=0) - math.log(PLACES)
    evidence = mixed(mean, 1 - STRUCK)
    # The first place that no other beats by twenty to one: later ones add padding.
    first = (gain >= gain.max(0, keepdims=True) - LOG_EVEN).argmax(0)
    return (
        float(evidence[short].sum()),
        short & (evidence > 0),
        ends[first, np.arange(len(short))],
    )


def _gain(base: Reading, short: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return [B] nats that ending there knows more than any beginning did."""
    longer = dataclasses.replace(base, logit_lengths=ends)
    return np.where(short, longer.knows - base.best_beginning, -np.inf)
