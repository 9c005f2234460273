"""Lines of real handwritten digits, for training and for the held-out test.

Each line sets 3 to 8 of scikit-learn's 8x8 digits side by side, with random gaps
and vertical jitter. Its columns are the frames of CTC: nobody says which column
belongs to which digit.

N lines, HEIGHT rows, MAX_WIDTH padded columns. Every batch has the same shape, so
XLA compiles once; the true widths are ragged.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits

DIGIT_SIZE = 8
MIN_DIGITS, MAX_DIGITS = 3, 8
MAX_GAP = 3  # blank columns before, between and after the digits: 0..MAX_GAP
HEIGHT = DIGIT_SIZE + 4  # up to 4 rows of vertical jitter
MAX_WIDTH = MAX_DIGITS * DIGIT_SIZE + (MAX_DIGITS + 1) * MAX_GAP

# Class 0 is CTC's blank, so the digit d is class d + 1.
NUM_CLASSES = 11
CLASS_TEXTS = "-0123456789"  # the blank is never read aloud

NUM_TRAINING_DIGITS = 1_297  # of 1,797; the last 500 are never trained on
NUM_HELD_OUT_LINES = 500
HELD_OUT_SEED = 2_024  # fixed: every `--seed` is examined on the same lines


class Digits(NamedTuple):
    """Single digits: images [D, 8, 8] float32 in [0, 1], values [D] int32."""

    images: np.ndarray
    values: np.ndarray


class Lines(NamedTuple):
    """N composed lines, padded on the right.

    Attributes:
        images: [N, HEIGHT, MAX_WIDTH] float32 in [0, 1], ink is 1.
        widths: [N] int32, true columns of each image.
        labels: [N, MAX_DIGITS] int32, digit + 1, padded with −1.
        lengths: [N] int32, digits in each line.
        lefts: [N, MAX_DIGITS] int32, first column of each digit, padded with −1. The
            model never sees it: it is what an alignment should find.
    """

    images: np.ndarray
    widths: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray
    lefts: np.ndarray


def load_split() -> tuple[Digits, Digits]:
    """Returns the digits to train on and the digits held out for the test."""
    pixels, values = load_digits(return_X_y=True)  # [D, 64] in 0..16, [D]
    images = (pixels / 16).reshape(-1, DIGIT_SIZE, DIGIT_SIZE).astype(np.float32)
    values = values.astype(np.int32)
    cut = NUM_TRAINING_DIGITS
    return Digits(images[:cut], values[:cut]), Digits(images[cut:], values[cut:])


def compose_lines(rng: np.random.Generator, digits: Digits, num_lines: int) -> Lines:
    """Composes `num_lines` new lines out of `digits`."""
    lengths = rng.integers(MIN_DIGITS, MAX_DIGITS + 1, num_lines, dtype=np.int32)

    def choose(row: int) -> np.ndarray:
        return rng.integers(len(digits.values), size=lengths[row])

    return _compose(rng, digits, lengths, choose)


def write_lines(
    rng: np.random.Generator, digits: Digits, texts: Sequence[str]
) -> Lines:
    """Writes texts of at most MAX_DIGITS digits, each digit one of its likes."""
    alike = [np.flatnonzero(digits.values == value) for value in range(10)]

    def choose(row: int) -> np.ndarray:
        return np.array([rng.choice(alike[int(digit)]) for digit in texts[row]])

    return _compose(rng, digits, np.array(list(map(len, texts)), np.int32), choose)


def held_out_lines(digits: Digits) -> Lines:
    """Returns the fixed set of lines that every run is examined on."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    return compose_lines(rng, digits, NUM_HELD_OUT_LINES)


def spell(labels: np.ndarray, lengths: np.ndarray) -> list[str]:
    """Spells labels [N, U], lengths [N]: [[4, 1, −1]], [2] -> ["30"]."""
    return [
        "".join(str(label - 1) for label in row[:length])
        for row, length in zip(labels, lengths, strict=True)
    ]


def _compose(
    rng: np.random.Generator,
    digits: Digits,
    lengths: np.ndarray,
    choose: Callable[[int], np.ndarray],
) -> Lines:
    """Composes a line of each of the lengths [N] out of the digits chosen for it."""
    num_lines = len(lengths)
    lines = Lines(
        images=np.zeros((num_lines, HEIGHT, MAX_WIDTH), np.float32),
        widths=np.zeros(num_lines, np.int32),
        labels=np.full((num_lines, MAX_DIGITS), -1, np.int32),
        lengths=lengths,
        lefts=np.full((num_lines, MAX_DIGITS), -1, np.int32),
    )
    for row, length in enumerate(lengths):
        chosen = choose(row)
        lines.labels[row, :length] = digits.values[chosen] + 1
        lefts, width = _draw(rng, lines.images[row], digits.images[chosen])
        lines.lefts[row, :length], lines.widths[row] = lefts, width
    return lines


def _draw(
    rng: np.random.Generator, canvas: np.ndarray, images: np.ndarray
) -> tuple[list[int], int]:
    """Draws images [K, 8, 8] onto canvas [HEIGHT, MAX_WIDTH].

    Returns the first column of each, and the width of them all.
    """
    gaps = rng.integers(MAX_GAP + 1, size=len(images) + 1)
    tops = rng.integers(HEIGHT - DIGIT_SIZE + 1, size=len(images))
    left, lefts = 0, []
    for image, gap, top in zip(images, gaps[:-1], tops, strict=True):
        left += gap
        lefts.append(left)
        canvas[top : top + DIGIT_SIZE, left : left + DIGIT_SIZE] = image
        left += DIGIT_SIZE
    return lefts, left + gaps[-1]
