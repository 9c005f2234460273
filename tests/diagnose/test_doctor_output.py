"""What the doctor says where: terminal, JSON, a page in a real browser, exit codes."""

import dataclasses
import html.parser
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.font_manager import FontProperties, findfont
from rich.console import Console

import jax_ctc
from jax_ctc.__main__ import _track, main
from jax_ctc._diagnose import page
from jax_ctc._diagnose.batch import read_batch
from jax_ctc._pictures import fonts
from jax_ctc._pictures import utterance as picture

ROOT = pathlib.Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NAMES = ["_", "a", "b", "<i>&$"]


@pytest.fixture(scope="module")
def batch():
    """Three utterances: fine, too short, and with an id that no class has."""
    rng = np.random.default_rng(5)
    return {
        "logits": 2 * rng.normal(size=(3, 6, 4)).astype(np.float32),
        "labels": np.array([[1, 3, 1], [2, 2, 1], [1, 7, 3]], np.int32),
        "logit_lengths": np.array([5, 3, 6], np.int32),
        "label_lengths": np.array([2, 3, 3], np.int32),
    }


@pytest.fixture(scope="module")
def report(batch):
    # As strict as the tests, which are set up later, or all would compile twice.
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        return jax_ctc.diagnose(**batch, vocabulary=NAMES)


@pytest.fixture
def file(batch, tmp_path):
    path = tmp_path / "batch.npz"
    np.savez(path, **batch, vocabulary=np.array(NAMES))
    return path


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
    "name", ["日本", "語", "한", "🙂", "$x$", "a\nb", "", "▁" * 40]
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
    assert written == {"$x$": "$x$", "": "''", "▁" * 40: "▁" * 11 + "…"}.get(name, "1")


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


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_terminal_shows_how_far_the_pictures_are(is_terminal, capsys, monkeypatch):
    """On stderr, so that --json stays JSON; a pipe is left alone."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(_track([3, 1, 4])) == [3, 1, 4]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("drawing flagged utterances" in printed.err) == is_terminal


def test_command_prints_tables(file, capsys):
    assert main(["diagnose", str(file)]) == 1
    printed = capsys.readouterr().out
    assert "LABEL_OUT_OF_RANGE" in printed
    assert "a <i>&$" in printed


def test_command_prints_json(file, report, capsys):
    """The same report as from Python, and nothing else on the output."""
    assert main(["diagnose", str(file), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == json.loads(report.to_json())


def test_options_override_the_file(batch, tmp_path, capsys):
    """And the file may hold every argument, vocabulary and blank included."""
    path, words = tmp_path / "batch.npz", tmp_path / "words.txt"
    words.write_text("p\nq\nr\ns\n")
    np.savez(path, **batch, blank_id=2, inputs="log_probs", vocabulary=np.array(NAMES))
    options = ["--blank-id", "0", "--inputs", "logits", "--vocabulary", str(words)]
    assert main(["diagnose", str(path), "--json", *options]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["passed"]["blank_id"] == 0
    assert content["passed"]["inputs"] == "logits"
    assert content["utterances"][0]["labels"] == "qs"


def test_a_healthy_file_exits_with_0(batch, tmp_path, capsys):
    path = tmp_path / "batch.npz"
    good = batch | {"labels": np.full((3, 3), [1, 2, 3]), "logit_lengths": [6, 6, 6]}
    # bfloat16 has no name of its own in NumPy's files.
    np.savez(path, **good | {"logits": np.asarray(good["logits"], jnp.bfloat16)})
    assert main(["diagnose", str(path)]) == 0
    assert "nothing to report" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"logits": 0, "labels": 0, "text": 0},
            "holds text, which `diagnose` does not",
        ),
        ({"log_probs": 0, "labels": 0}, "pass --inputs log_probs"),
        ({"logits": 0}, "lacks labels; it holds logits"),
        ({}, "lacks logits and labels; it holds nothing"),
        ({"logits": 0, "labels": 0}, "`logits` must be floating point"),
        ({"logits": np.array([{}]), "labels": 0}, "logits holds Python objects"),
        ({"logits": 0, "labels": 0, "blank_id": [0, 1]}, "blank_id must be one value"),
    ],
    ids=[
        "unknown",
        "log_probs",
        "no labels",
        "empty",
        "no array",
        "objects",
        "two blanks",
    ],
)
def test_a_bad_file_is_one_clear_line(content, message, tmp_path, capsys):
    path = tmp_path / "bad.npz"
    np.savez(path, **content)
    assert main(["diagnose", str(path)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.npz", None, "No such file"),
        ("text.npz", b"hello", "not an .npz file"),
        ("broken.npz", b"PK\x03\x04 broken", "not an .npz file"),
        ("empty.npz", b"", "not an .npz file"),
    ],
)
def test_what_is_no_file_of_arrays(name, content, message, tmp_path, capsys):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["diagnose", str(path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_damaged_file_is_no_finding(is_compressed, batch, tmp_path, capsys):
    path = tmp_path / "batch.npz"
    (np.savez_compressed if is_compressed else np.savez)(path, **batch)
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    assert main(["diagnose", str(path)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"{path}: ")
    assert "damaged" in printed
    assert len(printed.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("logits", "logits is no array"), ("logits.npy", "logits is")],
)
def test_a_zip_of_something_else(name, message, tmp_path, capsys):
    path = tmp_path / "batch.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, "")
    assert main(["diagnose", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_none_may_be_saved(batch, tmp_path, capsys):
    path = tmp_path / "batch.npz"
    np.savez(path, **batch | {"logit_lengths": None})
    assert main(["diagnose", str(path)]) == 1
    assert "LABEL_OUT_OF_RANGE" in capsys.readouterr().out


def test_a_missing_vocabulary_is_named(file, tmp_path, capsys):
    missing = str(tmp_path / "nowhere.txt")
    assert main(["diagnose", str(file), "--vocabulary", missing]) == 2
    assert capsys.readouterr().err.startswith(f"{missing}: No such file")


def test_json_goes_where_only_ascii_does(batch, tmp_path, monkeypatch):
    path, out = tmp_path / "batch.npz", io.BytesIO()
    np.savez(path, **batch, vocabulary=["_", "a", "ä", "語"])
    terminal = io.TextIOWrapper(out, encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["diagnose", str(path), "--json"]) == 1
    assert json.loads(out.getvalue())["utterances"][0]["labels"] == "a語"


def test_a_single_array_is_refused(tmp_path, capsys):
    np.save(tmp_path / "one.npy", np.zeros(3))
    assert main(["diagnose", str(tmp_path / "one.npy")]) == 2
    assert "save the batch by np.savez" in capsys.readouterr().err


def test_a_page_that_cannot_be_written(file, capsys):
    assert main(["diagnose", str(file), "--html", "/dev/null/page.html"]) == 2
    assert "/dev/null/page.html" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["rich", "matplotlib"])
def test_a_missing_extra_is_named(package, report, file, monkeypatch, capsys):
    """The message says what to install; plain text and JSON go on without."""
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
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


def test_the_module_runs_as_a_command(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "jax_ctc", "diagnose", str(tmp_path / "none.npz")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 2
    assert "No such file" in run.stderr
    assert "Traceback" not in run.stderr
