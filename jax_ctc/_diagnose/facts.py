"""Findings that need no hypothesis: status bits, tight batches, the plateau."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from jax_ctc._checks.labels import needed_frames
from jax_ctc._checks.status import Status, explain
from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.odds import CHANCE_FAULT, LOG_ODDS, WRONG_TRANSCRIPTS
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.report import ERROR, NOTE, WARNING, Finding

# "A few" spare frames: with two, no path has room to place its blanks.
FEW = 2


def status_bits(
    given: Given,
    status: np.ndarray,
    steps: list[tuple[Finding | None, np.ndarray]],
) -> list[Finding]:
    """Return a finding per bit that is set, the most frequent first.

    status: [B] as passed; steps: each cause with the status [B] once it is mended on
    top of those before, after None with the status of what is mended.
    """
    findings = []
    for flag in Status:
        who = np.flatnonzero(status & int(flag))
        if len(who):
            evidence = _numbers(given, flag, who)
            causes = _cleared_by(steps, int(flag))
            if causes and flag != Status.NONFINITE_LOGITS:
                evidence["explained_by"] = causes
            [[text]] = explain([int(flag)])
            code = str(flag.name)
            text = text.split(": ", 1)[1]
            findings.append(Finding(code, ERROR, tuple(who.tolist()), evidence, text))
    return sorted(findings, key=lambda finding: -len(finding.utterances))


def _cleared_by(steps: list[tuple[Finding | None, np.ndarray]], bit: int) -> list[str]:
    """Return the causes that took a bit away, if it is gone in the end."""
    if not steps or (steps[-1][1] & bit).any():
        return []
    return [
        cause.code
        for (_, before), (cause, after) in itertools.pairwise(steps)
        if cause is not None and (before & ~after & bit).any()
    ]


def _numbers(given: Given, flag: Status, who: np.ndarray) -> dict:
    """Return the numbers that show a bit, of the worst utterance or over all."""
    labels = given.labels[who]
    lengths = np.clip(given.label_lengths[who], 0, labels.shape[1])
    inside = np.arange(labels.shape[1])[None, :] < lengths[:, None]
    if flag == Status.INFEASIBLE:
        short = needed_frames(labels, lengths) - given.logit_lengths[who]
        return {
            "most_frames_missing": int(short.max()),
            "in_utterance": int(who[short.argmax()]),
        }
    if flag == Status.LABEL_OUT_OF_RANGE:
        odd = labels[inside & ((labels < 0) | (labels >= given.scores.shape[2]))]
        return {"ids": np.unique(odd)[:8].tolist(), "classes": given.scores.shape[2]}
    if flag == Status.BLANK_IN_LABELS:
        times = int((inside & (labels == given.blank_id)).sum())
        return {"blank_id": given.blank_id, "times": times}
    if flag == Status.BAD_LENGTH:
        return {
            "logit_lengths": _range(given.logit_lengths[who]),
            "frames": given.scores.shape[1],
            "label_lengths": _range(given.label_lengths[who]),
            "labels": given.labels.shape[1],
        }
    return _scores(given, flag, who)


def _scores(given: Given, flag: Status, who: np.ndarray) -> dict:
    """Say where in the scores the first bad utterance is bad."""
    first = int(who[0])
    length = np.clip(given.logit_lengths[first], 0, given.scores.shape[1])
    rows = given.scores[first, :length]
    if flag == Status.NONFINITE_LOGITS:
        bad = ~np.isfinite(rows.max(1)) if rows.size else np.zeros(0, bool)
        return {
            "in_utterance": first,
            "first_bad_frame": int(bad.argmax()) if bad.any() else -1,
            "bad_frames": int(bad.sum()),
        }
    masked = (rows == -np.inf).sum(0)  # [V] frames in which a class is masked
    used = np.unique(given.labels[first][: max(0, given.label_lengths[first])])
    worst = max(used.tolist(), key=lambda c: masked[c], default=0)
    return {
        "in_utterance": first,
        "class": int(worst),
        "masked_frames": int(masked[worst]) if masked.size else 0,
        "frames": int(length),
    }


def tight(reading: Reading) -> Iterator[Finding]:
    """Warn where more of the batch has next to no frame to spare than chance explains.

    A corpus has its hasty speakers, CHANCE_FAULT of all utterances. A network that
    subsamples too much makes them one in two, say: enough to lose a good part of what
    could be learned. Of N utterances, k are tight with the odds

        (1/2 / CHANCE_FAULT)^k  (1/2 / (1 - CHANCE_FAULT))^(N - k)
    """
    ok = (reading.log_p > -np.inf) & (reading.label_lengths > 0)
    lengths = np.where(ok, reading.label_lengths, 0)
    spare = reading.logit_lengths - needed_frames(reading.labels, lengths)
    who = ok & (spare <= FEW)
    count, others = int(who.sum()), int((ok & ~who).sum())
    nats = -count * math.log(2 * CHANCE_FAULT)
    nats -= others * math.log(2 * (1 - CHANCE_FAULT))
    if nats <= LOG_ODDS:
        return
    yield Finding(
        "TIGHT",
        WARNING,
        tuple(np.flatnonzero(who).tolist()),
        {
            "nats": round(nats, 1),
            "tight": count,
            "of": count + others,
            "median_spare_frames": float(np.median(spare[ok])),
        },
        f"{count} of {count + others} utterances have at most {FEW} frames more"
        " than their labels need, so hardly any alignment is possible: subsample less",
    )


def all_blank(reading: Reading) -> Iterator[Finding]:
    """Note the plateau on which a model says nothing yet.

    A note is no alarm, so no odds are held against it. All utterances are silent there
    but those that are something else, as some transcripts are: WRONG_TRANSCRIPTS.
    """
    ok = (reading.log_p > -np.inf) & (reading.label_lengths > 0)
    live = reading.live
    blank = (reading.log_probs.argmax(2) == reading.blank_id) | ~live
    silent = ok & blank.all(1)
    if not ok.any() or silent.sum() < (1 - WRONG_TRANSCRIPTS) * ok.sum():
        return
    share = np.exp(reading.log_probs[:, :, reading.blank_id])[live & ok[:, None]]
    yield Finding(
        "ALL_BLANK",
        NOTE,
        tuple(np.flatnonzero(silent).tolist()),
        {"silent": int(silent.sum()), "mean_blank": round(float(share.mean()), 4)},
        "the best path is blank throughout: every CTC model starts on this plateau, so"
        " it is normal early on; if it lasts, raise the learning rate or look at the"
        " features",
    )


def _range(values: np.ndarray) -> list[int]:
    return [int(values.min()), int(values.max())]
