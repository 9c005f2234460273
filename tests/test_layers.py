"""A module imports strictly lower layers, and no framework."""

import ast
import pathlib
import subprocess
import sys

import pytest

import jax_ctc

pytestmark = pytest.mark.fast

PACKAGE = pathlib.Path(jax_ctc.__file__).parent

# Data walks down this street; imports only look back up it.
LAYERS = [
    *({room} for room in ("_checks", "_numbers", "_output", "_mesh", "_lattice")),
    *({room} for room in ("_loss", "_alignment", "_decoding", "_pictures")),
    {"_output/progress", "_output/visible", "_output/whole"},
    {"_checks/given", "_numbers/sizes"},
    {"_checks/host", "_checks/status"},
    {"_numbers/mapped", "_numbers/masks", "_numbers/precision"},
    {"_numbers/derivatives"},
    {"_numbers/two_floats", "_mesh/varying"},
    {"_numbers/extended"},
    {"_checks/labels", "_checks/options", "_checks/arrays", "_mesh/relay"},
    {"_checks/head", "_checks/lengths", "_checks/vocabularies", "_mesh/placement"},
    {"_lattice/frames", "_lattice/problem"},
    {"_lattice/normaliser", "_lattice/wildcards"},
    {"_lattice/pose"},
    {"_lattice/emissions"},
    {"_lattice/occupancy"},
    {"_lattice/blocks", "_lattice/needed", "_lattice/products"},
    {"_lattice/projected"},
    {"_recursion/traceback", "_recursion/blocked/step", "_recursion/scan/step"},
    {"_recursion/blocked/chunks"},
    {"_recursion/blocked/sides"},
    {"_recursion/blocked/likelihood", "_recursion/scan/likelihood"},
    {
        f"_recursion/{name}/{m}"
        for name in ("blocked", "scan")
        for m in ("entropy", "paths")
    },
    {"_recursion/blocked/stretches"},
    {"_recursion/blocked", "_recursion/scan"},
    {"_recursion/contract", "_recursion/per_device", "_recursion/cpu/library"},
    {"_recursion/cuda/launch", "_recursion/cuda/plan"},
    {"_recursion/tpu/slots", "_recursion/tpu/scores"},
    {"_recursion/tpu/column"},
    {"_recursion/tpu/kernels"},
    {"_recursion/tpu/walk"},
    {"_recursion/cpu", "_recursion/cuda", "_recursion/tpu"},
    {"_recursion"},
    {"_loss/policy", "_loss/rule", "_loss/reductions"},
    {"_loss/linear", "_loss/losses"},
    {"_alignment/records", "_alignment/blocks", "_decoding/records", "_pictures/fonts"},
    {"_alignment/paths", "_alignment/entropy"},
    {"_alignment/as_given"},
    {"_alignment/posteriors"},
    {"_alignment/viterbi", "_alignment/samples"},
    {"_alignment/chunks"},
    {"_alignment/spans"},
    {"_graph"},
    {"_graph/records"},
    {"_graph/topology", "_graph/pose"},
    {"_graph/recursion"},
    {"_graph/align", "_graph/loss"},
    {"_alignment/span_files", "_pictures/alignment"},
    {f"_decoding/{m}" for m in ("arpa", "automaton", "hashing", "platforms", "saved")},
    {f"_decoding/{module}" for module in ("edits", "largest", "names", "pruning")},
    {f"_decoding/{module}" for module in ("guide", "histories", "nbest", "trace")},
    {f"_decoding/{module}" for module in ("frames", "greedy", "parents")},
    {f"_decoding/{module}" for module in ("beams", "errors", "hotwords", "ngram")},
    {"_decoding/extensions", "_decoding/words"},
    {"_decoding/search"},
    {"_decoding/options", "_decoding/settled"},
    {"_decoding/beam_search"},
    {"_decoding/beam_chunks"},
    {"_diagnose/quickly"},
    {f"_diagnose/{m}" for m in ("batch", "guess", "here", "odds", "text", "worker")},
    {"_pictures/utterance", "_diagnose/reading"},
    {"_diagnose/heard", "_diagnose/judge", "_diagnose/page"},
    {"_diagnose/report"},
    {"_diagnose/facts", "_diagnose/frames", "_diagnose/pairs", "_diagnose/structure"},
    {
        f"_diagnose/{m}"
        for m in ("arrangements", "lengths", "repeats", "squashed", "table", "tail")
    },
    {"_diagnose/alternatives", "_diagnose/renamed", "_diagnose/unsaid"},
    {"_diagnose/doctor"},
    {"_diagnose"},
    {"_diagnose/watch", "_report/heard"},
    {"_report/batches", "_report/measure", "_report/text"},
    {"_report/page"},
    {"_report/records"},
    {"_report/collect"},
    {"_report"},
    {""},
    {"compat/keras", "compat/optax", "compat/torch"},
    {"compat"},
    {f"_self_check/{m}" for m in ("float64", "batches", "report", "where")},
    {"_self_check/rivals"},
    {"_self_check/run"},
    {"_self_check", "_self_check/command"},
    {"__main__"},
]
ALLOWED_OUTSIDE = {"jax", "jaxlib", "numpy", "scipy", "chex", "jaxtyping"}
# Extras, imported only inside the function that needs them.
EXTRAS = {
    "_pictures/alignment": {"matplotlib"},
    "_pictures/fonts": {"matplotlib"},
    "_pictures/utterance": {"matplotlib"},
    "_diagnose/text": {"rich"},
    "_output/progress": {"rich"},
    "_report/page": {"jinja2"},
    "_report/text": {"rich"},
    "__main__": {"rich"},
    "_self_check/command": {"rich"},
    "_self_check/report": {"rich"},
}

MODULES = {
    path.relative_to(PACKAGE)
    .with_suffix("")
    .as_posix()
    .removesuffix("__init__")
    .strip("/"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def layer_of(module):
    """Return the layer's number; a module nobody placed is an error."""
    [number] = [n for n, layer in enumerate(LAYERS) if module in layer]
    return number


def imports_of(path):
    """Return the dotted names a file imports, `from x import y` as x.y and x."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                inside = dotted.removeprefix("jax_ctc.").replace(".", "/")
                yield dotted if inside in MODULES else node.module


@pytest.mark.parametrize("module", MODULES)
def test_imports_look_down_only(module):
    """Every import inside the package is of a strictly lower layer."""
    for name in imports_of(MODULES[module]):
        root = name.split(".")[0]
        if root == "jax_ctc":
            imported = name.removeprefix("jax_ctc").strip(".").replace(".", "/")
            assert layer_of(imported) < layer_of(module), f"{module} imports {name}"
        else:
            allowed = (
                ALLOWED_OUTSIDE | sys.stdlib_module_names | EXTRAS.get(module, set())
            )
            assert root in allowed, f"{module} imports {name}"


def test_extras_are_imported_lazily():
    """Importing the library imports none of them."""
    extras = sorted(set().union(*EXTRAS.values(), {"keras", "optax", "torch"}))
    imports = "import jax_ctc.compat, sys"
    program = f"{imports}; print([x for x in {extras} if x in sys.modules])"
    run = [sys.executable, "-c", program]
    assert subprocess.run(run, capture_output=True, check=True).stdout == b"[]\n"


def test_every_layer_has_its_files():
    """The table above names no file that is gone."""
    assert set().union(*LAYERS) == set(MODULES)


def test_files_stay_readable():
    """One idea per file: none grows past 400 lines."""
    for module, path in MODULES.items():
        assert len(path.read_text().splitlines()) <= 400, module
