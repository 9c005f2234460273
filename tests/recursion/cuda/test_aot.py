"""Programs with the CUDA kernels, compiled for GPUs that are not there.

`make aot` installs the compilers and runs these; without them they are skipped. What
XLA does not look at is the text of a kernel: `ptxas` assembles that here, as the driver
does where a program is loaded.
"""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

import jax_ctc
from benchmarks import hlo, kernels, targets
from jax_ctc import _recursion
from jax_ctc._lattice.problem import Problem
from tests.cases import Case, named
from tools import ptx

MARK = "__gpu$xla.gpu.ptx"
GPUS = ["H100 x 1", "A100 x 1"]

pytestmark = [
    pytest.mark.exhaustive,
    # A program for another machine cannot be read back on this one.
    pytest.mark.usefixtures("nothing_stored"),
    pytest.mark.skipif(
        targets.missing(GPUS[0]) is not None, reason=str(targets.missing(GPUS[0]))
    ),
]


@functools.cache
def built(name, target, frames=None, mode="value_and_grad"):
    """Compile the mean loss of a case, of another number of frames if one is given."""
    case = named(name)
    if frames:
        sizes = case.batch, frames, case.classes, case.labels
        case = Case(name, *sizes, note="", tags=frozenset())
    return kernels.build(case, target, "cuda", mode)


@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize(("mode", "most"), [("value", 8), ("value_and_grad", 9)])
def test_launches(target, mode, most):
    """As many at 10,000 frames as at 100: three kernels.

    The others check what was given, take the mean, and multiply by what comes back.
    """
    counts = []
    for frames in (100, 10_000):
        text = built("char", target, frames, mode).as_text()
        assert text.count(f'custom_call_target="{MARK}"') == 3
        counts.append(sum(each.times for each in hlo.launches(text)))
    assert counts[0] == counts[1] <= most


@pytest.mark.parametrize("target", GPUS)
@pytest.mark.parametrize("frames", [100, 10_000])
def test_launches_of_the_recursion(target, frames):
    """Three, and nothing beside them: value and gradient of a problem that is posed."""
    shapes = (
        ((32, frames, 32), jnp.float32),
        ((32, 101), jnp.int32),
        ((32, 100), jnp.bool),
        ((32,), jnp.int32),
        ((32,), jnp.int32),
    )
    with kernels.preferring("cuda"):
        compiled = targets.compile_for(
            targets.mesh_of(target, chips=1),
            lambda *arrays: _recursion.forward_backward(
                None, Problem(*arrays), normalise=True
            ),
            *((*shape, PartitionSpec()) for shape in shapes),
        )
    assert [each.times for each in hlo.launches(compiled.as_text())] == [1, 1, 1]


# Bytes that XLA holds for `blocked` on a CPU, value and gradient: docs/performance.md.
ON_A_CPU = {
    "char": 5.8e6,
    "wordpiece": 1.0e6,
    "ocr": 2.0e6,
    "long_form": 9.1e6,
    "big_vocabulary": 0.3e6,
    "one_utterance": 2.9e6,
}


@pytest.mark.parametrize("name", ON_A_CPU)
def test_temporaries(name):
    """At most twice those of plain XLA on a CPU; Optax: 3 to 47 times."""
    memory = built(name, GPUS[0]).memory_analysis()
    assert memory.temp_size_in_bytes <= 2 * ON_A_CPU[name]


def test_a_sharded_batch():
    """Every GPU runs the kernels on its own utterances, and sends the mean alone."""
    mesh = targets.mesh_of("H100 x 8", data=8)

    def mean_and_gradient(logits, labels):
        return jax.value_and_grad(lambda x: jax_ctc.ctc_loss(x, labels).mean())(logits)

    with kernels.preferring("cuda"):
        text = targets.compile_for(
            mesh,
            mean_and_gradient,
            ((64, 500, 32), jnp.float32, PartitionSpec("data")),
            ((64, 60), jnp.int32, PartitionSpec("data")),
        ).as_text()
    assert text.count(f'custom_call_target="{MARK}"') == 3
    assert [each.name for each in hlo.collectives(text)] == ["all-reduce"]


@pytest.mark.parametrize("platforms", [("cuda",), ("cpu", "cuda", "tpu")])
def test_exports(platforms):
    """A program that is exported needs no kernel, and loads."""
    with kernels.preferring("cuda"):
        exported = jax.export.export(
            jax.jit(jax.grad(lambda x, y: jax_ctc.ctc_loss(x, y).sum())),
            platforms=platforms,
        )(
            jax.ShapeDtypeStruct((2, 50, 8), jnp.float32),
            jax.ShapeDtypeStruct((2, 7), jnp.int32),
        )
    assert MARK not in exported.mlir_module()
    loaded = jax.export.deserialize(exported.serialize())
    assert loaded.platforms == platforms


# Bytes of registers that a thread keeps in memory, at most; on others 12.
SPILLED = {"sm_80": 0, "sm_90": 0}


def test_texts_are_those_of_the_source():
    """Else: make ptx."""
    folder = ptx.CUDA / "kernels"
    kept = {path.stem: path.read_text() for path in folder.glob("*.ptx")}
    made = ptx.compile_all()
    assert sorted(kept) == sorted(made)
    for name, text in made.items():
        assert ptx.body(kept[name]) == ptx.body(text), name


@pytest.mark.parametrize("target", ptx.TARGETS)
def test_every_gpu_can_run_every_text(target):
    """It assembles, spills no register on A100 and H100, and a block fits."""
    for path in sorted((ptx.CUDA / "kernels").glob("*.ptx")):
        text = path.read_text()
        used = ptx.assemble(path.stem, text, target)
        assert used.spilled <= SPILLED.get(target, 12), used
        assert used.shared <= 48 * 1024, used
        assert used.registers * ptx.threads(text) <= 64 * 1024, used
