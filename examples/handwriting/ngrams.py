"""An n-gram model of digits or words, counted here and written as an ARPA file.

Real models come from kenlm's `lmplz` or SRILM; both write the same format. Witten and
Bell's smoothing fits on a page: after a history h that was seen c(h) times, before t(h)
different words,

    p(w | h) = (c(h w) + t(h) p(w | h without its first word)) / (c(h) + t(h))

and what was never seen after h has t(h) / (c(h) + t(h)) times what a shorter history
says. A digit is a word here, and the end of the line, </s>, is counted as one too.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

BEGIN, END = "<s>", "</s>"
DIGITS = "0123456789"
NEVER = -99.0  # log10 p of <s>, which nobody predicts


def write_arpa(
    path: Path,
    texts: Iterable[Sequence[str]],
    order: int,
    vocabulary: Sequence[str] = DIGITS,
) -> None:
    """Writes the model of the texts' n-grams, n from 1 to `order`.

    A text is a string of digits, or a list of words; `vocabulary` has all there are.
    """
    counts = count(texts, order)
    followers = Counter(gram[:-1] for gram in counts)  # t
    totals = Counter()  # c
    for gram, times in counts.items():
        totals[gram[:-1]] += times

    def probability(gram: tuple[str, ...]) -> float:
        history = gram[:-1]
        shorter = probability(gram[1:]) if history else 1 / (len(vocabulary) + 1)
        if not totals[history]:
            return shorter
        kinds = followers[history]
        return (counts[gram] + kinds * shorter) / (totals[history] + kinds)

    def backoff(history: tuple[str, ...]) -> float:
        kinds = followers[history]
        return math.log10(kinds / (totals[history] + kinds)) if kinds else 0.0

    known = {(word,) for word in (BEGIN, END, *vocabulary)} | set(counts)
    lines = ["\\data\\"]
    sections = [sorted(g for g in known if len(g) == n) for n in range(1, order + 1)]
    lines += [f"ngram {n}={len(section)}" for n, section in enumerate(sections, 1)]
    for n, section in enumerate(sections, 1):
        lines += ["", f"\\{n}-grams:"]
        for gram in section:
            p = NEVER if gram == (BEGIN,) else math.log10(probability(gram))
            lines.append(f"{p:.6f}\t{' '.join(gram)}\t{backoff(gram):.6f}")
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")


def count(texts: Iterable[Sequence[str]], order: int) -> Counter[tuple[str, ...]]:
    """Counts the n-grams of all texts, each between <s> and </s>."""
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = (BEGIN, *text, END)
        for end in range(2, len(words) + 1):  # <s> itself is given, not predicted
            for n in range(1, min(order, end) + 1):
                counts[words[end - n : end]] += 1
    return counts
