"""Alignments and hypotheses in seconds: plain lists for people, on the host."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.core import Tracer

from jax_ctc._alignment.records import CTCAlignment
from jax_ctc._checks.given import Index, Number, Option, Vocabulary
from jax_ctc._checks.options import check_wildcard_id
from jax_ctc._checks.vocabularies import check_texts, piece, text_of
from jax_ctc._decoding.records import BeamHypotheses, Hypotheses, SettledLabels

WILDCARD = "*"  # its text


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
    Located: TypeAlias = CTCAlignment | Hypotheses | BeamHypotheses | SettledLabels
else:
    GivenSpans = Located = Any


def token_spans(
    alignment: Located,
    frame_rate: Number,
    *,
    vocabulary: Vocabulary | None = None,
    separator: Option | None = None,
    offset: Number = 0.0,
    wildcard_id: Index | None = None,
) -> list[list[TokenSpan]]:
    """List the labels of each utterance, or hypothesis, with their times in seconds.

    Args:
        alignment: from `ctc_align` or `ctc_align_chunks`, with any leading axes; or
            what was decoded: by `greedy_decode`, by `beam_search_decode` or
            `beam_search_chunks` with times=True, or settled on the way.
        frame_rate: frames per second of the logits: 25 for a hop of 10 ms and
            subsampling by 4. 1 gives times in frames.
        vocabulary: text of each class id, as a sequence or a mapping. Default: labels
            stay ids.
        separator: joins labels into words. The text that a new word begins with: "|" or
            " " where that is a label of its own, "▁" for SentencePiece; "##" where
            pieces with it go on with a word; "@@" where a word goes on after pieces
            that end with it; "</w>" where it ends with them. A word's score is the mean
            over its frames. Default: none.
        offset: seconds added to all times: where in the recording the frames begin.
        wildcard_id: what the alignment was told. Its spans have the text "*", where
            there is a vocabulary, and are words of their own. Default: none.

    Returns:
        One list per utterance, in row-major order, of (label, start, end, score); an
        empty list where it was flagged or has no labels. One utterance without batch
        axes gives a list with one list in it. Of a beam search one list for each of its
        N hypotheses, those of an utterance side by side; their scores are the
        confidences. A wildcard that took no frame has no span.

    Raises:
        TypeError: `alignment` is traced, or nothing that has times; `vocabulary` is
            neither a sequence nor a mapping from ids to texts.
        ValueError: `frame_rate` is not above 0, `offset` is not finite, an id is not in
            `vocabulary`, `separator` came without a vocabulary or is empty, or a beam
            search was not asked for times.

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
    rate, offset = _check_rate(frame_rate), _check_offset(offset)
    wildcard = check_wildcard_id(wildcard_id)
    if separator is not None and (
        vocabulary is None or not isinstance(separator, str) or separator == ""
    ):
        raise ValueError(
            "`separator` joins the texts of labels, so it needs `vocabulary` and to be"
            f" at least one character; got separator={separator!r}"
        )
    if vocabulary is not None:
        check_texts(vocabulary)
    rows = []
    for labels, start, end, score in _utterances(alignment):
        is_wild = [bool(label == wildcard) for label in labels]
        spans = [
            TokenSpan(
                WILDCARD
                if wild and vocabulary is not None
                else _text(label, vocabulary),
                offset + s / rate,
                offset + e / rate,
                float(p),
            )
            for label, wild, s, e, p in zip(
                labels, is_wild, start.tolist(), end.tolist(), score, strict=True
            )
        ]
        rows.append(spans if separator is None else _words(spans, is_wild, separator))
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


def _check_offset(offset: Any) -> float:
    try:
        seconds = float(offset)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"`offset` must be a finite number of seconds; got {offset!r}")
    return seconds


def _utterances(found: Any) -> Iterator[tuple[np.ndarray, ...]]:
    """Fetch a record; yield each row's labels, and start, end and score of each."""
    if not isinstance(
        found, CTCAlignment | Hypotheses | BeamHypotheses | SettledLabels
    ):
        raise TypeError(
            "`alignment` must be a CTCAlignment, as `ctc_align` returns, or what"
            f" `greedy_decode` or `beam_search_decode` does; got {type(found).__name__}"
        )
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(found)):
        raise TypeError(
            "`token_spans` makes a list on the host, but `alignment` is traced: return"
            " it from the jitted function and call `token_spans` outside"
        )
    if found.start is None:
        raise ValueError(
            "these hypotheses have no times: pass times=True to the beam search"
        )
    is_aligned = isinstance(found, CTCAlignment)
    labels = found.tokens if is_aligned else found.labels
    score = found.score if is_aligned else found.confidence
    fields = tuple(np.asarray(x) for x in (labels, found.start, found.end, score))
    for index in np.ndindex(fields[0].shape[:-1]):
        labels, start, end, score = (field[index] for field in fields)
        is_label = (start >= 0) & (end > start)  # a wildcard may be empty
        start = start[is_label]
        labels = labels[start] if is_aligned else labels[is_label]  # tokens: by frames
        yield labels, start, end[is_label], score[is_label]


def _text(token: Any, vocabulary: Any) -> int | str:
    """Return the text of a class, or the class where there is no vocabulary."""
    return int(token) if vocabulary is None else text_of(token, vocabulary)


def _words(
    spans: list[TokenSpan], is_wild: list[bool], separator: str
) -> list[TokenSpan]:
    """Join the pieces of each word."""
    words: list[list[TokenSpan]] = [[]]
    for span, wild in zip(spans, is_wild, strict=True):
        if wild:
            words += [[span], []]
            continue
        one = piece(str(span.label), separator)
        if one.begins:
            words.append([])
        if one.text:  # what only parts words belongs to none
            words[-1].append(span._replace(label=one.text))
        if one.ends:
            words.append([])
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
