"""What the doctor says where: terminal, JSON, a page in a real browser."""

import dataclasses
import html.parser
import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from matplotlib.font_manager import FontProperties, findfont
from rich.console import Console

import jax_ctc
from jax_ctc.__main__ import main
from jax_ctc._diagnose import page
from jax_ctc._diagnose.batch import read_batch
from jax_ctc._output.visible import visible
from jax_ctc._pictures import fonts
from jax_ctc._pictures import utterance as picture
from tests.diagnose.conftest import CRAFTED

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.mark.parametrize("width", [80, 140])
def test_rich_shows_findings_and_utterances(report, width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report)
    console.file.close()
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    for needle in ("2 findings (B = 3", "INFEASIBLE", "LABEL_OUT_OF_RANGE", "error"):
        assert needle in text
    if width == 140:
        rows = [line.split() for line in text.splitlines()]
        [fine] = [row for row in rows if row[-1:] == ["ok"]]
        assert fine[0] == "0"
        assert "a <i>&$" in text
        assert "most frames missing: 1" in text


def test_plain_text_needs_nothing(report):
    lines = str(report).splitlines()
    assert lines[1].startswith("error INFEASIBLE [1]: fewer frames than labels")
    assert lines[2].startswith("error LABEL_OUT_OF_RANGE [2]: a label id inside")


def test_many_rows_are_not_all_shown():
    """The flagged ones are, and the rest is counted."""
    row = jax_ctc.Utterance(0, 1.0, 1.0, 1.0, 2, 0.5, 0.1, 0.9, "a", "a", ())
    rows = tuple(row if b == 0 else _numbered(row, b) for b in range(50))
    finding = jax_ctc.Finding("TIGHT", "warning", (49,), {"utterances": 1}, "tight")
    long = jax_ctc.Report((finding,), rows, {"B": 50})
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(long)
    console.file.close()
    text = console.export_text()
    assert "and 18 more utterances" in text
    assert re.search(r"^ *49 ", text, re.M)
    assert not re.search(r"^ *40 ", text, re.M)


def _numbered(row, index):
    return jax_ctc.Utterance(**{**vars(row), "index": index})


