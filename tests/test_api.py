"""What is public: listed once, documented, and nothing else."""

import inspect
import pathlib
import re
import tomllib

import pytest

import jax_ctc
from jax_ctc.__main__ import main

pytestmark = pytest.mark.fast

ROOT = pathlib.Path(__file__).parents[1]
FUNCTIONS = [
    name for name in jax_ctc.__all__ if inspect.isfunction(getattr(jax_ctc, name))
]


def test_all_is_what_is_there():
    """`__all__` lists every public name, and they exist."""
    public = {
        name
        for name, value in vars(jax_ctc).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(jax_ctc.__all__)
    assert list(jax_ctc.__all__) == sorted(jax_ctc.__all__)


@pytest.mark.parametrize("name", jax_ctc.__all__)
def test_readme_names_it(name):
    """The README's table of names is complete."""
    assert f"`{name}" in (ROOT / "README.md").read_text()


def test_reference_describes_all():
    """Each public name once, in the pages that Sphinx makes of the docstrings."""
    pages = "".join(p.read_text() for p in (ROOT / "docs/reference").glob("*.rst"))
    described = re.findall(r"^\.\. auto(?:function|class):: (\w+)$", pages, re.M)
    assert sorted(described) == list(jax_ctc.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring(name):
    """Shapes, returns, errors and an executed example, in every public docstring."""
    function = getattr(jax_ctc, name)
    text = inspect.getdoc(function)
    returns_nothing = inspect.signature(function).return_annotation is None
    for section in ("Args:", "Returns:", "Raises:", "Example:", ">>>"):
        if section == "Returns:" and returns_nothing:
            continue
        if section == "Args:" and not inspect.signature(function).parameters:
            continue
        assert section in text, f"{name} lacks {section}"
    if "Args:" not in text:
        return
    arguments = text.split("Args:")[1].split("Returns:")[0]
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"^ +{parameter}: ", arguments, re.M), parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_are_positional_and_options_are_not(name):
    """Options are keyword-only, so that adding one breaks nobody."""
    for parameter in inspect.signature(getattr(jax_ctc, name)).parameters.values():
        is_option = parameter.name in {
            *("blank_id", "infeasible", "implementation", "weights", "axis_name"),
            *("num_samples", "vocabulary", "separator", "format", "name", "duration"),
            *("title", "inputs", "every", "keep", "on_report", "most_reports"),
            *("vocab_axis", "time_axis", "beam_width", "num_hypotheses", "times"),
            *("language_model", "lm_weight", "label_bonus", "hotwords", "max_labels"),
            *("rerank", "on_settled", "separator_id", "offset"),
            *("feature_axis", "precision", "logit_transform"),
            *("wildcard_id", "wildcard_log_prob"),
            *("num_pictures", "num_shapes", "track"),
        }
        assert (parameter.kind is parameter.KEYWORD_ONLY) >= is_option


def test_signatures():
    """The names and defaults that users write."""
    assert str(inspect.signature(jax_ctc.ctc_loss).replace(return_annotation="")) != ""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(jax_ctc.ctc_loss).parameters.items()
        if parameter.default is not parameter.empty
    }
    assert defaults == {
        "logit_lengths": None,
        "label_lengths": None,
        "blank_id": 0,
        "wildcard_id": None,
        "wildcard_log_prob": 0.0,
        "infeasible": "inf",
        "implementation": None,
        "vocab_axis": None,
        "time_axis": None,
    }


def test_version(capsys):
    """One version: the package's. Who cites reads it elsewhere, and it is the same."""
    assert f"version: {jax_ctc.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    heading = rf"^## {re.escape(jax_ctc.__version__)} - \d{{4}}-\d\d-\d\d$"
    assert re.search(heading, (ROOT / "CHANGELOG.md").read_text(), re.M)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"jax_ctc {jax_ctc.__version__}\n"
