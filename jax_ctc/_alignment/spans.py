"""Alignments in seconds: plain lists for people, on the host."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.core import Tracer

from jax_ctc._alignment.records import CTCAlignment, GivenAlignment
from jax_ctc._checks.given import Number, Option, Vocabulary


class TokenSpan(NamedTuple):
    """Where one label, or one word, is in time.

    Attributes:
        label: the class id, or its text where a vocabulary was given.
        start: seconds.
        end: seconds, exclusive.
        score: mean probability over the frames, 0..1.
    """

    label: int | str
    start: float
    end: float
    score: float


# What a caller may hand back; executed, it lets the designed messages come first.
if TYPE_CHECKING:
    GivenSpans: TypeAlias = Sequence[TokenSpan]
else:
    GivenSpans = Any


def token_spans(
    alignment: GivenAlignment,
    frame_rate: Number,
    *,
    vocabulary: Vocabulary | None = None,
    separator: Option | None = None,
) -> list[list[TokenSpan]]:
    """List each utterance's labels with their times in seconds.

    Args:
        alignment: from `ctc_align` or `ctc_align_chunks`, with any leading axes.
        frame_rate: frames per second of the logits: 25 for a hop of 10 ms and
            subsampling by 4. 1 gives times in frames.
        vocabulary: text of each class id, as a sequence or a mapping. Default: labels
            stay ids.
        separator: joins labels into words: a label whose text begins with it starts a
            new word, without it. "|" or " " where that is a label of its own, "▁" for
            SentencePiece. A word's score is the mean over its frames. Default: none.

    Returns:
        One list per utterance, in row-major order, of (label, start, end, score); an
        empty list where the alignment was flagged or has no labels. One utterance
        without batch axes gives a list with one list in it.

    Raises:
        TypeError: `alignment` is traced, or is no CTCAlignment; `vocabulary` is neither
            a sequence nor a mapping.
        ValueError: `frame_rate` is not above 0, an id is not in `vocabulary`, or
            `separator` came without a vocabulary or is empty.

    Cost:
        On the host, O(T + U) per utterance.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> best = jnp.array([0, 1, 1, 0, 2])  # the class that wins each frame
        >>> alignment = jax_ctc.ctc_align(9.0 * jnp.eye(3)[best], jnp.array([1, 2]))
        >>> [spans] = jax_ctc.token_spans(alignment, 10, vocabulary="-ab")
        >>> [span[:3] for span in spans]
        [('a', 0.1, 0.3), ('b', 0.4, 0.5)]
    """
    rate = _check_rate(frame_rate)
    if separator is not None and (
        vocabulary is None or not isinstance(separator, str) or separator == ""
    ):
        raise ValueError(
            "`separator` joins the texts of labels, so it needs `vocabulary` and to be"
            f" at least one character; got separator={separator!r}"
        )
    if vocabulary is not None and not hasattr(vocabulary, "__getitem__"):
        raise TypeError(
            "`vocabulary` must hold the text of each class id, as a list or a dict; got"
            f" {type(vocabulary).__name__}"
        )
    rows = []
    for tokens, start, end, score in _utterances(alignment):
        is_label = start >= 0
        spans = [
            TokenSpan(_text(tokens[s], vocabulary), s / rate, e / rate, float(p))
            for s, e, p in zip(
                start[is_label].tolist(),
                end[is_label].tolist(),
                score[is_label],
                strict=True,
            )
        ]
        rows.append(spans if separator is None else _words(spans, separator))
    return rows


def _check_rate(frame_rate: Any) -> float:
    try:
        rate = float(frame_rate)
    except (TypeError, ValueError):
        rate = float("nan")
    if not 0 < rate < float("inf"):
        raise ValueError(
            f"`frame_rate` must be frames per second, above 0; got {frame_rate!r}."
            " It is sample rate / hop / subsampling of the model"
        )
    return rate


def _utterances(alignment: Any) -> Any:
    """Fetch an alignment; yield each utterance's tokens, start, end and score."""
    if not isinstance(alignment, CTCAlignment):
        raise TypeError(
            "`alignment` must be a CTCAlignment, as `ctc_align` returns; got"
            f" {type(alignment).__name__}"
        )
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(alignment)):
        raise TypeError(
            "`token_spans` makes a list on the host, but `alignment` is traced: return"
            " it from the jitted function and call `token_spans` outside"
        )
    fields = alignment.tokens, alignment.start, alignment.end, alignment.score
    tokens, start, end, score = (np.asarray(field) for field in fields)
    for index in np.ndindex(tokens.shape[:-1]):
        yield tokens[index], start[index], end[index], score[index]


def _text(token: Any, vocabulary: Any) -> int | str:
    """Return the text of a class, or the class where there is no vocabulary."""
    if vocabulary is None:
        return int(token)
    try:
        return str(vocabulary[int(token)])
    except LookupError:
        raise ValueError(
            f"`vocabulary` must have a text for every class among the labels; class"
            f" {int(token)} is not among its {len(vocabulary)} entries"
        ) from None


def _words(spans: list[TokenSpan], separator: str) -> list[TokenSpan]:
    """Join labels up to the next that begins with the separator."""
    words: list[list[TokenSpan]] = [[]]
    for span in spans:
        text = str(span.label)
        if text.startswith(separator):
            words.append([])
            text = text.removeprefix(separator)
        if text:  # a separator alone belongs to no word
            words[-1].append(span._replace(label=text))
    return [_join(word) for word in words if word]


def _join(word: list[TokenSpan]) -> TokenSpan:
    """Return one span for all; its score counts every label by its duration."""
    durations = [span.end - span.start for span in word]
    total = sum(
        span.score * duration for span, duration in zip(word, durations, strict=True)
    )
    return TokenSpan(
        "".join(str(span.label) for span in word),
        word[0].start,
        word[-1].end,
        total / sum(durations),
    )
