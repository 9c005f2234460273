"""Spans in seconds, words, and the files that people open next."""

import dataclasses
import io
import itertools
import json
import tempfile
import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
import praatio.textgrid
import pysubs2
import pytest

import jax_ctc
from jax_ctc import TokenSpan
from tests.alignments import flagged

SPANS = [
    TokenSpan("say", 0.25, 0.75, 0.9),
    TokenSpan('"a<b>&{c}"', 0.75, 1.0, 0.5),
    TokenSpan("né", 3661.5, 3662.0, 1.0),
]


def align(best, labels, classes=5):
    """Align labels with frames that are each won by one class."""
    return jax_ctc.ctc_align(9.0 * jnp.eye(classes)[jnp.array(best)], jnp.array(labels))


def test_seconds_and_texts():
    """25 frames per second; ids, a sequence, a mapping."""
    alignment = align([0, 1, 1, 0, 2], [1, 2])
    [spans] = jax_ctc.token_spans(alignment, 25)
    assert [span[:3] for span in spans] == [(1, 0.04, 0.12), (2, 0.16, 0.2)]
    assert [type(x) for x in spans[0]] == [int, float, float, float]
    np.testing.assert_allclose([span.score for span in spans], alignment.score)
    for vocabulary in ("-ab", ["-", "a", "b"], {1: "a", 2: "b"}):
        [spans] = jax_ctc.token_spans(alignment, 25, vocabulary=vocabulary)
        assert [span.label for span in spans] == ["a", "b"]


def test_batches_and_flagged_utterances():
    """One list per utterance in row-major order; empty where there is no path."""
    alignment = jax_ctc.ctc_align(*flagged())
    rows = jax_ctc.token_spans(alignment, 1)
    assert [len(row) for row in rows] == [0, 0, 0, 0, 0, 0, 3]
    square = jax.tree.map(lambda x: jnp.stack([x, x]), alignment)
    assert jax_ctc.token_spans(square, 1) == rows + rows


@pytest.mark.parametrize(
    ("vocabulary", "separator", "expected"),
    [
        ("-ab|c", "|", [("ab", 1, 3), ("ba", 5, 7)]),
        (["-", "a", "b", "▁c", "x"], "▁", [("ab", 1, 3), ("cba", 3, 7)]),
        ("-ab c", " ", [("ab", 1, 3), ("ba", 5, 7)]),
        (["-", "##a", "##b", "c"], "##", [("ab", 1, 3), ("cba", 3, 7)]),
        (["-", "a", "b@@", "c@@"], "@@", [("a", 1, 2), ("bcba", 2, 7)]),
        (["-", "a</w>", "b", "c"], "</w>", [("a", 1, 2), ("bcba", 2, 7)]),
    ],
)
def test_words(vocabulary, separator, expected):
    """By a label of its own, or by what pieces begin or end with."""
    alignment = align([0, 1, 2, 3, 0, 2, 1], [1, 2, 3, 2, 1])
    [words] = jax_ctc.token_spans(
        alignment, 1, vocabulary=vocabulary, separator=separator
    )
    assert [word[:3] for word in words] == expected


def test_the_score_of_a_word_counts_frames():
    """Two frames of one label weigh twice one frame of another."""
    alignment = align([1, 1, 2], [1, 2])
    alignment = type(alignment)(
        alignment.tokens,
        alignment.log_prob,
        alignment.start,
        alignment.end,
        jnp.array([0.9, 0.3]),
    )
    [[word]] = jax_ctc.token_spans(alignment, 1, vocabulary="-ab", separator="|")
    np.testing.assert_allclose(word.score, 0.7, rtol=1e-6)


def test_an_offset_is_added():
    """Seconds before the first frame, of a recording that was cut."""
    alignment = align([0, 1, 1, 0, 2], [1, 2])
    [spans] = jax_ctc.token_spans(alignment, 10, offset=2)
    assert [span[1:3] for span in spans] == [(2.1, 2.3), (2.4, 2.5)]


