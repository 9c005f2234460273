"""The package with its compiled part, without it, and with one that is too new."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

import build_kernel
import jax_ctc
from jax_ctc._recursion.cpu import library

ROOT = build_kernel.ROOT

# Prints the loss, whether the kernel is there, and what asking for it by name says.
PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, jax_ctc
from jax_ctc._recursion.cpu import library

logits = jnp.sin(jnp.arange(60.0).reshape(1, 12, 5))
labels = jnp.array([[1, 2, 2]])
loss = lambda x: jax_ctc.ctc_loss(x, labels).sum()
value, gradient = jax.value_and_grad(loss)(logits)
try:
    jax_ctc.ctc_loss(logits, labels, implementation="cpu")
    refusal = None
except NotImplementedError as error:
    refusal = str(error)
print(json.dumps([jax_ctc.__file__, float(value), gradient.tolist(), refusal]))
"""


def pip(*arguments, **environment):
    """Run pip on the project, without looking anything up."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(
        [*command, "--no-deps", "--no-build-isolation", "--no-index", str(ROOT)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )


def run_from(folder, python=sys.executable):
    """Run the program with the package in a folder; nothing of this checkout."""
    run = subprocess.run(
        [python, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    file, value, gradient, refusal = json.loads(run.stdout.splitlines()[-1])
    assert file.startswith(str(folder))
    return value, gradient, refusal


@pytest.mark.slow
def test_without_a_compiler_everything_works(tmp_path):
    """`CXX=/bin/false pip install .` succeeds; the kernel says why it is not there."""
    output = pip("install", "-v", "--target", str(tmp_path), CXX="/bin/false")
    assert "no CPU kernel" in output.stdout + output.stderr
    assert not list(tmp_path.rglob("*.so"))
    value, gradient, refusal = run_from(tmp_path)
    assert "its compiled part was not built: /bin/false failed" in refusal
    assert abs(value - 13.7) < 5
    assert len(gradient[0]) == 12


@pytest.mark.exhaustive
@pytest.mark.skipif(
    library.missing() is not None, reason="no kernel here: see test_kernel.py"
)
def test_the_wheel_serves_every_python(tmp_path):
    """py3-none-<platform>, with the library and without its source; and it works."""
    pip("wheel", "--wheel-dir", str(tmp_path))
    [wheel] = tmp_path.glob("*.whl")
    assert re.fullmatch(r"jax_ctc-[\d.]+-py3-none-(?!any)\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if "_recursion/cpu/" in name]
        file.extractall(tmp_path / "site")
    assert sorted(pathlib.PurePath(name).suffix for name in names) == [
        ".py",
        ".py",
        ".so",
    ]
    value, gradient, refusal = run_from(tmp_path / "site")
    assert refusal is None
    # Taken away, the compiled file changes nothing but time.
    for made in (tmp_path / "site").rglob("*.so"):
        made.unlink()
    plain_value, plain_gradient, refusal = run_from(tmp_path / "site")
    assert "there is no kernel/_kernel.so" in refusal
    assert abs(value - plain_value) < 1e-5
    for ours, theirs in zip(gradient[0], plain_gradient[0], strict=True):
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-6


def test_what_was_built_is_loaded():
    """Else all tests of the kernel would be skipped, and nobody would notice.

    The build has the headers of the oldest jaxlib, so with `make test CONSTRAINTS=`
    this says that a wheel built on the oldest loads on the newest.
    """
    assert not library.LIBRARY.exists() or library.missing() is None


@pytest.mark.skipif(
    library.missing() is not None or "OTHER_PYTHON" not in os.environ,
    reason="OTHER_PYTHON names no interpreter with another jaxlib",
)
def test_another_jaxlib_takes_the_wheel(tmp_path):
    """A wheel built here runs there and gives the same; an older jaxlib refuses it.

    What is published is built against the oldest, and `make wheel` runs that on each.
    """
    pip("install", "--target", str(tmp_path))
    other = os.environ["OTHER_PYTHON"]
    here, there = run_from(tmp_path), run_from(tmp_path, other)
    theirs = subprocess.run(
        [other, "-c", f"import {library.__name__} as x; print(*x.interface())"],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if tuple(map(int, theirs)) < library.interface():
        assert "of XLA's interface, and this jaxlib has" in there[2]
    else:
        assert there[2] is None
    assert abs(here[0] - there[0]) < 1e-5


def test_no_compiler_at_all(tmp_path, monkeypatch):
    """The reason is one sentence that names what was looked for."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    made, reason = build_kernel.build(tmp_path)
    assert reason == made.read_text().strip()
    assert "no C++ compiler was found" in reason


def test_the_pure_wheel_says_what_it_is(tmp_path, monkeypatch):
    """Its users never chose a compiler; they are told how to have the kernel."""
    monkeypatch.setenv("CXX", "none")
    made, reason = build_kernel.build(tmp_path)
    assert reason == build_kernel.PURE == made.read_text().strip()
    assert "--no-binary jax_ctc" in reason


def test_an_older_interface_is_told(monkeypatch):
    """A library that this jaxlib would refuse at its first program is refused here."""
    if library.missing():
        pytest.skip(library.missing())
    load = library._load.__wrapped__
    # What it was built for, and not what is here: that may be newer.
    major, minor = divmod(library._load()[0].JaxCtcInterface(), 1000)
    monkeypatch.setattr(library, "interface", lambda: (major, minor - 1))
    assert "of XLA's interface, and this jaxlib has" in load()[1]
    monkeypatch.setattr(library, "interface", lambda: None)
    assert "this jaxlib has an unknown one" in load()[1]
    monkeypatch.setattr(library, "interface", lambda: (major, minor + 1))
    assert load()[1] is None


def test_a_file_that_is_no_library(tmp_path, monkeypatch):
    """It does not load, and that is said."""
    broken = tmp_path / "_kernel.so"
    broken.write_text("not a library")
    monkeypatch.setattr(library, "LIBRARY", broken)
    assert "does not load" in library._load.__wrapped__()[1]


def test_headers_are_of_the_oldest_jaxlib():
    """What is built against newer ones does not run on older ones."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needs = [x for x in project["project"]["dependencies"] if x.startswith("jaxlib")]
    pins = [x for x in project["build-system"]["requires"] if x.startswith("jaxlib")]
    oldest = needs[0].removeprefix("jaxlib>=")
    assert pins == [f"jaxlib=={oldest}.*"]


def test_source_is_in_the_source_distribution():
    """A build from it needs the hook and the kernel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert "/build_kernel.py" in included
    assert pathlib.Path(jax_ctc.__file__).parent.name in ("jax_ctc",)
