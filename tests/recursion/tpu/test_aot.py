"""Programs with the TPU kernels, compiled for chips that are not there.

`make aot` installs the compiler and runs these; without it they are skipped.
"""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

import jax_ctc
from benchmarks import hlo, kernels, targets
from jax_ctc._recursion import tpu

MARK = "tpu_custom_call"
B, T, V, U = 8, 60, 32, 20
DATA, NOWHERE = PartitionSpec("data"), PartitionSpec()

pytestmark = [
    pytest.mark.exhaustive,
    # A program for another machine cannot be read back on this one.
    pytest.mark.usefixtures("nothing_stored"),
    pytest.mark.skipif(
        targets.missing("v5e x 1") is not None, reason=str(targets.missing("v5e x 1"))
    ),
]


@pytest.fixture
def short(monkeypatch):
    """Loops that are not written out compile in a tenth of the time."""
    monkeypatch.setattr(tpu, "HOW", {"unroll": 1})


# Cycles, launches and MB per frame of value and gradient; cycles of the value alone.
MOST = {
    "char": (2000, 0.5, 2.0, 800),
    "lanes": (3200, 0.5, 2.0, 1300),
    "recordings": (4000, 0.5, 2.0, 1600),
    "alone": (700, 0.5, 2.0, 400),
}


@pytest.mark.parametrize("case", MOST)
def test_figures(case, tmp_path):
    """By the compiler's account, as `python -m benchmarks.tpu` reads it.

    In a process of its own: the compiler reads where to write its schedules at start.
    """
    out = tmp_path / "tpu.jsonl"
    command = [sys.executable, "-m", "benchmarks.tpu", "--case", case]
    subprocess.run([*command, "--impl", "tpu", "--out", str(out)], check=True)
    rows = {row["mode"]: row for row in map(json.loads, out.read_text().splitlines())}
    cycles, launches, megabytes, of_value = MOST[case]
    both = rows["value_and_grad"]
    assert both["kernels"] > 0
    assert both["cycles"] <= cycles
    assert both["launches"] <= launches
    assert both["temporaries"] <= megabytes * 1e6
    assert rows["value"]["cycles"] <= of_value


@pytest.mark.parametrize("target", ["v4 x 1", "v5e x 1", "v5p x 1", "v6e x 1"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_chips(target, dtype):
    """Both kernels, as they are, for every kind of chip."""
    mesh = targets.mesh_of(target, chips=1)
    with kernels.preferring("tpu"):
        text = compiled(mesh, mean_and_gradient, NOWHERE, dtype=dtype).as_text()
    assert text.count(f'custom_call_target="{MARK}"') == 2


def mean_and_gradient(logits, labels):
    """The user's own mean."""
    return jax.value_and_grad(lambda x: jax_ctc.ctc_loss(x, labels).mean())(logits)


def compiled(mesh, function, place, dtype="float32"):
    """Compile for a mesh, with B utterances for each chip."""
    return targets.compile_for(
        mesh,
        function,
        ((B * mesh.size, T, V), jnp.dtype(dtype), place),
        ((B * mesh.size, U), jnp.int32, place),
    )


def mapped(mesh):
    """The mean in `shard_map`, which checks what varies."""

    def mean(logits, labels):
        return jax.lax.pmean(jax_ctc.ctc_loss(logits, labels).mean(), "data")

    return jax.value_and_grad(
        jax.shard_map(mean, mesh=mesh, in_specs=(DATA, DATA), out_specs=NOWHERE)
    )


@pytest.mark.parametrize("target", ["v5e x 8", "v5p x 512"])
@pytest.mark.parametrize("how", ["shard_map", "explicit", "jit"])
def test_pods(target, how, short):
    """One all-reduce, on every chip its own kernels.

    Under plain `jit` the compiler would have to split a kernel, which it cannot: there
    `blocked` runs.
    """
    mesh = targets.mesh_of(target, data=int(target.split()[-1]))
    function = mapped(mesh) if how == "shard_map" else mean_and_gradient
    if how == "explicit":
        mesh = Mesh(mesh.devices, ("data",), axis_types=(AxisType.Explicit,))
    with kernels.preferring("tpu"):
        if how == "explicit":
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                text = compiled(mesh, function, DATA).as_text()
        else:
            text = compiled(mesh, function, DATA).as_text()
    found = hlo.collectives(text)
    assert [each.name for each in found] == ["all-reduce"]
    assert sum(size for each in found for size in each.sizes) <= 2
    expected = 0 if how == "jit" else 2
    assert text.count(f'custom_call_target="{MARK}"') == expected


@pytest.mark.parametrize("platforms", [("tpu",), ("tpu", "cpu", "cuda")])
def test_exports(platforms):
    """A program that is exported needs no kernel, and loads."""
    with kernels.preferring("tpu"):
        exported = jax.export.export(
            jax.jit(jax.grad(lambda x, y: jax_ctc.ctc_loss(x, y).sum())),
            platforms=platforms,
        )(
            jax.ShapeDtypeStruct((B, T, V), jnp.float32),
            jax.ShapeDtypeStruct((B, U), jnp.int32),
        )
    assert MARK not in exported.mlir_module()
    assert jax.export.deserialize(exported.serialize()).platforms == platforms