def test_hypotheses_have_spans_too():
    """Straight from decoding: the same labels and times, and its confidences."""
    logits = 5.0 * jnp.eye(5)[jnp.array([[0, 1, 1, 0, 2], [3, 0, 3, 0, 0]])]
    greedy = jax_ctc.greedy_decode(logits, [5, 4])
    expected = jax_ctc.ctc_align(
        logits, greedy.labels, [5, 4], greedy.lengths, blank_id=0
    )
    expected = jax_ctc.token_spans(expected, 25)
    assert [[span[:3] for span in row] for row in expected] == [
        [(1, 0.04, 0.12), (2, 0.16, 0.2)],
        [(3, 0.0, 0.04), (3, 0.08, 0.12)],
    ]
    beam = jax_ctc.beam_search_decode(logits, [5, 4], num_hypotheses=2, times=True)
    rows = jax_ctc.token_spans(beam, 25)
    assert len(rows) == 4
    assert [len(row) for row in rows] == beam.lengths.reshape(-1).tolist()
    for found in (jax_ctc.token_spans(greedy, 25), rows[::2]):
        for row, other in zip(found, expected, strict=True):
            assert [span[:3] for span in row] == [span[:3] for span in other]
            np.testing.assert_allclose(
                [span.score for span in row], [span.score for span in other], rtol=1e-6
            )
    without = dataclasses.replace(beam, start=None, end=None, confidence=None)
    with pytest.raises(ValueError, match="pass times=True"):
        jax_ctc.token_spans(without, 25)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((None, 1), {}, TypeError, "`alignment` must be a CTCAlignment"),
        (("a", 1), {"offset": np.inf}, ValueError, "`offset` must be a finite"),
        (("a", 0), {}, ValueError, "`frame_rate` must be frames per second.*got 0"),
        (("a", "x"), {}, ValueError, "`frame_rate` must be frames per second.*'x'"),
        (("a", 1), {"vocabulary": "-a"}, ValueError, "class 2 is not among its 2"),
        (("a", 1), {"separator": " "}, ValueError, "it needs `vocabulary`"),
        (
            ("a", 1),
            {"vocabulary": "-ab", "separator": 3},
            ValueError,
            "got separator=3",
        ),
        (("a", 1), {"vocabulary": iter("-ab")}, TypeError, "`vocabulary` must hold"),
    ],
)
def test_mistakes(arguments, options, error, message):
    """Designed messages."""
    alignment, rate = arguments
    alignment = align([1, 0, 2], [1, 2]) if alignment == "a" else alignment
    with pytest.raises(error, match=message):
        jax_ctc.token_spans(alignment, rate, **options)


def test_inside_jit_it_explains_itself():
    """A list is made on the host."""
    with pytest.raises(TypeError, match="call `token_spans` outside"):
        jax.jit(lambda a: jax_ctc.token_spans(a, 1))(align([1], [1]))


def test_textgrid_is_read_back(tmp_path):
    """By an independent reader: every interval, gaps empty, nothing lost."""
    path = tmp_path / "a.TextGrid"
    jax_ctc.write_spans(SPANS, path, duration=4000)
    grid = praatio.textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
    assert grid.tierNames == ("a",)
    tier = grid.getTier("a")
    assert (tier.minTimestamp, tier.maxTimestamp) == (0, 4000)
    assert [tuple(entry) for entry in tier.entries] == [
        (0, 0.25, ""),
        (0.25, 0.75, "say"),
        (0.75, 1.0, '"a<b>&{c}"'),
        (1.0, 3661.5, ""),
        (3661.5, 3662.0, "né"),
        (3662.0, 4000, ""),
    ]


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_subtitles_are_read_back(format, tmp_path):
    """Times to the millisecond, past the hour too; markup is text."""
    path = tmp_path / f"a.{format}"
    jax_ctc.write_spans(SPANS, path)
    text = path.read_text(encoding="utf-8")
    cues = list(pysubs2.SSAFile.from_string(text, format_=format))
    assert [(cue.start, cue.end) for cue in cues] == [
        (250, 750),
        (750, 1000),
        (3_661_500, 3_662_000),
    ]
    assert "né" in text
    point = {"srt": ",", "vtt": "."}[format]
    assert f"01:01:01{point}500 --> 01:01:02{point}000" in text
    assert ("&lt;b&gt;&amp;{c}" in text) == (format == "vtt")
    assert ("a<b>&{c}" in text) == (format == "srt")
    assert text.startswith("WEBVTT\n\n") == (format == "vtt")


def test_json_is_read_back():
    """All four fields, in full precision."""
    file = io.StringIO()
    jax_ctc.write_spans(SPANS, file, format="json", name="x")
    record = json.loads(file.getvalue())
    assert (record["name"], record["duration"]) == ("x", 3662.0)
    assert [TokenSpan(**span) for span in record["spans"]] == SPANS


def test_ctm_of_many_utterances():
    """One open file, a line per word."""
    file = io.StringIO()
    for name in ("u1", "u2"):
        jax_ctc.write_spans(SPANS[:1], file, format="ctm", name=name)
    assert file.getvalue() == "u1 1 0.250 0.500 say 0.900\nu2 1 0.250 0.500 say 0.900\n"


