"""Spans in the formats that people open next: Praat, scoring tools, subtitles, JSON.

Written here rather than with a subtitle library: those found drop text in braces and
leave `<` and `&` as they are, so that a label could be lost or read as markup.
"""

import html
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from jax_ctc._spans import TokenSpan
from jax_ctc._types import Number, Option


def write_spans(
    spans: Sequence[TokenSpan],
    file: Any,
    *,
    format: Option | None = None,
    name: Option | None = None,
    duration: Number | None = None,
) -> None:
    """Write one utterance's spans as TextGrid, CTM, SRT, WebVTT or JSON.

    | format     | opened by        | holds                                           |
    |------------|------------------|-------------------------------------------------|
    | "textgrid" | Praat, ELAN      | one tier, gaps as empty intervals; no scores    |
    | "ctm"      | NIST sclite      | name, channel 1, start, duration, label, score  |
    | "srt"      | subtitle players | times to the millisecond, label; no scores      |
    | "vtt"      | browsers         | the same as WebVTT, markup escaped              |
    | "json"     | programs         | name, duration, and all four fields             |

    Args:
        spans: one utterance of `token_spans`.
        file: a path, or an open text file (for a CTM of many utterances, say).
        format: one of the five above. Default: the suffix of the path.
        name: of the utterance (CTM, JSON) or the tier (TextGrid). Default: the stem of
            the path, or "labels" for an open file.
        duration: of the whole recording in seconds. Default: the end of the last span.

    Raises:
        ValueError: the format is unknown; `duration` ends before the last span; a label
            cannot be written (one with a blank in CTM, an empty line in subtitles).
        OSError: the path cannot be written.

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
    is_open = hasattr(file, "write")
    path = None if is_open else pathlib.Path(file)
    chosen = _check_format(format, path)
    name = name or (path.stem if path else "labels")
    end = max((span.end for span in spans), default=0.0)
    if duration is None:
        duration = end
    elif not duration >= end:
        raise ValueError(
            f"`duration` must be at least the end of the last span, {end:g} s; got"
            f" {duration!r}. Both are seconds: check the frame_rate of `token_spans`"
        )
    text = FORMATS[chosen](spans, name, float(duration))
    if path is None:
        file.write(text)
    else:
        path.write_text(text, encoding="utf-8")


def _check_format(format: Any, path: pathlib.Path | None) -> str:
    """Return the format by its name, or by the suffix of the path."""
    known = ", ".join(map(repr, FORMATS))
    if format is None and path is None:
        raise ValueError(f"`format` must be given for an open file: one of {known}")
    suffix = path.suffix.lower().removeprefix(".") if path else None
    chosen = suffix if format is None else format
    if chosen not in FORMATS:
        what = f"format={format!r}" if format is not None else f"the path {str(path)!r}"
        raise ValueError(
            f"`format` must be one of {known}, or the suffix of the path; got {what}"
        )
    return chosen


def _textgrid(spans: Sequence[TokenSpan], name: str, duration: float) -> str:
    """Write one interval tier; intervals have to cover the whole duration."""
    intervals, reached = [], 0.0
    for span in spans:
        if span.start > reached:
            intervals.append((reached, span.start, ""))
        intervals.append((span.start, span.end, str(span.label)))
        reached = span.end
    if duration > reached or not intervals:
        intervals.append((reached, duration, ""))
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {_decimal(duration)}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        f"        name = {_quoted(name)}",
        "        xmin = 0",
        f"        xmax = {_decimal(duration)}",
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


def _ctm(spans: Sequence[TokenSpan], name: str, duration: float) -> str:
    """Write a line per span, fields parted by blanks."""
    del duration
    for text in (name, *(str(span.label) for span in spans)):
        if text.split() != [text]:
            raise ValueError(
                f"CTM parts its fields by blanks, so {text!r} cannot be written: name"
                " the utterance without blanks, and join labels into words by"
                " token_spans(..., separator=...)"
            )
    return "".join(
        f"{name} 1 {span.start:.3f} {span.end - span.start:.3f} {span.label}"
        f" {span.score:.3f}\n"
        for span in spans
    )


def _srt(spans: Sequence[TokenSpan], name: str, duration: float) -> str:
    del name, duration
    return "".join(
        f"{number}\n{_clock(span.start, ',')} --> {_clock(span.end, ',')}\n"
        f"{_cue(span)}\n\n"
        for number, span in enumerate(spans, start=1)
    )


def _vtt(spans: Sequence[TokenSpan], name: str, duration: float) -> str:
    del name, duration
    return "WEBVTT\n\n" + "".join(
        f"{_clock(span.start, '.')} --> {_clock(span.end, '.')}\n"
        f"{html.escape(_cue(span), quote=False)}\n\n"
        for span in spans
    )


def _json(spans: Sequence[TokenSpan], name: str, duration: float) -> str:
    record = {
        "name": name,
        "duration": duration,
        "spans": [span._asdict() for span in spans],
    }
    return json.dumps(record, ensure_ascii=False, indent=2) + "\n"


FORMATS: dict[str, Callable[[Sequence[TokenSpan], str, float], str]] = {
    "textgrid": _textgrid,
    "ctm": _ctm,
    "srt": _srt,
    "vtt": _vtt,
    "json": _json,
}


def _decimal(seconds: Number) -> str:
    """Write seconds to the microsecond, without trailing zeros."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _clock(seconds: Number, point: str) -> str:
    """Write hours, minutes, seconds and milliseconds."""
    thousandths = round(seconds * 1000)
    minutes, thousandths = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{thousandths / 1000:06.3f}".replace(".", point)


def _cue(span: TokenSpan) -> str:
    """Return the label as the text of a subtitle, which ends at an empty line."""
    text = str(span.label)
    if not all(text.split("\n")):
        raise ValueError(
            f"a subtitle ends at an empty line, so the label {text!r} cannot be written"
        )
    return text
