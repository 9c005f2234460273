"""Other ways to read the whole batch, each the mistake of one line of code.

Only readings that the labels allow are offered: the true blank cannot occur among the
labels, a shift cannot leave the classes.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from jax_ctc._diagnose import arrangements
from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.judge import Alternative
from jax_ctc._diagnose.odds import LABEL_ERRORS
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.structure import (
    log_choose,
    normalise,
    padding_finding,
    shift_message,
    tempered,
    trailing,
)

# Vocabularies put up to a handful of special classes in front of the first label.
SHIFTS = (-1, 1, -2, 2, -3, 3, -4, 4, -5, 5)

# Of a large vocabulary: first and last, the classic pair, and those that win most. Each
# costs a loss of the batch, and a model that has learned to say nothing between labels
# has its blank among its first few winners.
BLANKS = 6


def alternatives(given: Given, base: Reading) -> Iterator[Alternative]:
    """Yield every reading worth a test."""
    yield from _other_blanks(given, base)
    yield from _other_end(given, base)
    yield from _shifted(base)
    yield from _reversed(base)
    yield from _other_axes(given, base)
    yield from _padding(given, base)
    yield from _start_symbol(given, base)
    yield from _other_case(given, base)
    yield from arrangements.alternatives(given, base)


def _other_blanks(given: Given, base: Reading) -> Iterator[Alternative]:
    winners = base.log_probs.argmax(2)[base.live]
    wins = np.bincount(winners, minlength=base.num_classes)
    classic = [base.num_classes - 1, 0]
    ranked = classic + np.argsort(-wins, kind="stable").tolist()
    possible = [
        c for c in dict.fromkeys(ranked) if base.share[c] == 0 and c != base.blank_id
    ][:BLANKS]
    for c in possible:
        yield Alternative(
            "WRONG_BLANK",
            dataclasses.replace(base, blank_id=c),
            {"blank_id": base.blank_id, "acts_as_blank": c},
            f"class {given.name(c)} acts as the blank, not class"
            f" {given.name(base.blank_id)}: pass blank_id={c}",
            len(classic) if c in classic else base.num_classes,
        )


def _other_end(given: Given, base: Reading) -> Iterator[Alternative]:
    """The blank at the other end of the vocabulary, and every label moved over."""
    last = base.num_classes - 1
    if last < 1 or base.blank_id not in (0, last):
        return
    blank, shift = (last, -1) if base.blank_id == 0 else (0, 1)
    labels = _moved(base, shift, blank)
    if labels is None:
        return
    yield Alternative(
        "WRONG_BLANK",
        dataclasses.replace(base, blank_id=blank, labels=labels),
        {"blank_id": base.blank_id, "acts_as_blank": blank, "shift": shift},
        f"class {given.name(blank)} acts as the blank, not class"
        f" {given.name(base.blank_id)}, and the labels are numbered around the wrong"
        f" one: pass blank_id={blank} and labels {shift:+d}",
        2,
    )


def _moved(base: Reading, shift: int, blank_id: int) -> np.ndarray | None:
    """Return the labels shifted, or None if they would leave the classes."""
    moved, strays = _wrapped(base, shift, blank_id)
    return None if strays or not base.inside.any() else moved


def _wrapped(base: Reading, shift: int, blank_id: int) -> tuple[np.ndarray, int]:
    """Return the labels shifted, and how many of them had to be wrapped around.

    Those that leave the classes, or become the blank, come in again at the other end:
    of all classes if that is a label, else of the classes without the blank. A stray id
    that no shift explains is so but one wrong label.
    """
    classes = base.num_classes
    if classes < 2:
        return base.labels, base.labels.size
    # What is no class now may be padding that was counted; it says nothing.
    used = base.inside & (base.labels >= 0) & (base.labels <= classes)
    moved = base.labels + shift
    others = np.flatnonzero(np.arange(classes) != blank_id)
    place = base.labels - (base.labels > blank_id) + shift
    among = others[place % len(others)]
    is_out = (moved < 0) | (moved >= classes)
    moved = np.where(is_out, moved % classes, moved)
    is_out |= moved == blank_id
    moved = np.where(moved == blank_id, among, moved)
    labels = np.where(used, moved, base.labels).astype(np.int32)
    return labels, int((used & is_out).sum())


def _shifted(base: Reading) -> Iterator[Alternative]:
    for shift in SHIFTS:
        labels, strays = _wrapped(base, shift, base.blank_id)
        # Each stray is a wrong label: beyond one in ten no shift is worth a test.
        if strays > LABEL_ERRORS * base.inside.sum() + 1 and abs(shift) > 1:
            continue
        yield Alternative(
            "LABELS_SHIFTED",
            dataclasses.replace(base, labels=labels),
            {"shift": shift} | ({"wrapped_around": strays} if strays else {}),
            shift_message(shift),
            len(SHIFTS),
        )


def _reversed(base: Reading) -> Iterator[Alternative]:
    lengths = np.clip(base.label_lengths, 0, base.labels.shape[1])
    place = np.arange(base.labels.shape[1])[None, :]
    mirror = np.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
    labels = np.take_along_axis(base.labels, mirror, axis=1)
    yield Alternative(
        "REVERSED",
        dataclasses.replace(base, labels=labels),
        {},
        "transcripts fit when read backwards: labels, or frames, are in reverse order"
        " (the two cannot be told apart); reverse one, inside its length only",
        1,
    )


def _other_axes(given: Given, base: Reading) -> Iterator[Alternative]:
    utterances, frames, classes = base.log_probs.shape
    if utterances == frames:
        swapped = np.swapaxes(base.log_probs, 0, 1)
        reading = dataclasses.replace(base, log_probs=swapped)
        yield _of_axes(0, 1, "[T, B, V]", reading)
    if frames == classes:
        # A softmax over the last axis went over time. Logits have not seen one yet, so
        # it is the scores that are transposed; the probabilities of a model have.
        for scores in (given.scores, base.log_probs):
            swapped = normalise(np.swapaxes(scores, 1, 2))
            reading = tempered(dataclasses.replace(base, log_probs=swapped))
            yield _of_axes(1, 2, "[B, V, T]", reading)


def _of_axes(first: int, second: int, names: str, reading: Reading) -> Alternative:
    return Alternative(
        "TIME_MAJOR",
        reading,
        {"axes": names},
        f"the scores fit when read as {names}, which has the same shape here: pass"
        f" jnp.swapaxes(logits, {first}, {second})",
        3,
    )


def _padding(given: Given, base: Reading) -> Iterator[Alternative]:
    """Rows counted to one full length, many of which end in runs of one class."""
    lengths = base.label_lengths
    full = int(lengths.max(initial=0))
    if full > base.labels.shape[1] or (lengths != full).any() or full < 2:
        return
    for pad in np.unique(base.labels[:, full - 1]):
        run = trailing(base.labels, lengths, int(pad))
        # Few rows of a batch are as long as its longest: padding ends most of them. And
        # one id at the end may be a full stop: only a second one is no spelling.
        if (run > 0).sum() * 2 < len(run) or run.max() < 2:
            continue
        # Sentences end in full stops, so the last id counts for nothing; that m more of
        # a row's k equal ids come just before it, by chance, has this probability.
        k = (base.labels[:, : full - 1] == pad).sum(1)
        m = np.maximum(run - 1, 0)
        pattern = log_choose(full - 1, k) - log_choose(full - 1 - m, k - m)
        finding = padding_finding(given, int(pad), run, 0.0)
        yield Alternative(
            finding.code,
            dataclasses.replace(base, label_lengths=(lengths - run).astype(np.int32)),
            {"pad_id": int(pad), "counted": int(run.sum())},
            finding.message,
            base.num_classes,
            is_shorter=True,
            pattern=float(pattern.sum()),
        )


def _start_symbol(given: Given, base: Reading) -> Iterator[Alternative]:
    """One id in front of every transcript, or at both ends of it, and nowhere else."""
    count, lengths = len(base.labels), base.label_lengths
    if count < 2 or lengths.min() < 1:
        return
    first = int(base.labels[0, 0])
    is_last = (trailing(base.labels, lengths, first) == 1).all()
    ends = 2 if lengths.min() > 1 and is_last else 1
    times = int((base.inside & (base.labels == first)).sum())
    if (base.labels[:, 0] != first).any() or times != ends * count:
        return
    # That all of an id's places are such ones has a probability of 1 in (N, times).
    pattern = log_choose(int(base.inside.sum()), np.array(times))
    where = "begins" if ends == 1 else "begins and ends"
    yield Alternative(
        "START_SYMBOL",
        dataclasses.replace(
            base,
            labels=np.roll(base.labels, -1, axis=1),
            label_lengths=(lengths - ends).astype(np.int32),
        ),
        {"id": first, "utterances": count},
        f"every transcript {where} with id {given.name(first)}, which is nowhere else"
        " and which nothing in the scores answers: CTC needs no start symbol; pass"
        f" labels[:, 1:] and label_lengths - {ends}",
        1,
        is_shorter=True,
        pattern=float(pattern),
    )


def _other_case(given: Given, base: Reading) -> Iterator[Alternative]:
    """Capitals for small letters, or the other way round, where classes have names."""
    if given.names is None:
        return
    number = {name: c for c, name in enumerate(given.names)}
    for case in (str.lower, str.upper):
        to = np.array([number.get(case(name), c) for name, c in number.items()])
        if len(to) != base.num_classes or (to[: base.num_classes] == 0).sum() > 1:
            continue
        good = base.inside & (base.labels >= 0) & (base.labels < base.num_classes)
        labels = np.where(good, to[np.where(good, base.labels, 0)], base.labels)
        if (labels == base.labels).all():
            continue
        yield Alternative(
            "LABELS_RENAMED",
            dataclasses.replace(base, labels=labels.astype(np.int32)),
            {"case": case.__name__},
            f"the scores fit the transcripts in {case.__name__} case: write them in"
            f" the case that the model was trained on, text.{case.__name__}()",
            2,
        )
