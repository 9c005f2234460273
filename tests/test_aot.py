"""Programs compiled for pods that are not there: what they send, what they hold.

`make aot` installs the compilers and runs these; without them they are skipped.
"""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

import jax_ctc
from benchmarks import hlo, kernels, pods, targets
from tests.cases import named

# On one chip. Small enough to compile in seconds, too large to be one chunk.
B, T, V, U = 8, 1000, 1024, 100
SHARD = 4096  # classes, where they are sharded

pytestmark = [
    pytest.mark.exhaustive,
    # A program for another machine cannot be read back on this one.
    pytest.mark.usefixtures("nothing_stored"),
]


def needs(name):
    """Skip where the target's compiler is not installed."""
    return pytest.param(
        name,
        marks=pytest.mark.skipif(
            targets.missing(name) is not None, reason=str(targets.missing(name))
        ),
    )


def mean_and_gradient(logits, labels, axis_name=None, **axes):
    """The user's own mean."""

    def mean(logits):
        loss, status = jax_ctc.ctc_loss_with_status(logits, labels, **axes)
        return jax_ctc.reduce_loss(loss, status=status, axis_name=axis_name)

    return jax.value_and_grad(mean)(logits)


@pytest.mark.parametrize(("mode", "most"), [("value", 1.5), ("value_and_grad", 5)])
@pytest.mark.parametrize("target", [needs("H100 x 1")])
def test_kernels_per_frame(target, mode, most):
    """A GPU launches few of them, and holds little; optax: 7 and 21, 39 and 142 MB."""
    case = named("char")
    compiled = kernels.build(case, target, "blocked", mode)
    found = hlo.launches(compiled.as_text())
    assert sum(each.times for each in found) <= most * case.frames
    assert compiled.memory_analysis().temp_size_in_bytes < 8e6


@functools.cache
def one_tpu():
    """Compile value and gradient of `char`."""
    return kernels.build(named("char"), "v5e x 1", "blocked", "value_and_grad")


@pytest.mark.parametrize("target", [needs("v5e x 1")])
def test_a_tpus_compiler_counts_cycles(target):
    """It tells what each operation costs."""
    found = hlo.launches(one_tpu().as_text())
    assert all(each.cycles >= 0 for each in found)
    assert sum(each.cycles for each in found) > 0


@pytest.mark.parametrize("target", [needs("v5e x 1")])
@pytest.mark.parametrize("name", ["char", "wordpiece", "long_form"])
def test_a_tpu_holds_little(name, target):
    """A chunk's rows are cut out: what is only gathered from, it would turn round."""
    compiled = kernels.build(named(name), target, "blocked", "value_and_grad")
    assert compiled.memory_analysis().temp_size_in_bytes < 4e6


@pytest.mark.parametrize("target", [needs("v5e x 1")])
def test_a_tpu_holds_the_logits_of_a_narrow_head(target):
    """They and their gradient, padded to 128 classes, and no copy of either.

    As an argument of a program, such logits lie across, and are turned round first.
    """
    batch, frames, classes = 32, 1000, 32

    def step(kernel, features, labels):
        def mean(kernel):
            return jax_ctc.ctc_loss(features @ kernel, labels).mean()

        return jax.value_and_grad(mean)(kernel)

    compiled = targets.compile_for(
        targets.mesh_of(target, data=1),
        step,
        ((256, classes), jnp.float32, PartitionSpec()),
        ((batch, frames, 256), jnp.float32, PartitionSpec()),
        ((batch, U), jnp.int32, PartitionSpec()),
    )
    held = compiled.memory_analysis().temp_size_in_bytes
    assert held < 2 * (batch * frames * 128 * 4) + 11e6


@pytest.mark.parametrize("target", [needs("v5e x 1")])
def test_a_tpu_copies_no_half_precision(target):
    """128k classes in bfloat16, of several utterances and of one."""
    for batch in (8, 1):
        compiled = targets.compile_for(
            targets.mesh_of(target, data=1),
            mean_and_gradient,
            ((batch, 752, 128_256), jnp.bfloat16, PartitionSpec()),
            ((batch, 120), jnp.int32, PartitionSpec()),
        )
        held = compiled.memory_analysis().temp_size_in_bytes
        assert held < 0.1 * (batch * 752 * 128_256 * 2)


@pytest.mark.parametrize("target", [needs("H100 x 1")])
def test_no_atomics(target):
    """Each scatter of a GPU program has indices of its own: nothing to race for."""
    text = kernels.build(
        named("wordpiece"), target, "blocked", "value_and_grad"
    ).as_text()
    scatters = [line for line in text.splitlines() if " scatter(" in line]
    assert scatters
    assert all("unique_indices=true" in line for line in scatters)


@functools.cache
def batch_sharded(name):
    """Compile plain `jit` with the batch over all chips of a target."""
    mesh = targets.mesh_of(name, data=int(name.split()[-1]))
    return targets.compile_for(
        mesh,
        mean_and_gradient,
        ((B * mesh.size, T, V), jnp.float32, PartitionSpec("data")),
        ((B * mesh.size, U), jnp.int32, PartitionSpec("data")),
    )


PODS = [name for name in targets.TARGETS if not name.endswith(" x 1")]


@pytest.mark.parametrize("name", [needs(name) for name in PODS])
def test_batch_sharding_is_one_all_reduce(name):
    """On 8, 64 and 512 chips: the mean's sum and weight, and nothing else."""
    found = hlo.collectives(batch_sharded(name).as_text())
    assert {collective.name for collective in found} == {"all-reduce"}
    # Between two slices the two numbers travel padded to a vector register.
    sent = sum(size for collective in found for size in collective.sizes)
    assert sent <= (128 if name == "v5e x 512" else 2)