# What rounds to no duration, alone, in a row, and at the very end.
SHORT = [
    TokenSpan("a", 0.0, 0.0, 1.0),
    TokenSpan("b", 0.0, 0.0002, 1.0),
    TokenSpan("c", 0.0002, 0.0004, 1.0),
    TokenSpan("d", 0.5, 0.5, 1.0),
    TokenSpan("e", 0.5, 0.75, 1.0),
    TokenSpan("f", 1.0, 1.0, 1.0),
]


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_a_subtitle_lasts(format):
    """Players drop a cue that ends when it starts."""
    file = io.StringIO()
    jax_ctc.write_spans(SHORT, file, format=format)
    cues = list(pysubs2.SSAFile.from_string(file.getvalue(), format_=format))
    times = [(0, 1), (0, 1), (0, 1), (500, 501), (500, 750), (1000, 1001)]
    assert [(cue.start, cue.end) for cue in cues] == times
    assert [cue.text for cue in cues] == list("abcdef")


def test_an_interval_of_a_textgrid_lasts(tmp_path):
    """An independent reader opens it; nothing is moved by more than nanoseconds."""
    path = tmp_path / "short.TextGrid"
    jax_ctc.write_spans(SHORT, path)
    grid = praatio.textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
    intervals = grid.getTier("short").entries
    assert [one.label for one in intervals] == ["a", "b", "c", "", "d", "e", "", "f"]
    spans = {one.label: one for one in intervals if one.label}
    for span in SHORT:
        found = spans[span.label]
        np.testing.assert_allclose(found[:2], span[1:3], rtol=0, atol=1.01e-9)
        assert found.start < found.end
    for before, after in itertools.pairwise(intervals):
        assert before.end == after.start


def test_spans_of_fast_frames_are_read_back(tmp_path):
    """Two frames at 5000 frames per second round to one millisecond."""
    alignment = align([1, 0, 2, 0, 3], [1, 2, 3])
    [spans] = jax_ctc.token_spans(alignment, 5000, vocabulary="-abcd")
    for format in ("srt", "vtt"):
        path = tmp_path / f"a.{format}"
        jax_ctc.write_spans(spans, path)
        cues = list(pysubs2.SSAFile.load(str(path)))
        assert [cue.text for cue in cues] == ["a", "b", "c"]
        assert all(cue.start < cue.end for cue in cues)


@pytest.mark.parametrize("format", ["textgrid", "srt", "vtt", "ctm"])
def test_control_characters_are_shown(format, tmp_path):
    """Nothing that acts gets into a file that a terminal or a player may show."""
    path = tmp_path / "a.txt"
    label = "\x00a\x1b[2Jb\x7f\x9bc\u202b"
    jax_ctc.write_spans([TokenSpan(label, 0, 1, 1)], path, format=format, name="\x07x")
    text = path.read_text(encoding="utf-8")
    assert r"\x00a\x1b[2Jb\x7f\x9bc" + "\u202b" in text  # directions are spelling
    assert (r"\x07x" in text) == (format in ("textgrid", "ctm"))
    others = {c for c in text if unicodedata.category(c) == "Cc"}
    assert others == {"\n"}


def test_lines_of_a_label():
    """Two lines of a subtitle; one text of an interval, whose lines readers count."""
    spans = [TokenSpan("a\n\tb", 0, 1, 1)]
    files = {"srt": "a\n\tb\n", "textgrid": r'text = "a\n\tb"'}
    for format, needle in files.items():
        file = io.StringIO()
        jax_ctc.write_spans(spans, file, format=format)
        assert needle in file.getvalue()


def test_json_keeps_what_a_label_is():
    """Text stays text, a number that number, whatever type holds it."""
    labels = ["a\x1b\u202e", 3, np.int64(7), np.uint8(200), 1.5, np.float32(0.5)]
    spans = [TokenSpan(label, n, n + 1, 1.0) for n, label in enumerate(labels)]
    file = io.StringIO()
    jax_ctc.write_spans(spans, file, format="json")
    read = [span["label"] for span in json.loads(file.getvalue())["spans"]]
    assert read == ["a\x1b\u202e", 3, 7, 200, 1.5, 0.5]
    assert [type(label) for label in read] == [str, int, int, int, float, float]


@pytest.mark.parametrize(
    ("name", "expected"), [(0, "0"), ("", None), (None, "labels"), (7, "7")]
)
def test_names_of_utterances(name, expected):
    """A number is a name, 0 as well; no name is none, and not the default."""
    file = io.StringIO()
    if expected is None:
        with pytest.raises(ValueError, match="'' cannot be written"):
            jax_ctc.write_spans(SPANS[:1], file, format="ctm", name=name)
    else:
        jax_ctc.write_spans(SPANS[:1], file, format="ctm", name=name)
        assert file.getvalue().split()[0] == expected


