"""Other ways to arrange the scores: signs, places in time, places in the batch.

The transcripts are as they were; what changes is which numbers they are held against.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.heard import hear
from jax_ctc._diagnose.judge import Alternative
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.structure import normalise, tempered

# Of a sigmoid that has come to 0 or 1 in float32, the log-odds must stay a number.
_EDGE = np.float32(1e-7)

# Lengths from before these strides, inside padding that has room for them.
FACTORS = (2, 3, 4, 8)


def alternatives(given: Given, base: Reading) -> Iterator[Alternative]:
    """Yield every reading of this kind that is worth a test."""
    yield from _negated(base)
    yield from _sigmoid(given, base)
    yield from _padded_left(base)
    yield from _too_long(base)


def _negated(base: Reading) -> Iterator[Alternative]:
    """Scores with the wrong sign: softmax(-x) is softmax(-log softmax(x))."""
    reading = dataclasses.replace(base, log_probs=normalise(-base.log_probs))
    yield Alternative(
        "LOGITS_NEGATED",
        tempered(reading),
        {},
        "the scores fit with the opposite sign: energies, distances or negative"
        " log-probabilities were passed as logits; pass -logits",
        1,
    )


def _sigmoid(given: Given, base: Reading) -> Iterator[Alternative]:
    """Every score between 0 and 1, and rows that do not sum to 1."""
    scores = given.scores
    live = scores[base.live] if scores.shape == base.log_probs.shape else scores[:0]
    if not live.size or not ((live >= 0) & (live <= 1)).all() or live.max() == 0:
        return
    safe = np.clip(np.nan_to_num(scores, nan=0.5), _EDGE, 1 - _EDGE)
    odds = normalise(np.log(safe) - np.log1p(-safe))
    yield Alternative(
        "LOGITS_SQUASHED",
        tempered(dataclasses.replace(base, log_probs=odds)),
        {"by": "sigmoid", "largest": float(live.max())},
        "every score lies in 0..1, and the transcripts fit the scores from before a"
        " sigmoid: no class can win by more than a nat; pass what goes into it",
        1,
    )


def _padded_left(base: Reading) -> Iterator[Alternative]:
    """Utterances at the end of the array, the padding in front of them."""
    frames = base.log_probs.shape[1]
    lengths = np.clip(base.logit_lengths, 0, frames)
    if (lengths == frames).all():
        return
    place = (np.arange(frames)[None, :] + (frames - lengths)[:, None]) % frames
    moved = np.take_along_axis(base.log_probs, place[:, :, None], axis=1)
    yield Alternative(
        "PADDED_LEFT",
        dataclasses.replace(base, log_probs=moved),
        {"median_padding": int(np.median(frames - lengths)), "frames": frames},
        "utterances fit the last frames of each row, not the first: padding is on the"
        " left; pad on the right, where logit_lengths leave it out",
        1,
    )


def _too_long(base: Reading) -> Iterator[Alternative]:
    """Lengths in other units that still fit into the padding, all or nearly all."""
    frames = base.log_probs.shape[1]
    rival = None
    if (base.logit_lengths > frames).any():  # to be cut at T is the nearest they can be
        lengths = np.minimum(base.logit_lengths, frames)
        rival = dataclasses.replace(base, logit_lengths=lengths)
    for factor in FACTORS:
        lengths = np.ceil(np.clip(base.logit_lengths, 0, None) / factor)
        lengths = np.minimum(lengths, frames).astype(np.int32)
        if _speaks_on(base, lengths):
            continue  # what comes after is no padding
        yield Alternative(
            "LENGTH_UNITS",
            dataclasses.replace(base, logit_lengths=lengths),
            {"factor": factor, "longest": int(base.logit_lengths.max())},
            f"transcripts fit what comes before 1/{factor} of logit_lengths, and the"
            " rest is padding: they count frames from before subsampling; divide them"
            " as the model divides time",
            len(FACTORS),
            is_shorter=True,
            rival=rival,
        )


def _speaks_on(base: Reading, ends: np.ndarray) -> bool:
    """Tell whether labels go on after `ends` [B], half as fast as before or faster."""
    before = after = 0
    for end, heard in zip(ends, hear(base, range(len(ends))), strict=True):
        first = sum(start < end for start in heard.starts)
        before, after = before + first, after + len(heard.starts) - first
    frames = base.live.sum(1)
    rest = int(np.maximum(frames - ends, 0).sum())
    return bool(2 * after * max(1, int(ends.sum())) > before * rest)
