"""Lengths that are swapped, or count something else: the numbers give them away."""

import dataclasses
import math

import numpy as np

from jax_ctc._checks.labels import needed_frames
from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.judge import mixed
from jax_ctc._diagnose.odds import (
    CHANCE_FAULT,
    LOG_EVEN,
    STRAY,
    STRUCK,
    WRONG_TRANSCRIPTS,
)
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.report import ERROR, Finding
from jax_ctc._diagnose.structure import Mended

_SUBSAMPLED = (2, 3, 4, 8)  # strides of the usual front ends

# Halfway, by ratio, to the least of them, rounded up: a smaller factor would be a
# guess, and lengths that are a frame too long are cut at T instead.
_LEAST_FACTOR = 1.5

# Frames that a convolution without padding loses at its edges, after the stride: by
# that much may T times the factor miss the longest length.
_EDGES = 2


def swapped_lengths(base: Reading) -> Mended | None:
    """Find frames in label_lengths and labels in logit_lengths.

    A label length beyond U is a stray number, of which a batch has STRAY per utterance,
    beside a frame count of at most U, which has a probability of (U + 1) / (T + 1) if
    frames lie anywhere in 0..T; or the two are exchanged. An utterance that only lacks
    frames has CHANCE_FAULT to do so. Either all are exchanged, or some are: STRUCK.
    """
    exchanged = dataclasses.replace(
        base, logit_lengths=base.label_lengths, label_lengths=base.logit_lengths
    )
    frames, width = base.log_probs.shape[1], base.labels.shape[1]
    who = ~_countable(base) & _countable(exchanged)
    beyond = who & (base.label_lengths > width)
    is_all = bool(who.all())
    if not is_all:
        who = beyond | (who & _end_alike(exchanged, beyond))
    # A short utterance is infeasible either way, so one reading must be impossible for
    # more than that: label lengths beyond U, or labels that end in padding alone.
    elif not beyond.any() and not (len(who) > 1 and _ends_are_constant(exchanged)):
        return None
    stray = -math.log(STRAY) + math.log((frames + 1) / (width + 1))
    gain = np.where(beyond, stray, -math.log(CHANCE_FAULT))
    gain = np.where(who, gain, -np.inf)
    some = float(mixed(gain, 1 - STRUCK).sum())
    nats = max(some, float(gain.sum()) if is_all else -np.inf) - math.log(2)
    if nats <= LOG_EVEN:
        return None
    count = int(who.sum())
    finding = Finding(
        "LENGTHS_SWAPPED",
        ERROR,
        tuple(np.flatnonzero(who).tolist()),
        {
            "nats": round(nats, 1),
            "unscorable_as_passed": count,
            "unscorable_swapped": 0,
        },
        f"logit_lengths and label_lengths are exchanged: {_all_or(count, len(who))}"
        " cannot be scored as passed and can the other way round; pass logit_lengths"
        " (frames) third and label_lengths (labels) fourth, or by keyword",
    )
    mended = dataclasses.replace(
        base,
        logit_lengths=np.where(who, base.label_lengths, base.logit_lengths),
        label_lengths=np.where(who, base.logit_lengths, base.label_lengths),
    )
    return Mended(finding, mended)


def labels_third(base: Reading) -> Mended | None:
    """Find label_lengths in the place of logit_lengths, and none in their own.

    Each of them then is how many labels come before the padding of its row, which one
    number of frames in 0..T is as rarely as 1 in T + 1.
    """
    count, frames, _ = base.log_probs.shape
    width, lengths = base.labels.shape[1], base.logit_lengths
    full = dataclasses.replace(
        base, logit_lengths=np.full_like(lengths, frames), label_lengths=lengths
    )
    nats = count * math.log(frames + 1) - math.log(2)
    is_left_out = bool((base.label_lengths == width).all())
    if nats <= LOG_EVEN or not is_left_out or frames <= width:
        return None
    if not _countable(full).all() or not _are_counts(full):
        return None
    finding = Finding(
        "LENGTHS_SWAPPED",
        ERROR,
        tuple(range(count)),
        {"nats": round(nats, 1), "frames": frames, "labels": width},
        "logit_lengths hold how many labels each row has, and label_lengths were left"
        " out: the third argument counts frames; pass label_lengths fourth, or by"
        " keyword",
    )
    return Mended(finding, full)


def _are_counts(reading: Reading) -> bool:
    """Tell whether rows end, right after label_lengths, in nothing but one id."""
    lengths, width = reading.label_lengths, reading.labels.shape[1]
    past = np.unique(reading.labels[~reading.inside])
    if len(past) > 1:
        return False
    last = reading.labels[np.arange(len(lengths)), np.maximum(lengths, 1) - 1]
    return bool((~np.isin(last, past) | (lengths == width) | (lengths == 0)).all())


def _all_or(count: int, total: int) -> str:
    return "all utterances" if count == total else f"{count} of {total} utterances"