class Page(html.parser.HTMLParser):
    """The parts of a page that tests look at."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.ids, self.sources, self.links = [], "", [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if "src" in attributes:
            self.sources.append(attributes["src"])
        if "href" in attributes:
            self.links.append(attributes["href"])

    def handle_data(self, data):
        self.text += data


def test_page_is_self_contained_and_escapes(report):
    """Nothing is fetched from elsewhere, and a label is text, whatever it spells."""
    page = Page(report.to_html())
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.links == ["#utterance-1", "#utterance-2"]
    assert {"findings", "utterances", "utterance-1", "utterance-2"} == set(page.ids)
    assert "a <i>&$" in page.text
    assert "i" not in page.tags


def test_every_flagged_utterance_has_a_picture(report, monkeypatch):
    """However many, and whoever draws a progress bar is told of all of them."""
    monkeypatch.setattr(page, "draw", lambda given, index: f"data:{index}")
    rows = tuple(_numbered(report.utterances[0], index) for index in range(70))
    finding = dataclasses.replace(report.findings[0], utterances=tuple(range(64)))
    long = dataclasses.replace(report, findings=(finding,), utterances=rows)
    seen = []
    text = long.to_html(track=lambda indices: seen.append(indices) or indices)
    assert seen == [list(range(64))]
    assert Page(text).sources == [f"data:{index}" for index in range(64)]
    assert Page(text).links == [f"#utterance-{index}" for index in range(64)]


@pytest.mark.parametrize(
    "name", ["日本", "語", "한", "🙂", "$x$", "a\nb", "", "▁" * 40, "\x00\u202e"]
)
def test_a_picture_needs_no_font(batch, name):
    """What matplotlib cannot draw is drawn as its id; warnings are errors here."""
    given = read_batch(
        tuple(batch.values()),
        blank_id=0,
        inputs="logits",
        vocabulary=["_", name, "b", "c"],
    )
    drawn = picture.draw(given, 0)
    assert drawn.startswith("data:image/png;base64,")
    written = picture._name(given, 1)
    glyphs = "".join(map(chr, fonts._glyphs(str(findfont(FontProperties())))))
    assert set(written) <= set(glyphs)
    names = {"$x$": "$x$", "": "''", "▁" * 40: "▁" * 11 + "…", "a\nb": r"a\nb"}
    assert written == (names | {"\x00\u202e": r"\x00\u202e"}).get(name, "1")


def test_a_picture_of_no_frames():
    broken = jax_ctc.diagnose(np.zeros((1, 0, 3), np.float32), [[1]])
    assert len(Page(broken.to_html()).sources) == 1


def test_page_in_a_browser(file, tmp_path):
    """Rendered: both tables in full, every picture loaded, and something on them."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser on PATH (looked for {', '.join(BROWSERS)})")
    page = tmp_path / "page.html"
    assert main(["diagnose", str(file), "--html", str(page)]) == 1
    probe = """
      <script>window.onload = () => {
        const pictures = [...document.images].map(i => i.naturalWidth);
        const rows = id => document.querySelectorAll('#' + id + ' tr').length;
        document.body.dataset.seen = JSON.stringify({
          pictures, findings: rows('findings'), utterances: rows('utterances'),
          width: document.documentElement.scrollWidth,
          visible: document.querySelector('h1').getBoundingClientRect().height > 0});
      }</script></body>"""
    page.write_text(page.read_text().replace("</body>", probe))
    picture = tmp_path / "page.png"
    rendered = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,1500"),
            *(f"--screenshot={picture}", "--dump-dom", "--virtual-time-budget=5000"),
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    seen = re.search(r'data-seen="([^"]*)"', rendered)
    assert seen, rendered[-2000:]
    seen = json.loads(html.parser.unescape(seen[1]))
    assert seen["findings"] == 1 + 2
    assert seen["utterances"] == 1 + 3
    assert len(seen["pictures"]) == 2
    assert min(seen["pictures"]) > 500
    assert seen["width"] <= 1200
    assert seen["visible"]
    from matplotlib.image import imread

    pixels = imread(picture)
    assert pixels.shape[:2] == (1500, 1200)
    # The pictures are drawn, not merely there: the lower half is no blank paper.
    assert (pixels[750:, :, :3] < 0.5).any(2).mean() > 0.005


@pytest.fixture(scope="module")
def crafted(batch):
    """A report on classes whose names are out to do something."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        return jax_ctc.diagnose(**batch, vocabulary=CRAFTED)


def test_names_of_classes_do_nothing_to_a_report(crafted):
    """Nor to its plain text, its JSON or its page, and each of them can be saved."""
    assert crafted.utterances[0].labels.startswith("\x1b[2J")  # the record is true
    for text in (str(crafted), crafted.to_json(), crafted.to_html()):
        assert visible(text, keep="\n") == text
        text.encode("utf-8")
    rows = json.loads(crafted.to_json())["utterances"]
    assert [row["labels"] for row in rows] == [u.labels for u in crafted.utterances]
    assert r"\x9b\x00\u202e\udc80" in Page(crafted.to_html()).text


def hide(package, monkeypatch):
    """Let a package seem not to be installed."""
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("package", ["rich", "matplotlib"])
def test_a_missing_extra_is_named(package, report, file, monkeypatch, capsys):
    """The message says what to install; plain text and JSON go on without."""
    hide(package, monkeypatch)
    with pytest.raises(
        ModuleNotFoundError, match=rf"{package}: pip install 'jax_ctc\["
    ):
        report.__rich__() if package == "rich" else report.to_html()
    assert str(report)
    assert report.to_json()
    assert main(["diagnose", str(file)]) == 1
    printed = capsys.readouterr()
    assert "INFEASIBLE" in printed.out
    assert ("pip install 'jax_ctc[doctor]'" in printed.err) == (package == "rich")
