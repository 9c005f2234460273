"""Every snippet in README, docs and docstrings runs."""

import contextlib
import doctest
import importlib
import io
import pathlib
import pkgutil
import re
import tomllib

import jax
import pytest

import jax_ctc

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = ["jax_ctc"] + [
    info.name for info in pkgutil.walk_packages(jax_ctc.__path__, "jax_ctc.")
]
# A snippet, and the text block right below it, which is what it prints. (Calls of other
# libraries are ```py: tests/compat/test_pages.py runs them beside those libraries.)
BLOCKS = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)


WITH_SNIPPETS = [page for page in PAGES if BLOCKS.search(page.read_text())]


@pytest.mark.relaxed
@pytest.mark.parametrize("page", WITH_SNIPPETS, ids=lambda page: page.name)
def test_page(page):
    """The page's python blocks, in order, are one script; a text block is its output.

    Where a text block follows at once, it is what the block prints, to the letter.
    """
    blocks = BLOCKS.findall(page.read_text())
    namespace = {"__name__": page.stem}
    for number, (block, shown) in enumerate(blocks):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, f"{page.name} block {number}", "exec"), namespace)
        assert shown in ("", printed.getvalue()), f"block {number}"


def test_readme_is_short():
    """What is longer is on the site."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_page_is_in_the_tree():
    """The front page leads to all of them."""
    front = (ROOT / "docs/index.md").read_text()
    for page in PAGES[1:]:
        assert page.stem == "index" or f"\n{page.stem}\n" in front, page


def test_the_doctors_mistakes_show_their_reports():
    """Six, and the healthy batch before them: each has its report below, compared."""
    shown = [text for _, text in BLOCKS.findall((ROOT / "docs/doctor.md").read_text())]
    reports = [text for text in shown if "(B = 8, T = 64, V = 28" in text]
    assert len(reports) == 7


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Every relative link and picture exists."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_what_the_pages_call_is_there():
    """Targets of make, extras of the package and modules: here and in the workflows."""
    above = (ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"))
    forms = (ROOT / ".github").glob("*/*.yml")  # none in a source archive
    text = "\n".join(page.read_text() for page in (*PAGES, *above, *forms))
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|run: |^)make ([a-z]+)(?=[`\s])", text, re.M))
    targets -= {"and", "a", "one"}  # words of sentences that begin a line
    assert {"demo", "test", "wheel", "docs", "compat"} <= targets
    assert targets <= set(re.findall(r"^([a-z]+):", makefile, re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"\.\[([a-z]+)\]'|jax_ctc\[([a-z]+)\]|xtra `([a-z]+)`", text)
    named = {name for found in extras for name in found if name}
    named |= set(re.findall(r"\$\(VENV\)/\.([a-z]+)", makefile))
    assert {"examples", "compat", "docs", "release"} <= named
    assert named <= project["optional-dependencies"].keys()
    for module in re.findall(
        r"python -m ((?:jax_ctc|examples|benchmarks|tools|tests)[\w.]*)", text
    ):
        path = ROOT / module.rstrip(".").replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), path


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    """Examples in docstrings print what they say."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_public_docstrings_have_examples():
    """Testmod above has found them: it looks only at what a module defines."""
    finder = doctest.DocTestFinder()
    found = {
        test.name.split(".")[-1]
        for name in MODULES
        for test in finder.find(importlib.import_module(name))
        if test.examples
    }
    public = {n for n in jax_ctc.__all__ if callable(getattr(jax_ctc, n))}
    records = {"CTCAlignment", "CTCPosteriors", "CTCSamples", "Hypotheses"}
    records |= {"Finding", "Report", "Status", "TokenSpan", "Utterance"}
    records |= {"BeamHypotheses", "EditCounts", "Implementation", "SettledLabels"}
    records |= {"GraphAlignment", "RankedUtterance", "Ranking"}
    assert public - found == records