def length_units(given: Given, base: Reading) -> Mended | None:
    """Find lengths that count something other than frames."""
    full = base.log_probs.shape[1]
    everyone = tuple(range(len(base.logit_lengths)))
    if given.fractions:
        names = " and ".join(given.fractions)
        finding = Finding(
            "LENGTH_UNITS",
            ERROR,
            everyone,
            {"fractions": list(given.fractions), "frames": full},
            f"{names} hold fractions of the padded length, where the loss counts whole"
            " frames and labels: multiply by the padded size and round to int32",
        )
        return Mended(finding, base)
    lengths, count = base.logit_lengths, len(base.logit_lengths)
    longest = int(lengths.max())
    if (lengths >= 0).all() and longest <= 1 and full > 1:
        # Real lengths anywhere in 0..T would all be 0, or 0 and 1, as rarely as this.
        nats = count * math.log((full + 1) / (longest + 1))
        if nats > LOG_EVEN and not _countable(base).all():
            finding = Finding(
                "LENGTH_UNITS",
                ERROR,
                everyone,
                {"nats": round(nats, 1), "longest": longest, "frames": full},
                f"no logit length exceeds {longest} beside T = {full} frames: fractions"
                " were cast to integers before they were multiplied by T; multiply"
                " first",
            )
            whole = np.full_like(lengths, full)
            return Mended(finding, dataclasses.replace(base, logit_lengths=whole))
    beyond = lengths > full
    if not beyond.any() or (lengths < 0).any():
        return None
    factor = _likelier(base, _factor(longest, full), longest / full)
    if factor < _LEAST_FACTOR:
        return None
    # In other units all lengths spread over 0..factor * T. In frames, those beyond T
    # are strays, of which a batch has STRAY per utterance, and the others fit 0..T.
    nats = beyond.sum() * -math.log(STRAY) - (~beyond).sum() * math.log(factor)
    if factor == round(factor) and (lengths % round(factor) == 0).all():
        nats += count * math.log(factor)  # by chance one length in `factor` is
    mended = _divided(base, factor)
    if nats < LOG_EVEN or not _countable(mended).all():
        return None
    finding = Finding(
        "LENGTH_UNITS",
        ERROR,
        everyone,
        {
            "nats": round(float(nats), 1),
            "longest": longest,
            "frames": full,
            "factor": round(factor, 3),
            "beyond": int(beyond.sum()),
        },
        f"logit lengths reach {longest} beside T = {full} frames, a factor of"
        f" {factor:.4g}: they count samples, or frames from before subsampling; divide"
        " them as the model divides time",
    )
    return Mended(finding, mended)


def _likelier(base: Reading, factor: float, ratio: float) -> float:
    """Return a factor by which models subsample, if the scores know more by it.

    Where batches are padded to a few sizes, T is more than the longest utterance, and
    longest / T less than the factor.
    """
    plain = _divided(base, factor if factor >= _LEAST_FACTOR else 1.0)
    others = [float(n) for n in _SUBSAMPLED if n > ratio and n != factor]
    others = [n for n in others if _countable(_divided(base, n)).all()]
    if not others:
        return factor
    known = {n: _knowledge(_divided(base, n)) for n in others}
    best = max(others, key=known.__getitem__)
    odds = LOG_EVEN + math.log(len(_SUBSAMPLED))
    return best if known[best] > max(0.0, _knowledge(plain)) + odds else factor


def _divided(base: Reading, factor: float) -> Reading:
    frames = np.ceil(base.logit_lengths / factor)
    frames = np.minimum(frames, base.log_probs.shape[1]).astype(np.int32)
    return dataclasses.replace(base, logit_lengths=frames)


def _knowledge(reading: Reading) -> float:
    """Return what the scores know of the batch, each transcript allowed to be wrong."""
    return float(mixed(reading.knows, WRONG_TRANSCRIPTS).sum())


def _countable(reading: Reading) -> np.ndarray:
    """Return [B] bool: lengths are lengths, and there are frames enough."""
    frames, labels = reading.log_probs.shape[1], reading.labels.shape[1]
    good = (reading.logit_lengths >= 0) & (reading.logit_lengths <= frames)
    good &= (reading.label_lengths >= 0) & (reading.label_lengths <= labels)
    count = np.where(good, reading.label_lengths, 0)
    return good & (needed_frames(reading.labels, count) <= reading.logit_lengths)


def _ends_are_constant(reading: Reading) -> bool:
    """Tell whether the rows hold one and the same id past the label lengths."""
    past = reading.labels[~reading.inside]
    return past.size > 0 and bool((past == past[0]).all())


def _end_alike(reading: Reading, rows: np.ndarray) -> np.ndarray:
    """Return [B] bool: which rows hold past their labels what `rows` [B] all do."""
    pads = np.unique(reading.labels[~reading.inside & rows[:, None]])
    if len(pads) != 1:
        return np.zeros_like(rows)
    return (reading.inside | (reading.labels == pads[0])).all(1)


def _factor(longest: int, full: int) -> float:
    """Return longest / full, made whole where it is near a whole number or small.

    Networks subsample by small whole numbers, and padding beyond the longest utterance
    makes the ratio too small, so it is rounded up. Ratios beyond those count samples
    per frame, which need not be whole.
    """
    ratio = longest / full
    whole = round(ratio)
    if whole >= 1 and abs(longest - whole * full) <= whole * _EDGES:
        return float(whole)
    is_small = _LEAST_FACTOR <= ratio < max(_SUBSAMPLED)
    return float(math.ceil(ratio)) if is_small else ratio
