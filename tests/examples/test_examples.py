"""The examples run, teach what they say, and fail clearly."""

import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from examples import align, data_set_page, doctor_page, draw_graph
from examples import three_wrong_losses as wrong
from tests.cases import more
from tests.interrupts import interrupts_heeded

ROOT = pathlib.Path(__file__).parents[2]
PROBS = np.array([[0.1, 0.2, 0.7], [0.3, 0.6, 0.1], [0.8, 0.1, 0.1]])
LABELS = [1, 2]
RIGHT = {"3  corrected", "ctc_loss(logits)"}


def start(module, *arguments):
    """Start an example as its users do."""
    with interrupts_heeded():
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def demo(*arguments):
    """Start the demo as `make demo` does."""
    return start("examples.handwriting", *arguments)


def finish(process):
    """Wait; return exit code, output and errors."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def short_run(folder):
    """Train for a little while."""
    return *finish(demo("--steps", 60, "--out", folder)), folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training."""
    return short_run(tmp_path_factory.mktemp("first"))


@pytest.mark.exhaustive
def test_demo_learns_and_says_so(run):
    """After 60 steps it reads more digits than it misses; two pictures are there."""
    code, out, err, folder = run
    assert code == 0, err
    assert "Traceback" not in err
    *_, errors, exact = out.strip().splitlines()
    rate = re.fullmatch(r"digit error rate (\d+\.\d) %", errors)
    assert rate, errors
    assert float(rate[1]) < 60
    assert re.fullmatch(r"exact lines \d+\.\d %", exact), exact
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert pictures == ["handwriting_alignment.png", "handwriting_training.png"]


@pytest.mark.exhaustive
def test_demo_repeats_itself(run, tmp_path):
    """Seeded: the same numbers and the same pictures on a second run."""
    numbers, two_runs = [], [run, short_run(tmp_path)]
    for _, out, _, folder in two_runs:
        lines = out.replace(str(folder), "OUT").splitlines()
        start = next(i for i, line in enumerate(lines) if "truth" in line)
        numbers.append(lines[start:])
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) > 10
    for name in ("handwriting_alignment.png", "handwriting_training.png"):
        first, second = ((run[3] / name).read_bytes() for run in two_runs)
        assert first == second


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (["--steps", "0"], "--steps must be at least 1; got 0"),
        more(["--seed", "-1"], "--seed must be from 0"),
        more(["--out", "/dev/null/pictures"], "--out /dev/null/pictures: cannot write"),
    ],
)
def test_demo_refuses_bad_options(arguments, needle):
    """One line that names the option, before any training."""
    code, out, err = finish(demo(*arguments))
    assert code == 2
    assert needle in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err


@pytest.mark.parametrize("seconds", [1.0, 9.0], ids=["importing", "compiling"])
def test_demo_stops_on_interrupt(seconds, tmp_path):
    """Ctrl-C, wherever it falls, is one clear line and exit code 130."""
    process = demo("--steps", 100_000, "--out", tmp_path)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130
    assert "Traceback" not in out + err
    assert re.search(r"^stopped .*nothing was saved$", err, re.M), err


def test_five_paths():
    """The paths that a reader can add up by hand."""
    paths = wrong.paths(LABELS, 3, 3)
    assert paths == [(0, 1, 2), (1, 0, 2), (1, 1, 2), (1, 2, 0), (1, 2, 2)]
    total = sum(wrong.path_probability(PROBS, path) for path in paths)
    np.testing.assert_allclose(total, 0.042)


@pytest.mark.relaxed
@pytest.mark.parametrize("name", wrong.LOSSES)
def test_the_sum_over_all_labels_exposes_wrong_losses(name):
    """1 for a CTC loss, and something else for each mistake."""
    logits = np.log(PROBS) + 2
    total = wrong.total_probability(wrong.LOSSES[name], logits)
    is_distribution = name in RIGHT | {"ctc_loss(probs)"}  # of other probabilities
    assert (abs(total - 1) < 1e-5) == is_distribution
    loss = wrong.LOSSES[name](logits, LABELS)
    is_right = name in RIGHT | {"3d repeats touch"}  # wrong only where labels repeat
    assert (abs(loss + np.log(0.042)) < 1e-5) == is_right


@pytest.mark.relaxed
def test_three_wrong_losses_prints_its_tables(capsys):
    """The page's numbers are the example's."""
    wrong.main()
    printed = capsys.readouterr().out
    page = (ROOT / "docs" / "why_ctc_losses_go_wrong.md").read_text()
    for number in ("0.042", "3.1701", "3.9120", "5.1160", "2.6560", "403.4288"):
        assert number in printed
        assert number in page


@pytest.mark.exhaustive
def test_align_finds_the_digits(tmp_path):
    """Even a half-trained reader, told what is written, finds where."""
    code, out, err = finish(
        start("examples.align", "--steps", 60, "--lines", 2, "--out", tmp_path)
    )
    assert code == 0, err
    assert "2 held-out lines, in pixel columns" in out
    found = re.search(r"^found in their own columns: (\d+\.\d) % ", out, re.M)
    assert float(found[1]) > 80
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "alignment.TextGrid",
        "alignment.png",
    ]
    assert 'class = "IntervalTier"' in (tmp_path / "alignment.TextGrid").read_text()


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (["--lines", "0"], "--lines must be at least 1; got 0"),
        more(["--out", "/dev/null/x"], "--out /dev/null/x: cannot write"),
    ],
)
def test_align_refuses_bad_options(arguments, needle, monkeypatch, capsys):
    """One line, before any training."""
    monkeypatch.setattr(align, "on_interrupt", lambda last_words: None)
    monkeypatch.setattr(sys, "argv", ["align", *arguments])
    assert align.main() == 2
    out, err = capsys.readouterr()
    assert needle in err
    assert len(err.splitlines()) == 1
    assert not out


@pytest.mark.parametrize(
    ("page", "example"),
    [("doctor", doctor_page), ("clean_a_data_set", data_set_page)],
)
def test_a_page_is_that_of_its_docs(page, example, monkeypatch, capsys):
    """The docs show one report's page; without a browser there is no picture of it."""
    text = (ROOT / f"docs/{page}.md").read_text()
    assert text.count(example.SHOWN) == 1
    monkeypatch.setattr(example.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["page"])
    assert example.main() == 2
    assert "no browser on PATH: chromium" in capsys.readouterr().err


def test_draw_graph_draws_the_picture_of_the_docs(monkeypatch, capsys, tmp_path):
    """Both graphs; the picture that the docs show is as wide and as high."""
    monkeypatch.setattr(sys, "argv", ["draw_graph", "--out", str(tmp_path / "new")])
    assert draw_graph.main() == 0
    drawn = tmp_path / "new/graph.png"
    assert capsys.readouterr().out.split() == [str(drawn)]
    shown = ROOT / "docs/images/graph.png"
    # The signature of a PNG, and its size in pixels.
    assert drawn.read_bytes()[:24] == shown.read_bytes()[:24]
