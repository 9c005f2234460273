"""Spans in the formats that people open next: Praat, scoring tools, subtitles, JSON.

Written here rather than with a subtitle library: those found drop text in braces and
leave `<` and `&` as they are, so that a label could be lost or read as markup.
"""

import html
import json
import math
import numbers
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax_ctc._alignment.spans import GivenSpans, TokenSpan
from jax_ctc._checks.given import Number, Option
from jax_ctc._output.visible import DIRECTIONS, visible
from jax_ctc._output.whole import write_whole


def write_spans(
    spans: GivenSpans,
    file: Any,
    *,
    format: Option | None = None,
    name: Option | None = None,
    duration: Number | None = None,
) -> None:
    r"""Write one utterance's spans as TextGrid, CTM, SRT, WebVTT or JSON.

    A path is written whole or not at all: a failure leaves an old file as it was.

    | format     | opened by        | holds                                           |
    |------------|------------------|-------------------------------------------------|
    | "textgrid" | Praat, ELAN      | one tier, gaps as empty intervals; no scores    |
    | "ctm"      | NIST sclite      | name, channel 1, start, duration, label, score  |
    | "srt"      | subtitle players | times to the millisecond, label; no scores      |
    | "vtt"      | browsers         | the same as WebVTT, markup escaped              |
    | "json"     | programs         | name, duration, and all four fields             |

    A subtitle lasts a millisecond at least, and an interval of a TextGrid a nanosecond:
    players and readers drop, or trip over, one that ends where it starts. Control
    characters of a label are written out (`\x1b`) where people read it; in JSON it
    stays what it is.

    Args:
        spans: one utterance of `token_spans`, or its whole answer where that is one.
        file: a path, or an open text file (for a CTM of many utterances, say).
        format: one of the five above. Default: the suffix of the path.
        name: of the utterance (CTM, JSON) or the tier (TextGrid). Default: the stem of
            the path, or "labels" for an open file.
        duration: of the whole recording in seconds. Default: the end of the last span.

    Raises:
        TypeError: `spans` is not a list of TokenSpan (one utterance, not all of them),
            or `file` is neither a path nor an open text file, but a binary one.
        ValueError: the format is unknown; spans overlap, go backwards or are not
            finite; `duration` ends before the last span; a label cannot be written (one
            with a blank in CTM, an empty line in subtitles).
        OSError: the path cannot be written.

    Cost:
        On the host, a line or a few per span.

    Example:
        >>> import sys, jax_ctc
        >>> spans = [jax_ctc.TokenSpan("hello", 0.25, 0.75, 0.9)]
        >>> jax_ctc.write_spans(spans, sys.stdout, format="ctm", name="a1")
        a1 1 0.250 0.500 hello 0.900

    References:
        P. Boersma and D. Weenink, "TextGrid file formats", Praat manual,
        https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html.
        W3C, "WebVTT: The Web Video Text Tracks Format", https://www.w3.org/TR/webvtt1/.
    """
    nested: Any = spans
    if isinstance(nested, list) and len(nested) == 1 and isinstance(nested[0], list):
        [spans] = nested  # of `token_spans`, whose one utterance it is
    path = _check_file(file)
    chosen = _check_format(format, path)
    _check_spans(spans)
    if name is None:
        name = path.stem if path else "labels"
    seconds = _check_duration(duration, spans[-1].end if len(spans) else 0.0)
    text = FORMATS[chosen](spans, str(name), seconds)
    if path is None:
        file.write(text)
    else:
        write_whole(path, text)


def _check_file(file: Any) -> pathlib.Path | None:
    """Return the path, or None for an open text file; raise for anything else."""
    if hasattr(file, "write"):
        try:
            file.write("")
        except TypeError:
            raise TypeError(
                f"`file` takes bytes, and spans are text; got {file!r}. Open it as"
                ' text, open(path, "w", encoding="utf-8"), or pass the path'
            ) from None
        return None
    try:
        return pathlib.Path(file)
    except TypeError:
        raise TypeError(
            "`file` must be a path or an open text file; got"
            f" {file!r} ({type(file).__name__})"
        ) from None


def _check_spans(spans: Any) -> None:
    """Raise unless these are one utterance's spans, in order, with finite numbers."""
    if isinstance(spans, TokenSpan) or not isinstance(spans, Sequence):
        fix = "[span]" if isinstance(spans, TokenSpan) else "list(spans)"
        raise TypeError(
            "`spans` must be a list of TokenSpan, one utterance of `token_spans`; got"
            f" {type(spans).__name__}. Pass {fix}"
        )
    for number, span in enumerate(spans):
        if not isinstance(span, TokenSpan):
            raise TypeError(
                "`spans` must be one utterance of `token_spans`, a list of TokenSpan;"
                f" got {type(span).__name__} at {number}. `token_spans` returns a list"
                " per utterance: write them one by one"
            )
        before = spans[number - 1].end if number else 0.0
        is_ordered = before <= span.start <= span.end < math.inf
        if not (is_ordered and math.isfinite(span.score)):
            raise ValueError(
                "`spans` must be in order, not overlap, start at 0 or later and hold"
                f" finite numbers; got {span} at {number}, after {before:g} s"
            )


def _check_duration(duration: Any, end: Number) -> float:
    """Return the duration in seconds, the end of the last span by default."""
    if duration is None:
        return float(end)
    try:
        seconds = float(duration)
    except (TypeError, ValueError):
        seconds = math.nan
    if not end <= seconds < math.inf:
        raise ValueError(
            f"`duration` must be seconds, at least the end of the last span, {end:g};"
            f" got {duration!r}. A last frame may reach past the audio: then pass"
            f" {end:g}. If they are far apart, check the frame_rate of `token_spans`"
        )
    return seconds


