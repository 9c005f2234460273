"""How well lines were read: edit distance, digit error rate, exact lines."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from examples.handwriting.lines import Lines, spell
from jax_ctc import Hypotheses, greedy_decode


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
    texts = spell(np.asarray(read.labels), np.asarray(read.lengths))
    truths = spell(lines.labels, lines.lengths)
    edits = [edit_distance(*pair) for pair in zip(texts, truths, strict=True)]
    num_digits = int(lines.lengths.sum())
    return Score(
        truths=truths,
        texts=texts,
        digit_error_rate=100 * sum(edits) / num_digits,
        exact_lines=100 * edits.count(0) / len(edits),
        digits_read=100 * int(read.lengths.sum()) / num_digits,
    )


def edit_distance(first: Sequence, second: Sequence) -> int:
    """Counts the fewest insertions, deletions and substitutions between two."""
    # costs[j]: edits from what was seen of `first` to the first j items of `second`.
    costs = list(range(len(second) + 1))
    for row, item in enumerate(first, start=1):
        above, costs = costs, [row]
        for column, other in enumerate(second, start=1):
            substitute = above[column - 1] + (item != other)
            costs.append(min(substitute, above[column] + 1, costs[-1] + 1))
    return costs[-1]