def test_a_failure_leaves_the_old_file(tmp_path):
    """A label that no file can hold, in the format that may not change it."""
    path = tmp_path / "a.json"
    path.write_text("an hour of work")
    with pytest.raises(ValueError, match=r"\\udc80"):
        jax_ctc.write_spans([TokenSpan("\udc80", 0.0, 1.0, 1.0)], path)
    assert path.read_text() == "an hour of work"
    assert list(tmp_path.iterdir()) == [path]


def test_all_that_came_of_one_utterance():
    """`token_spans` lists utterances; of one, its list is taken for it."""
    one, all_of_it = io.StringIO(), io.StringIO()
    jax_ctc.write_spans(SPANS, one, format="srt")
    jax_ctc.write_spans([SPANS], all_of_it, format="srt")
    assert all_of_it.getvalue() == one.getvalue()


@pytest.mark.parametrize("format", ["textgrid", "ctm", "srt", "vtt", "json"])
def test_nothing_to_write(format):
    """An utterance without spans is a valid, empty file."""
    file = io.StringIO()
    jax_ctc.write_spans([], file, format=format, duration=2.0)
    text = file.getvalue()
    if format == "textgrid":
        assert "intervals: size = 1" in text
    if format in ("srt", "ctm"):
        assert text == ""


@pytest.mark.parametrize(
    ("spans", "file", "options", "message"),
    [
        (SPANS, "a.txt", {}, r"`format` must be one of 'textgrid', .* got the path"),
        (SPANS, "a.srt", {"format": "word"}, "got format='word'"),
        (SPANS, None, {}, "`format` must be given for an open file"),
        (
            SPANS,
            "a.json",
            {"duration": 1.0},
            "at least the end of the last span, 3662;",
        ),
        ([TokenSpan("a b", 0, 1, 1)], "a.ctm", {}, "'a b' cannot be written"),
        ([TokenSpan("a\n\nb", 0, 1, 1)], "a.srt", {}, "ends at an empty line"),
        ([TokenSpan("", 0, 1, 1)], "a.vtt", {}, "ends at an empty line"),
        ([TokenSpan(" ", 0, 1, 1)], "a.srt", {}, "join words by"),
        ([TokenSpan("a\r\r\nb", 0, 1, 1)], "a.vtt", {}, "ends at an empty line"),
        (SPANS[::-1], "a.TextGrid", {}, "must be in order.* at 1, after 3662 s"),
        ([TokenSpan("a", -1, 1, 1)], "a.srt", {}, "start at 0 or later"),
        ([TokenSpan("a", 0, 1, np.nan)], "a.json", {}, "finite numbers"),
        ([], "a.TextGrid", {}, "there is no span: pass `duration`"),
        (SPANS[:1], "a.ctm", {"name": ";;x"}, "comments by ';;'"),
        (SPANS, "a.json", {"duration": "long"}, "must be seconds.*got 'long'"),
    ],
)
def test_what_cannot_be_written(spans, file, options, message, tmp_path):
    """Refused before anything is written."""
    target = io.StringIO() if file is None else tmp_path / file
    with pytest.raises(ValueError, match=message):
        jax_ctc.write_spans(spans, target, **options)
    assert not list(tmp_path.iterdir())


def test_what_is_no_utterance_or_no_file(tmp_path):
    """All utterances at once is the likeliest mistake."""
    with pytest.raises(TypeError, match="got list at 0. .* write them one by one"):
        jax_ctc.write_spans([SPANS, SPANS], tmp_path / "a.srt")
    with pytest.raises(TypeError, match="`file` must be a path .* got None"):
        jax_ctc.write_spans(SPANS, None, format="srt")
    jax_ctc.write_spans(SPANS, tmp_path / "a", format="TextGrid")
    with (tmp_path / "a").open() as file, pytest.raises(io.UnsupportedOperation):
        jax_ctc.write_spans(SPANS, file, format="srt")


@pytest.mark.parametrize("make", [io.BytesIO, tempfile.TemporaryFile])
def test_a_binary_file_is_named(make):
    with make() as file:
        with pytest.raises(TypeError, match=r"`file` takes bytes.*open\(path, \"w\""):
            jax_ctc.write_spans(SPANS, file, format="srt")
        assert file.tell() == 0


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ((span for span in SPANS), r"got generator. Pass list\(spans\)"),
        (iter(SPANS), r"got list_iterator. Pass list\(spans\)"),
        (SPANS[0], r"got TokenSpan. Pass \[span\]"),
        (None, "`spans` must be a list of TokenSpan.*got NoneType"),
    ],
)
def test_what_is_no_list(spans, message):
    with pytest.raises(TypeError, match=message):
        jax_ctc.write_spans(spans, io.StringIO(), format="srt")