def _check_format(format: Any, path: pathlib.Path | None) -> str:
    """Return the format by its name, or by the suffix of the path."""
    known = ", ".join(map(repr, FORMATS))
    if format is None and path is None:
        raise ValueError(f"`format` must be given for an open file: one of {known}")
    suffix = path.suffix.lower().removeprefix(".") if path else None
    chosen = suffix if format is None else str(format).lower()
    if chosen not in FORMATS:
        what = f"format={format!r}" if format is not None else f"the path {str(path)!r}"
        raise ValueError(
            f"`format` must be one of {known}, or the suffix of the path; got {what}"
        )
    return chosen


def _textgrid(spans: Sequence[TokenSpan], name: str, duration: float) -> str:
    """Write one interval tier; intervals have to cover the whole duration."""
    intervals = list(_intervals(spans, duration))
    if not intervals:
        raise ValueError(
            "a TextGrid covers some time, and there is no span: pass `duration`"
        )
    whole = _decimal(intervals[-1][1])
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {whole}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        f"        name = {_quoted(name)}",
        "        xmin = 0",
        f"        xmax = {whole}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, (start, end, text) in enumerate(intervals, start=1):
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {_decimal(start)}",
            f"            xmax = {_decimal(end)}",
            f"            text = {_quoted(text)}",
        ]
    return "\n".join(lines) + "\n"


def _intervals(
    spans: Sequence[TokenSpan], duration: float
) -> Iterator[tuple[int, int, str]]:
    """Yield start and end in nanoseconds, and the text, from 0 to the duration.

    They are as long as a nanosecond at least, so what follows may start that much late.
    """
    reached = 0
    for span in spans:
        start = max(reached, round(span.start * 1e9))
        end = max(start + 1, round(span.end * 1e9))
        if start > reached:
            yield reached, start, ""
        yield start, end, str(span.label)
        reached = end
    last = round(duration * 1e9)
    if last > reached:
        yield reached, last, ""


def _ctm(spans: Sequence[TokenSpan], name: str, duration: float) -> str:
    """Write a line per span, fields parted by blanks."""
    del duration
    for text in (name, *(str(span.label) for span in spans)):
        if text.split() != [text] or name.startswith(";;"):
            raise ValueError(
                f"CTM parts its fields by blanks and comments by ';;', so {text!r}"
                " cannot be written: a field needs at least one character and no blank."
                " Join labels into words by token_spans(..., separator=...)"
            )
    return "".join(
        f"{_shown(name)} 1 {span.start:.3f} {span.end - span.start:.3f}"
        f" {_shown(str(span.label))} {span.score:.3f}\n"
        for span in spans
    )


def _srt(spans: Sequence[TokenSpan], name: str, duration: float) -> str:
    del name, duration
    return "".join(
        f"{number}\n{_times(span, ',')}\n{_cue(span)}\n\n"
        for number, span in enumerate(spans, start=1)
    )


def _vtt(spans: Sequence[TokenSpan], name: str, duration: float) -> str:
    del name, duration
    return "WEBVTT\n\n" + "".join(
        f"{_times(span, '.')}\n{html.escape(_cue(span), quote=False)}\n\n"
        for span in spans
    )


def _json(spans: Sequence[TokenSpan], name: str, duration: float) -> str:
    record = {
        "name": name,
        "duration": duration,
        "spans": [
            {
                "label": _plain(span.label),
                "start": float(span.start),
                "end": float(span.end),
                "score": float(span.score),
            }
            for span in spans
        ],
    }
    return json.dumps(record, ensure_ascii=False, indent=2) + "\n"


FORMATS: dict[str, Callable[[Sequence[TokenSpan], str, float], str]] = {
    "textgrid": _textgrid,
    "ctm": _ctm,
    "srt": _srt,
    "vtt": _vtt,
    "json": _json,
}


def _plain(label: Any) -> str | int | float:
    """Return the label in what JSON has: a number as that number, all else as text."""
    if isinstance(label, numbers.Integral):
        return int(label)
    if isinstance(label, numbers.Real) and math.isfinite(label):
        return float(label)
    return str(label)


def _shown(text: str, keep: str = "") -> str:
    """Return the text as people may read it; what says its direction stays."""
    return visible(text, keep + DIRECTIONS)


def _decimal(nanoseconds: int) -> str:
    """Write seconds, without trailing zeros."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{seconds}.{rest:09}".rstrip("0").rstrip(".")


def _quoted(text: str) -> str:
    return '"' + _shown(text).replace('"', '""') + '"'


def _times(span: TokenSpan, point: str) -> str:
    """Write when a cue starts and ends, a millisecond later at least."""
    start = round(span.start * 1000)
    end = max(start + 1, round(span.end * 1000))
    return f"{_clock(start, point)} --> {_clock(end, point)}"


def _clock(thousandths: int, point: str) -> str:
    """Write hours, minutes, seconds and milliseconds."""
    minutes, thousandths = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{thousandths / 1000:06.3f}".replace(".", point)


def _cue(span: TokenSpan) -> str:
    """Return the label as the text of a subtitle, which ends at an empty line."""
    lines = str(span.label).splitlines()
    if not lines or not all(map(str.strip, lines)):
        raise ValueError(
            f"a subtitle ends at an empty line, so the label {str(span.label)!r} cannot"
            " be written. Where a blank is a label, join words by"
            " token_spans(..., separator=' ')"
        )
    return "\n".join(_shown(line, keep="\t") for line in lines)