@pytest.mark.parametrize("small", [needs("v5e x 8"), needs("v5p x 8")])
def test_temporaries_do_not_grow_with_the_pod(small):
    """Per chip as much at 64 and 512 chips as at 8.

    But for one array of a chunk, of 90 KB, which the compiler puts into a chip's vector
    memory in one program, where it does not count, and not in another; and on v5e two
    slices exchange through a buffer of their own, of any batch's size.
    """
    held = [
        batch_sharded(small.replace("x 8", f"x {count}")).memory_analysis()
        for count in (8, 64, 512)
    ]
    one, *more = (each.temp_size_in_bytes for each in held)
    assert all(size <= one + 2**17 for size in more)


@pytest.mark.parametrize("name", [needs("v5e x 8"), needs("v5p x 8")])
def test_a_pod_holds_less_than_the_scores(name):
    """Half of one chip's, at most."""
    held = batch_sharded(name).memory_analysis().temp_size_in_bytes
    assert held < 0.5 * (B * T * V * 4)


@functools.cache
def shard_mapped(name, scores, **axes):
    """Compile `shard_map` over 2 x 4 chips: half the batch, and shards of it."""
    options = dict(axes)
    [other] = set(options.values())
    mesh = targets.mesh_of(name, **{"data": 2, other: 4})
    function = jax.shard_map(
        functools.partial(mean_and_gradient, axis_name="data", **options),
        mesh=mesh,
        in_specs=(scores, PartitionSpec("data")),
        out_specs=(PartitionSpec(), scores),
    )
    return targets.compile_for(
        mesh,
        function,
        ((2 * B, T, 4 * SHARD), jnp.float32, scores),
        ((2 * B, U), jnp.int32, PartitionSpec("data")),
    )


EIGHT = [needs("v5e x 8"), needs("v5p x 8"), needs("H100 x 8")]


@pytest.mark.parametrize("name", EIGHT)
def test_vocabulary_sharding_sends_nothing_of_size_v(name):
    """All-reduces of [B, T] and [B, T, U+1]."""
    compiled = shard_mapped(
        name, PartitionSpec("data", None, "model"), vocab_axis="model"
    )
    found = hlo.collectives(compiled.as_text())
    assert {collective.name for collective in found} == {"all-reduce"}
    # Once per call, not once per chunk: maximum; sum and ties; scores; and the mean.
    assert all(collective.times == 1 for collective in found)
    assert len(found) <= 3 + 1
    sent = sum(size for collective in found for size in collective.sizes)
    assert sent == B * T * (U + 1) + 3 * B * T + 2


@pytest.mark.parametrize("name", EIGHT)
def test_vocabulary_sharding_holds_less_than_a_shard(name):
    """Temporaries of the size of what is sent."""
    compiled = shard_mapped(
        name, PartitionSpec("data", None, "model"), vocab_axis="model"
    )
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    most = 0.2 if name.startswith("v5p") else 0.1
    assert temporaries < most * (B * T * SHARD * 4)


@pytest.mark.parametrize("name", [needs("v5e x 8"), needs("v5p x 8")])
def test_half_precision_sharded_over_classes(name):
    """Nothing is made that is as wide as float32: beside 193 MB a chip 20 at most."""
    [model] = [model for model in pods.MODELS if model.name.startswith("128k")]
    compiled = pods.build(model, "classes", name)
    shard = 2 * math.prod(model.shape[:3]) / pods.NUM_CHIPS
    assert compiled.memory_analysis().temp_size_in_bytes < 0.11 * shard


@pytest.mark.parametrize("name", EIGHT)
def test_time_sharding_sends_columns(name):
    """Neighbours exchange two rows of the lattice, 4 times; nothing has a time axis.

    A GPU's compiler sends the arrays of an exchange as one: of both rows significands
    and what they lost, and of each utterance the sum of shifts, in two floats.
    """
    compiled = shard_mapped(name, PartitionSpec("data", "time", None), time_axis="time")
    found = hlo.collectives(compiled.as_text())
    assert {(c.name, c.times) for c in found} == {
        ("all-reduce", 1),
        ("collective-permute", 4),
    }
    arrays = 4 if name.startswith("H100") else 1
    largest = max(size for c in found for size in c.sizes)
    assert largest <= B * (4 * (U + 1) + 2)
    assert largest / arrays < B * T / 4


def read_all(scores, lengths):
    """A beam search with the truth, times and all."""
    return jax_ctc.beam_search_decode(
        scores, lengths, num_hypotheses=2, max_labels=16, rerank=True, times=True
    )


@pytest.mark.parametrize("mapped", [False, True], ids=["jit", "shard_map"])
@pytest.mark.parametrize("name", [needs("v5e x 8"), needs("H100 x 8")])
def test_a_sharded_beam_search_sends_nothing(name, mapped):
    """No collective, and nothing of the size of the scores is held."""
    mesh, split = targets.mesh_of(name, data=8), PartitionSpec("data")
    function = read_all
    classes = 4 * V  # a TPU pads W = 16 to 128: 6.5 MB, whether V is 1,024 or 2,048
    if mapped:
        function = jax.shard_map(
            read_all, mesh=mesh, in_specs=(split, split), out_specs=split
        )
    compiled = targets.compile_for(
        mesh,
        function,
        ((8 * B, 200, classes), jnp.float32, split),
        ((8 * B,), jnp.int32, split),
    )
    found = hlo.collectives(compiled.as_text())
    assert [c for c in found if mapped or c.name != "all-gather"] == []
    held = compiled.memory_analysis().temp_size_in_bytes
    assert held < 0.5 * (B * 200 * classes * 4)
