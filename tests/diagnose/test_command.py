"""`python -m jax_ctc diagnose`: what it prints, where, and with which exit code."""

import io
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ctc import __main__ as command
from jax_ctc.__main__ import _track, main
from jax_ctc._output.visible import visible
from tests.diagnose.conftest import CRAFTED, NAMES

ROOT = pathlib.Path(__file__).parents[2]


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


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_names_of_classes_do_nothing_to_a_terminal(option, batch, tmp_path, capsys):
    path = tmp_path / "b.npz"
    np.savez(path, **batch, vocabulary=np.array([*CRAFTED[:3], CRAFTED[3][:3]]))
    assert main(["diagnose", str(path), *option]) == 1
    printed = capsys.readouterr().out
    assert visible(printed, keep="\n") == printed
    if option:
        assert json.loads(printed)["utterances"][0]["labels"].startswith("\x1b[2J")
    else:
        assert r"\x1b[2J" in printed


def test_names_of_files_do_nothing_to_a_terminal(tmp_path, capsys):
    """A member's name, and the file's own, in an error."""
    path = tmp_path / "\x1b[2J.npz"
    with zipfile.ZipFile(path, "w") as file:
        array = io.BytesIO()
        np.save(array, np.zeros(2))
        file.writestr("\x1b]0;gone\x07\u202e.npy", array.getvalue())
    assert main(["diagnose", str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert visible(line) == line
    assert r"\x1b[2J.npz: holds \x1b]0;gone\x07\u202e" in line


@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("what", ["batch", "words"])
def test_the_page_does_not_overwrite_what_is_read(
    what, is_linked, file, tmp_path, capsys
):
    words = tmp_path / "words.txt"
    words.write_text("p\nq\nr\ns\n")
    target = page = {"batch": file, "words": words}[what]
    if is_linked:
        page = tmp_path / "page.html"
        page.symlink_to(target)
    before = target.read_bytes()
    options = ["--html", str(page), "--vocabulary", str(words)]
    assert main(["diagnose", str(file), *options]) == 2
    assert target.read_bytes() == before
    printed = capsys.readouterr()
    assert (
        printed.err
        == f"{page}: --html would write the page over a file that it reads\n"
    )
    assert printed.out == ""


def test_a_page_that_fails_leaves_the_old_one(file, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.html"
    page.write_text("the old page")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["diagnose", str(file), "--html", str(page)]) == 2
    assert page.read_text() == "the old page"
    assert f"No space left on device: '{page}'" in capsys.readouterr().err


def test_a_file_too_large_for_memory(tmp_path, capsys):
    """A header that claims 4 EB, in a few bytes on a disk: no system promises that."""
    header, path = io.BytesIO(), tmp_path / "claim.npz"
    claim = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("logits.npy", header.getvalue())
    assert main(["diagnose", str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: too large for the memory here; save fewer utter")


@pytest.mark.parametrize("error", [MemoryError("32 GiB"), "RESOURCE_EXHAUSTED: 32 GiB"])
def test_a_diagnosis_too_large_for_memory(error, file, monkeypatch, capsys):
    """Whoever runs out of it, NumPy or XLA."""
    if isinstance(error, str):
        error = jax.errors.JaxRuntimeError(error)

    def fail(**_):
        raise error

    monkeypatch.setattr(command, "diagnose", fail)
    assert main(["diagnose", str(file)]) == 2
    assert "too large for the memory here" in capsys.readouterr().err


def test_another_error_of_the_machine_is_none_of_the_files(file, monkeypatch):
    def fail(**_):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    monkeypatch.setattr(command, "diagnose", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        main(["diagnose", str(file)])


def test_a_vocabulary_that_is_no_text_is_named(file, tmp_path, capsys):
    words = tmp_path / "words.txt"
    words.write_bytes("p\nq\nä\ns\n".encode("latin-1"))
    assert main(["diagnose", str(file), "--vocabulary", str(words)]) == 2
    assert (
        capsys.readouterr().err == f"{words}: not UTF-8, at byte 4; save it as UTF-8\n"
    )
    words.write_text("p\nq\nä\ns\n", encoding="utf-8-sig")  # as Windows writes it
    assert main(["diagnose", str(file), "--json", "--vocabulary", str(words)]) == 1
    assert json.loads(capsys.readouterr().out)["utterances"][0]["labels"] == "qs"


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
        b"{'descr': '<f4'" + b" " * 20_000 + b"}",
    ],
    ids=["unfinished", "objects", "long"],
)
def test_nobody_is_told_to_trust_a_file(header, tmp_path, capsys):
    """Whatever NumPy's parser says to a bad header, pickles are no way out."""
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(path, "w") as file:
        size = len(header).to_bytes(2, "little")
        file.writestr("logits.npy", b"\x93NUMPY\x01\x00" + size + header)
    assert main(["diagnose", str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "pickle" not in line
    assert "logits" in line or "damaged" in line


def test_a_page_that_cannot_be_written(file, capsys):
    assert main(["diagnose", str(file), "--html", "/dev/null/page.html"]) == 2
    assert "/dev/null/page.html" in capsys.readouterr().err


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
