"""What decoding returns."""

import dataclasses

import jax
import numpy as np
from jax.core import Tracer

from jax_ctc._checks.given import Leaf, Option, Vocabulary
from jax_ctc._checks.vocabularies import (
    check_separator,
    check_texts,
    joined,
    text_of,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """What `greedy_decode` read from each utterance.

    Attributes:
        labels: [..., T] int32, the decoded labels, padded with -1 on the right.
        lengths: [...] int32, how many of them are labels.
        log_prob: [...] float, nats, log-probability of the best *path*, which is at
            most that of the label sequence (a sum over paths).
        start: [..., T] int32, first frame of each label, -1 where there is none.
        end: [..., T] int32, the frame after its last, -1 where there is none.
        confidence: [..., T] float in 0..1, mean probability of the label over its
            frames, 0 where there is none.
        status: [...] int32, bits of `Status`; where any is set, nothing was read.
    """

    labels: Leaf
    lengths: Leaf
    log_prob: Leaf
    start: Leaf
    end: Leaf
    confidence: Leaf
    status: Leaf

    def texts(
        self, vocabulary: Vocabulary, *, separator: Option | None = None
    ) -> list[str]:
        """Return the labels of each utterance as text, on the host.

        Args:
            vocabulary: text of each class id, as a sequence or a mapping.
            separator: marks words, as in `token_spans`; a blank is put between them.
                Default: the texts of the labels side by side.

        Returns:
            One string per utterance, in row-major order; empty where nothing was read.

        Raises:
            TypeError: this is traced, or `vocabulary` holds no texts by class id.
            ValueError: an id is not in it, or `separator` is no text.
        """
        return _texts(self, vocabulary, separator)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BeamHypotheses:
    """The N label sequences that a beam search finds most probable, the best first.

    No two are equal. Where fewer than N are possible, and where an utterance is
    flagged, the rest have length 0 and log_prob and score -inf (NaN where the scores
    themselves are not finite).

    Attributes:
        labels: [..., N, L] int32, padded with -1 on the right.
        lengths: [..., N] int32, how many of them are labels.
        log_prob: [..., N] float, nats, log p(labels) over all paths: minus the loss.
        score: [..., N] float, nats, what the hypotheses are ordered by.
        status: [...] int32, bits of `Status`.
        start: [..., N, L] int32, first frame of each label on the hypothesis' best
            path, -1 where there is none; None unless asked for.
        end: [..., N, L] int32, the frame after its last, likewise.
        confidence: [..., N, L] float in 0..1, mean probability of the label over these
            frames, 0 where there is none; likewise.
    """

    labels: Leaf
    lengths: Leaf
    log_prob: Leaf
    score: Leaf
    status: Leaf
    start: Leaf | None = None
    end: Leaf | None = None
    confidence: Leaf | None = None

    def texts(
        self, vocabulary: Vocabulary, *, separator: Option | None = None
    ) -> list[str]:
        """Return the labels of each hypothesis as text, on the host.

        Args:
            vocabulary: text of each class id, as a sequence or a mapping.
            separator: marks words, as in `token_spans`; a blank is put between them.
                Default: the texts of the labels side by side.

        Returns:
            One string per hypothesis, in row-major order; empty where nothing was read.

        Raises:
            TypeError: this is traced, or `vocabulary` holds no texts by class id.
            ValueError: an id is not in it, or `separator` is no text.
        """
        return _texts(self, vocabulary, separator)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SettledLabels:
    """Labels that no frame to come can change, given out while a recording is read.

    n labels, those after the ones given out before. They carry no log_prob: that is
    known at the end.

    Attributes:
        labels: [n] int32.
        start: [n] int32, first frame of each, counted from the first of the recording,
            on the best path of the best hypothesis so far.
        end: [n] int32, the frame after its last, likewise.
        confidence: [n] float in 0..1, mean probability over these frames.
    """

    labels: Leaf
    start: Leaf
    end: Leaf
    confidence: Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EditCounts:
    """What it takes to turn references into what was read; counts add up.

    Attributes:
        substitutions: [...] int32, labels read wrongly.
        insertions: [...] int32, labels read that are not in the reference.
        deletions: [...] int32, labels of the reference that were not read.
        total: [...] int32, labels of the reference.
        status: [...] int32, bits of `Status`; where any is set, all counts are 0.
    """

    substitutions: Leaf
    insertions: Leaf
    deletions: Leaf
    total: Leaf
    status: Leaf

    @property
    def errors(self) -> Leaf:
        """[...] int32, the edit distance, which is all three kinds together."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> Leaf:
        """[] float32, errors of all utterances over labels of all references."""
        return self.errors.sum() / self.total.sum()


def _texts(
    found: Hypotheses | BeamHypotheses,
    vocabulary: Vocabulary,
    separator: Option | None,
) -> list[str]:
    """See `texts`: the labels of every row, looked up and joined."""
    if isinstance(found.labels, Tracer):
        raise TypeError(
            "`texts` makes strings on the host, but the hypotheses are traced: return"
            " them from the jitted function and call it outside"
        )
    check_texts(vocabulary)
    if separator is not None:
        check_separator(separator)
    labels, lengths = np.asarray(found.labels), np.asarray(found.lengths)
    rows = (labels[index][: lengths[index]] for index in np.ndindex(lengths.shape))
    return [joined((text_of(k, vocabulary) for k in row), separator) for row in rows]
