"""How well lines were read: digit error rate, exact lines."""

from typing import NamedTuple

import jax
import numpy as np

from examples.handwriting.lines import Lines, spell
from jax_ctc import Hypotheses, greedy_decode, label_errors


class Score(NamedTuple):
    """The result of reading N lines.

    Attributes:
        truths: what is written, N strings.
        texts: what was read, N strings.
        digit_error_rate: edits needed to mend every line, in percent of its digits.
        exact_lines: lines read without any error, in percent.
        digits_read: digits read, right or wrong, in percent of those written.
    """

    truths: list[str]
    texts: list[str]
    digit_error_rate: float
    exact_lines: float
    digits_read: float


def score_lines(logits: jax.Array, lines: Lines) -> Score:
    """Decodes logits [N, T, NUM_CLASSES] greedily and compares with the truth."""
    return score_read(jax.device_get(greedy_decode(logits, lines.widths)), lines)


def score_read(read: Hypotheses, lines: Lines) -> Score:
    """Compares what was read, fetched to the host, with the truth."""
    return score_labels(np.asarray(read.labels), np.asarray(read.lengths), lines)


def score_labels(labels: np.ndarray, lengths: np.ndarray, lines: Lines) -> Score:
    """Compares labels [N, L] that were read, lengths [N] of each, with the truth."""
    counts = jax.device_get(label_errors(labels, lengths, lines.labels, lines.lengths))
    return Score(
        truths=spell(lines.labels, lines.lengths),
        texts=spell(labels, lengths),
        digit_error_rate=100 * float(counts.errors.sum() / counts.total.sum()),
        exact_lines=100 * float((counts.errors == 0).mean()),
        digits_read=100 * float(lengths.sum() / counts.total.sum()),
    )
