"""The page of a data set's report: what is on it, and that it is only text."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from rich.console import Console

import jax_ctc
from jax_ctc._report import collect, page
from tests.diagnose.conftest import CRAFTED
from tests.diagnose.test_doctor_output import BROWSERS, Page, hide


@pytest.fixture
def ranking(monkeypatch):
    """Rank six utterances, whose names and classes are out to do something."""
    found = jax_ctc.Finding("TIGHT", "warning", (0,), {}, "<b>tight</b>")
    report = jax_ctc.Report((found,), (), {})
    monkeypatch.setattr(collect, "diagnose", lambda *_, **__: report)
    rng = np.random.default_rng(0)
    batch = {
        "logits": 3 * rng.normal(size=(6, 7, 4)).astype(np.float32),
        "labels": np.array([[1, 9, 2], [1, 3, 2], [9, 1, 3]] * 2, np.int32),
        "logit_lengths": np.array([7, 6, 5, 7, 8, 1], np.int32),
        "names": ["<script>", "\x1b[2J", "c", "d", "e", "\u202e"],
    }
    return jax_ctc.rank_utterances(
        [batch],
        inputs="log_probs",
        vocabulary=CRAFTED,
        wildcard_id=9,
        num_pictures=4,
    )


def test_the_worst_are_first_and_drawn(ranking, monkeypatch):
    """In the order of the ranking, four of six; frames after a length only if odd."""
    drawn = []

    def draw(given, index, full):
        drawn.append((given.scores.shape, full, int(given.logit_lengths[index])))
        return f"data:{len(drawn)}"

    monkeypatch.setattr(page, "draw", draw)
    seen = []
    text = ranking.to_html(track=lambda some: seen.append(len(some)) or some)
    shown = Page(text)
    assert seen == [4]
    assert shown.sources == [f"data:{n}" for n in (1, 2, 3, 4)]
    first = [f"utterance-{row.batch}-{row.index}" for row in ranking.utterances]
    assert shown.ids == ["findings", *first[:4], "utterances"]
    assert shown.links == ["#utterances", *(f"#{name}" for name in first[:4])]
    assert {row.index for row in ranking.utterances[:2]} == {4, 5}
    # All in one shape; of a bad length nothing is left out, and it stays bad.
    assert {shape for shape, _, _ in drawn} == {(1, 7, 4)}
    assert drawn[:2] == [((1, 7, 4), 7, -1), ((1, 7, 4), 7, 1)]
    for row, (_, full, length) in zip(ranking.utterances[2:4], drawn[2:], strict=True):
        assert full == (7 if row.findings else length)


def test_what_is_on_it_is_text(ranking):
    """Nothing is fetched from elsewhere, and a name does nothing, whatever it spells.

    The pictures are real ones.
    """
    text = ranking.to_html()
    shown = Page(text)
    assert all(source.startswith("data:image/png;base64,") for source in shown.sources)
    assert not {"script", "link", "b"} & set(shown.tags)
    for name in ("<script>", r"\x1b[2J", r"\u202e", "<b>tight</b>"):
        assert name in shown.text
    assert {"del", "ins", "span"} <= set(shown.tags)
    for written in (text, ranking.to_json(), str(ranking)):
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e\udc80]", written)
    json.loads(ranking.to_json())
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(ranking)
    console.file.close()
    assert "INFEASIBLE" in console.export_text()


def test_long_tables_end(ranking, monkeypatch):
    monkeypatch.setattr(page, "_MOST_ROWS", 5)
    monkeypatch.setattr(page, "draw", lambda *_: "data:")
    assert "And 1 more, which JSON has." in ranking.to_html()


@pytest.mark.parametrize("package", ["rich", "matplotlib", "jinja2"])
def test_a_missing_extra_is_named(package, ranking, monkeypatch):
    """The message says what to install; plain text and JSON go on without."""
    hide(package, monkeypatch)
    with pytest.raises(
        ModuleNotFoundError, match=rf"{package}: pip install 'jax_ctc\[doctor"
    ):
        ranking.__rich__() if package == "rich" else ranking.to_html()
    assert str(ranking)
    assert ranking.to_json()


@pytest.mark.exhaustive
def test_on_a_phone(ranking, tmp_path):
    """Nothing is wider than the screen but what scrolls by itself."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser on PATH (looked for {', '.join(BROWSERS)})")
    probe = """<script>window.onload = () => {
        document.body.dataset.seen = [document.documentElement.scrollWidth,
          ...[...document.images].map(i => i.naturalWidth)].join(' '); }</script>"""
    inner = tmp_path / "page.html"
    inner.write_text(ranking.to_html().replace("</body>", probe + "</body>"))
    outer = tmp_path / "phone.html"  # a headless window is no narrower than 500
    outer.write_text(
        f'<iframe src="{inner.as_uri()}" style="width:390px;height:800px;border:0">'
        "</iframe><script>window.onload = () => setTimeout(() => { document.title ="
        " document.querySelector('iframe').contentDocument.body.dataset.seen }, 500)"
        "</script>"
    )
    rendered = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--allow-file-access-from-files", "--dump-dom"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=600,900"),
            *("--virtual-time-budget=5000", outer.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    [width, *pictures] = map(int, re.search(r"<title>([\d ]+)<", rendered)[1].split())
    assert width <= 390
    assert len(pictures) == 4
    assert min(pictures) > 500
