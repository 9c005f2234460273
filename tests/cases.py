"""One table of named cases, shared by tests and benchmarks.

Tags: `ci` runs in every test of every implementation, and few array shapes serve many
cases, because compiling dominates; `precision` is the table of float32 errors; `bench`
are workloads of real sizes, `tpu` more of them, which are only compiled.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest


class Batch(NamedTuple):
    """The arguments of the loss, in NumPy."""

    logits: np.ndarray  # [B, T, V] float32
    labels: np.ndarray  # [B, U] int32
    logit_lengths: np.ndarray  # [B] int32
    label_lengths: np.ndarray  # [B] int32
    blank_id: int


def unchanged(batch, rng):
    """Leave the random batch as it is."""
    return batch


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch by name: sizes, and what is done to a random batch of those sizes."""

    name: str
    batch: int
    frames: int
    classes: int
    labels: int
    note: str
    tags: frozenset[str]
    change: Callable[[Batch, np.random.Generator], Batch] = unchanged
    blank_id: int = 0
    scale: float = 1.0
    is_ragged: bool = False

    def make(self):
        """Return the batch: the same one on every call, and always feasible."""
        rng = np.random.default_rng(len(self.name) + self.frames)
        shape = (self.batch, self.frames, self.classes)
        labels = rng.integers(1, max(self.classes, 2), (self.batch, self.labels))
        labels = np.where(labels == self.blank_id, 0, labels)  # blank takes no part
        logit_lengths = np.full(self.batch, self.frames)
        label_lengths = np.full(self.batch, self.labels)
        if self.is_ragged:
            low = max(1, self.frames * 4 // 5)
            logit_lengths = rng.integers(low, self.frames + 1, self.batch)
            label_lengths = rng.integers(self.labels // 2, self.labels + 1, self.batch)
        batch = Batch(
            (self.scale * rng.normal(size=shape)).astype(np.float32),
            labels.astype(np.int32),
            logit_lengths.astype(np.int32),
            label_lengths.astype(np.int32),
            self.blank_id,
        )
        return self.change(batch, rng)


def all_repeats(batch, rng):
    """Every label equals the one before it."""
    return batch._replace(labels=np.full_like(batch.labels, 2))


def exactly_enough(batch, rng):
    """As many frames as labels and repeats: one path."""
    repeats = (batch.labels[:, 1:] == batch.labels[:, :-1]).sum(1, dtype=np.int32)
    return batch._replace(logit_lengths=batch.label_lengths + repeats)


def some_empty(batch, rng):
    """Empty labels, one of them with no frame either."""
    return batch._replace(
        label_lengths=np.array([0, 4, 0, 2], np.int32),
        logit_lengths=np.array([13, 13, 0, 7], np.int32),
    )


def masked_classes(batch, rng):
    """A mask on a class that no label needs."""
    logits, labels = batch.logits.copy(), np.where(batch.labels == 5, 1, batch.labels)
    logits[:, :, 5] = -np.inf
    return batch._replace(logits=logits, labels=labels)


def confident_right(batch, rng):
    """Near-certain alignments: the loss is almost 0, and must not be negative."""
    logits = np.zeros_like(batch.logits)
    frames = np.arange(batch.labels.shape[1])
    logits[:, :, batch.blank_id] = 20
    for b, labels in enumerate(batch.labels):
        logits[b, 2 * frames, batch.blank_id] = 0
        logits[b, 2 * frames, labels] = 20
    return batch._replace(logits=logits)


def confident_wrong(batch, rng):
    """A wrong class wins every frame by 50 nats; the rest is 0."""
    logits = np.zeros_like(batch.logits)
    logits[:, :, -1] = 50
    labels = np.arange(1, batch.labels.shape[1] + 1, dtype=np.int32)
    return batch._replace(logits=logits, labels=np.tile(labels, (len(logits), 1)))


def sure(frames, classes, num_labels, margins, *, is_tied):
    """Return an utterance per margin, by which one path's classes lead in all frames.

    The other classes are random, or exactly tied; the labels are those of the path.
    """
    rng = np.random.default_rng(frames + classes)
    labels = rng.integers(1, classes, num_labels).astype(np.int32)
    path = np.zeros(frames, int)
    path[np.linspace(1, frames - 2, num_labels).astype(int)] = labels
    scores = (
        np.zeros((frames, classes)) if is_tied else rng.normal(size=(frames, classes))
    )
    scores = scores.astype(np.float32)
    scores[np.arange(frames), path] = -np.inf
    logits = np.stack([scores] * len(margins))
    lead = np.float32(margins)[:, None]
    logits[:, np.arange(frames), path] = scores.max(axis=1) + lead
    size = len(margins)
    lengths = np.full(size, frames, np.int32), np.full(size, num_labels, np.int32)
    return Batch(logits, np.stack([labels] * size), *lengths, 0)


def trained(batch, rng):
    """One path leads by 12 nats in every frame, and is what the labels say."""
    _, frames, classes = batch.logits.shape
    return sure(frames, classes, batch.labels.shape[1], [12], is_tied=False)


def untrained(batch, rng):
    """All classes alike, so paths are counted: the sum outgrows its first term by far.

    Lengths spread that growth over exponents, and labels are padded.
    """
    frames = np.linspace(200, batch.logits.shape[1], len(batch.logits))
    labels = np.linspace(40, batch.labels.shape[1] - 5, len(batch.logits))
    return batch._replace(
        logits=np.zeros_like(batch.logits),
        logit_lengths=frames.astype(np.int32),
        label_lengths=labels.astype(np.int32),
    )


def far_below(batch, rng):
    """A wrong class wins by 1e3, the others differ by ordinary amounts."""
    logits = batch.logits.copy()
    logits[:, :, 5] += 1e3
    return batch._replace(
        logits=logits, labels=np.where(batch.labels == 5, 1, batch.labels)
    )


def offset(batch, rng):
    """Every logit raised by 1e4 (as float32 holds it)."""
    return batch._replace(logits=batch.logits + np.float32(1e4))


def no_frames(batch, rng):
    """T = 0: only the empty label has a path."""
    return batch._replace(label_lengths=np.zeros_like(batch.label_lengths))


def duplicates(batch, rng):
    """Many labels of one class: their posteriors add up in one column."""
    labels = batch.labels.copy()
    labels[:, ::2] = 7
    return batch._replace(labels=labels)


def _case(name, sizes, note, tags="ci", **options):
    return Case(name, *sizes, note, frozenset(tags.split()), **options)


SMALL = (4, 13, 6, 4)

CASES = (
    _case("plain", SMALL, "full lengths"),
    _case("ragged", SMALL, "every length differs", is_ragged=True),
    _case("all_repeats", SMALL, "1 1 1 1", change=all_repeats),
    _case("exactly_enough", SMALL, "one path only", change=exactly_enough),
    _case("some_empty", SMALL, "empty labels, zero frames", change=some_empty),
    _case("masked_classes", SMALL, "-inf on unneeded", change=masked_classes),
    _case("confident_right", SMALL, "loss near 0", change=confident_right),
    _case("confident_wrong_short", SMALL, "logit 50", change=confident_wrong),
    _case("far_below", SMALL, "labels 1e3 below", change=far_below),
    _case("huge_logits", SMALL, "N(0,1) * 1e4", scale=1e4),
    _case("offset_logits", SMALL, "N(0,1) + 1e4", change=offset),
    _case("blank_last", SMALL, "blank is V - 1", blank_id=5, is_ragged=True),
    _case("blank_middle", SMALL, "blank is 2", blank_id=2, is_ragged=True),
    _case("one_frame", (2, 1, 4, 1), "T = 1"),
    _case("no_labels", (2, 5, 4, 0), "U = 0"),
    _case("no_frames", (2, 0, 4, 2), "T = 0", change=no_frames),
    _case("no_utterances", (0, 5, 4, 2), "B = 0"),
    _case("one_class", (2, 5, 1, 0), "V = 1"),
    _case("long", (2, 300, 5, 60), "one chunk, many blocks", is_ragged=True),
    _case("many_chunks", (8, 601, 7, 90), "a ragged last chunk", is_ragged=True),
    _case("untrained", (8, 601, 7, 90), "all logits 0", change=untrained),
    _case("scattered", (2, 20, 300, 6), "V large, duplicates", change=duplicates),
    _case("normal", (2, 4000, 32, 400), "N(0,1)", "precision"),
    _case("normal_times_5", (2, 4000, 32, 400), "5 N(0,1)", "precision", scale=5.0),
    _case(
        "confident_and_wrong",
        (1, 3000, 8, 3),
        "logit 50 on a wrong class",
        "precision",
        change=confident_wrong,
    ),
    _case("sure", (1, 1000, 1024, 25), "ahead by 12", "precision", change=trained),
    _case("very_long", (1, 20000, 32, 2000), "2 N(0,1)", "precision", scale=2.0),
    _case("char", (32, 1000, 32, 100), "speech, characters", "bench", is_ragged=True),
    _case("wordpiece", (16, 400, 1024, 50), "speech", "bench", is_ragged=True),
    _case("ocr", (64, 128, 80, 32), "lines of text", "bench", is_ragged=True),
    _case("long_form", (4, 4000, 32, 600), "recordings", "bench", is_ragged=True),
    _case("big_vocabulary", (8, 250, 8192, 40), "words", "bench", is_ragged=True),
    _case("one_utterance", (1, 800, 32, 80), "streaming", "bench", is_ragged=True),
    _case("lanes", (128, 1000, 32, 64), "as many utterances as lanes", "tpu"),
    _case("recordings", (8, 4000, 1024, 600), "long, wordpieces", "tpu"),
    _case("alone", (1, 1000, 32, 100), "one utterance", "tpu"),
)


def more(*values, id=None):
    """Parametrise a test with more of the same: `make exhaustive` runs it."""
    return pytest.param(*values, marks=pytest.mark.exhaustive, id=id)


def tagged(tag):
    """Return the cases with a tag."""
    return [case for case in CASES if tag in case.tags]


def named(name):
    """Return one case."""
    [case] = [case for case in CASES if case.name == name]
    return case
