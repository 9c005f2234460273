"""The pages for those who come from elsewhere: their call, run, says what ours says."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
BLOCKS = re.compile(r"^```(py|python)\n(.*?)^```\n", re.M | re.S)
PAGES = {  # what each page calls the result
    "optax": ("optax", "loss"),
    "torch": ("torch", "loss"),
    "keras": ("keras", "per_utterance"),
    "tensorflow": ("tensorflow", "loss"),
}


@pytest.mark.relaxed
@pytest.mark.filterwarnings("default")  # other libraries warn of themselves
@pytest.mark.parametrize("page", PAGES)
def test_both_calls_agree(page):
    """Ours first, for it makes the arrays; then theirs, with these; then the rest."""
    library, name = PAGES[page]
    pytest.importorskip(library)
    theirs, ours, *rest = BLOCKS.findall((DOCS / f"from_{page}.md").read_text())
    assert (theirs[0], ours[0]) == ("py", "python")
    namespace = {"__name__": page}
    exec(ours[1], namespace)
    expected = np.asarray(namespace[name])
    exec(theirs[1], namespace)
    np.testing.assert_allclose(np.asarray(namespace[name]), expected, atol=2e-5)
    namespace[name] = expected
    for _, block in rest:
        exec(block, namespace)


@pytest.mark.relaxed
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("library", ["keras", "torch"])
def test_the_ten_lines(library):
    """The page's block of each library stands alone, and learns.

    In a process of its own: PyTorch's compiler and TensorFlow crash each other.
    """
    pytest.importorskip(library)
    page = (DOCS / "ten_lines.md").read_text()
    (block,) = (
        text
        for kind, text in BLOCKS.findall(page)
        if kind == "py" and re.search(rf"^import .*\b{library}\b", text, re.M)
    )
    subprocess.run([sys.executable, "-c", block], check=True)
