"""What is compiled, how often, and what the compiled program holds."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jax_ctc
from benchmarks import hlo
from jax_ctc import _recursion
from jax_ctc._lattice.pose import pose, prepare
from tests.cases import more

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """Count backend compilations while a test runs."""
    count = collections.Counter()

    def listen(event, duration, **kwargs):
        count[event] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: count[COMPILED]
    jax.monitoring.unregister_event_duration_listener(listen)


def batch(seed, num_utterances=3, frames=11, classes=5, labels=3):
    """A ragged batch as a data loader has it; shapes fixed, values not."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(num_utterances, frames, classes)).astype(np.float32),
        rng.integers(1, classes, (num_utterances, labels)).astype(np.int32),
        rng.integers(2 * labels, frames + 1, num_utterances).astype(np.int32),
        rng.integers(0, labels + 1, num_utterances).astype(np.int32),
    )


def test_second_eager_call_compiles_nothing(compilations):
    """New values and lengths of the same shapes reuse every program."""

    def everything(seed):
        logits, labels, logit_lengths, label_lengths = batch(seed)
        arguments = logits, labels, logit_lengths, label_lengths
        loss, status = jax_ctc.ctc_loss_with_status(*arguments)
        return (
            jax_ctc.ctc_loss(*arguments),
            jax_ctc.ctc_loss(logits, labels),
            jax_ctc.ctc_loss_from_log_probs(*arguments, implementation="scan"),
            jax_ctc.check_batch(*arguments),
            jax_ctc.greedy_decode(logits, logit_lengths),
            jax_ctc.minimum_frames(labels, label_lengths),
            jax_ctc.ctc_posteriors(*arguments),
            jax_ctc.ctc_align(*arguments),
            jax_ctc.ctc_align_chunks(iter(np.split(logits[0], [4])), [1, 2, 3]),
            jax_ctc.alignment_entropy(*arguments),
            jax_ctc.sample_alignments(jax.random.key(seed), *arguments, num_samples=2),
            jax_ctc.reduce_loss(loss, status=status),
            jax.grad(lambda x: jax_ctc.ctc_loss(x, *arguments[1:]).sum())(logits),
        )

    jax.block_until_ready(everything(0))
    before = compilations()
    assert before > 0
    jax.block_until_ready(everything(1))
    assert compilations() == before


def test_no_retrace_on_new_lengths():
    """Under jit, lengths and labels are data."""
    traces = []

    @jax.jit
    def loss(*arguments):
        traces.append(1)
        return jax_ctc.ctc_loss(*arguments)

    for seed in range(3):
        loss(*batch(seed))
    assert len(traces) == 1


def loss_and_gradient(*arguments):
    """The user's own mean, and its gradient."""

    def mean(logits):
        loss, status = jax_ctc.ctc_loss_with_status(logits, *arguments[1:])
        return jax_ctc.reduce_loss(loss, status=status)

    return jax.value_and_grad(mean)(arguments[0])


@pytest.mark.as_planned
@pytest.mark.parametrize("classes", [5, 300], ids=["product", "scatter"])
def test_sharded_batch_is_one_all_reduce(classes):
    """Utterances never touch: 8 devices talk once, for the mean."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    arguments = batch(0, num_utterances=16, classes=classes)
    whole = loss_and_gradient(*arguments)
    placed = jax.device_put(arguments, sharded)
    compiled = jax.jit(loss_and_gradient).lower(*placed).compile()
    found = hlo.collectives(compiled.as_text())
    assert [(each.name, each.times) for each in found] == [("all-reduce", 1)]
    value, gradient = compiled(*placed)
    np.testing.assert_allclose(value, whole[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, whole[1], atol=1e-6)
    assert gradient.sharding.is_equivalent_to(sharded, 3)


def alignments(*arguments):
    """Everything that is read from the lattice besides the loss."""
    samples = jax_ctc.sample_alignments(jax.random.key(0), *arguments, num_samples=2)
    return (
        jax_ctc.ctc_posteriors(*arguments),
        jax_ctc.ctc_align(*arguments),
        jax_ctc.alignment_entropy(*arguments),
        samples,
    )


def with_gradient(*arguments):
    """The same, and a gradient through all of them."""

    def total(logits):
        readings = posteriors, path, entropy, _ = alignments(logits, *arguments[1:])
        sums = posteriors.label[..., 0].sum() + path.score.sum() + entropy.sum()
        return sums, readings

    gradient, readings = jax.grad(total, has_aux=True)(arguments[0])
    return gradient, *readings


@functools.cache
def on_one_device():
    """Sixteen utterances, and what one device reads from their lattices."""
    arguments = batch(0, num_utterances=16)
    return arguments, jax.jit(with_gradient)(*arguments)


def close(found, expected):
    """Compare two trees of readings."""
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        found,
        expected,
    )


@pytest.mark.slow
def test_alignments_of_a_sharded_batch_communicate_nothing():
    """8 devices, no collective, the same answers."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    arguments, whole = on_one_device()
    placed = jax.device_put(arguments, NamedSharding(mesh, PartitionSpec("data")))
    compiled = jax.jit(with_gradient).lower(*placed).compile()
    assert not hlo.collectives(compiled.as_text())
    close(compiled(*placed), whole)


@pytest.mark.exhaustive
def test_alignments_in_shard_map_and_vmap():
    """With check_vma, and one utterance at a time: what the batch gives."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    arguments, (gradient, *readings, _) = on_one_device()
    data = PartitionSpec("data")
    own_gradient, *mapped = jax.jit(
        jax.shard_map(
            with_gradient, mesh=mesh, in_specs=data, out_specs=data, check_vma=True
        )
    )(*arguments)
    close(own_gradient, gradient)
    single = jax.jit(jax.vmap(alignments))(*arguments)
    loss = jax_ctc.ctc_loss(*arguments)
    for *others, samples in (mapped, single):
        close(others, readings)
        # One key draws otherwise for another shape, but always paths of the labels.
        assert (np.asarray(samples.log_prob) <= -np.asarray(loss)[:, None] + 1e-4).all()


@pytest.mark.parametrize("implementation", ["blocked", more("scan")])
def test_shard_map(implementation):
    """Loss, gradient and HVP inside shard_map with check_vma, equal to outside."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    arguments = batch(1, num_utterances=8)
    tangent = np.random.default_rng(2).normal(size=arguments[0].shape)
    tangent = tangent.astype(np.float32)

    def local(logits, tangent, *rest):
        def total(x):
            return jax_ctc.ctc_loss(x, *rest, implementation=implementation).sum()

        gradient, product = jax.jvp(jax.grad(total), (logits,), (tangent,))
        loss, status = jax_ctc.ctc_loss_with_status(
            logits, *rest, implementation=implementation
        )
        mean = jax_ctc.reduce_loss(loss, status=status, axis_name="data")
        return loss, gradient, product, mean[None]

    data = PartitionSpec("data")
    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=data, out_specs=data, check_vma=True
    )
    loss, gradient, product, mean = jax.jit(mapped)(
        arguments[0], tangent, *arguments[1:]
    )
    whole, whole_gradient, whole_product = (
        jax_ctc.ctc_loss(*arguments),
        *jax.jvp(
            jax.grad(lambda x: jax_ctc.ctc_loss(x, *arguments[1:]).sum()),
            (arguments[0],),
            (tangent,),
        ),
    )
    np.testing.assert_allclose(loss, whole, rtol=1e-6)
    np.testing.assert_allclose(gradient, whole_gradient, atol=1e-6)
    np.testing.assert_allclose(product, whole_product, atol=2e-5)
    np.testing.assert_allclose(mean, whole.mean(), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, more(np.float64)])
def test_shard_map_with_replicated_logits(dtype, x64):
    """Logits the same everywhere, labels different: the gradient is the sum, once."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    logits, labels, *_ = batch(3, num_utterances=8)
    logits = logits[:1].astype(dtype)

    def local(logits, tangent, labels):
        def total(x):
            return jax_ctc.ctc_loss(x, labels).sum()

        return jax.jvp(jax.grad(total), (logits,), (tangent,))

    everywhere, data = PartitionSpec(), PartitionSpec("data")
    gradient, product = jax.jit(
        jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(everywhere, everywhere, data),
            out_specs=everywhere,
            check_vma=True,
        )
    )(logits, logits, labels)

    def whole(x):
        return jax_ctc.ctc_loss(jnp.repeat(x, 8, axis=0), labels).sum()

    expected = jax.jvp(jax.grad(whole), (logits,), (logits,))
    atol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(gradient, expected[0], atol=atol)
    np.testing.assert_allclose(product, expected[1], atol=10 * atol)


def abstract(num_utterances, frames, classes, labels, dtype=jnp.float32):
    """Shapes only: nothing of that size is ever allocated."""
    return (
        jax.ShapeDtypeStruct((num_utterances, frames, classes), dtype),
        jax.ShapeDtypeStruct((num_utterances, labels), jnp.int32),
    )


def blocked_loss(*arguments):
    """The loss in plain XLA."""
    return jax_ctc.ctc_loss(*arguments, implementation="blocked")


def temporaries(*shape, dtype=jnp.float32):
    """Bytes of temporaries of the compiled gradient."""
    compiled = jax.jit(jax.grad(lambda x, labels: blocked_loss(x, labels).sum())).lower(
        *abstract(*shape, dtype=dtype)
    )
    return compiled.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.as_planned
def test_memory_grows_with_the_root_of_time():
    """Four times the frames, twice the temporaries; small beside the logits.

    Two numbers per frame aside, the maximum and the sum that its scores are
    normalised by.
    """
    small, large = (
        temporaries(4, frames, 40, 60) - 4 * frames * 2 * 4 for frames in (4000, 16000)
    )
    assert 0 < large <= 2.1 * small
    assert large < 0.25 * (4 * 16000 * 40 * 4)


@pytest.mark.as_planned
def test_half_precision_is_never_widened_as_a_whole():
    """bfloat16 logits: no float32 array of their size, only chunks."""
    num_bytes = 4 * 16000 * 40 * 2
    assert temporaries(4, 16000, 40, 60, dtype=jnp.bfloat16) < 1.5 * num_bytes


@pytest.mark.as_planned
def test_value_alone_computes_no_gradient():
    """A loss without grad holds no array of the logits' size."""
    shape = (4, 4000, 64, 60)
    lowered = jax.jit(blocked_loss).lower(*abstract(*shape))
    size = 4 * 4000 * 64 * 4
    assert lowered.compile().memory_analysis().temp_size_in_bytes < size / 4


def equations(jaxpr):
    """All equations of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


@pytest.mark.parametrize("classes", [5, 300], ids=["product", "scatter"])
@pytest.mark.parametrize("implementation", ["blocked", "scan"])
def test_products_ask_for_full_precision(classes, implementation):
    """The default precision is bfloat16 on TPU and TF32 on GPU."""

    def gradient(logits, labels):
        spec, batch = prepare(logits, labels, None, None, blank_id=0)
        plain = _recursion.PLAIN[implementation]
        return plain.forward_backward(pose(spec, batch)[0], normalise=True)

    jaxpr = jax.make_jaxpr(gradient)(*abstract(2, 9, classes, 3)).jaxpr
    highest = (jax.lax.Precision.HIGHEST,) * 2
    products = [e for e in equations(jaxpr) if e.primitive.name == "dot_general"]
    assert all(e.params["precision"] == highest for e in products)
    assert bool(products) == (implementation == "blocked")


def test_export_chooses_by_platform(x64):
    """float64 goes to `scan` on TPU, whose compiler has no 64-bit bitcasts."""

    def text(platform, dtype, function=jax_ctc.ctc_loss):
        arguments = abstract(2, 9, 5, 3, dtype)
        exported = jax.export.export(jax.jit(function), platforms=[platform])
        return exported(*arguments).mlir_module()

    for function in (jax_ctc.ctc_align, jax_ctc.alignment_entropy):
        assert "bitcast_convert" not in text("tpu", jnp.float64, function)
        assert "bitcast_convert" in text("cpu", jnp.float64, function)
    assert "bitcast_convert" not in text("tpu", jnp.float64)
    assert "bitcast_convert" in text("tpu", jnp.float32)
    assert "bitcast_convert" in text("cpu", jnp.float64)
    assert "bitcast_convert" in text("cuda", jnp.float64)


@pytest.mark.slow
def test_export_round_trip():
    """One program for cpu, cuda and tpu, through bytes and back: the same numbers."""
    logits, *rest = batch(7, classes=300)
    arguments = jnp.asarray(logits), *rest
    function = jax.jit(lambda x, *rest: jax_ctc.ctc_loss_with_status(x, *rest))
    platforms = ("cpu", "cuda", "tpu")
    exported = jax.export.export(function, platforms=platforms)(*arguments)
    assert exported.platforms == platforms
    restored = jax.export.deserialize(exported.serialize(vjp_order=1))
    plain = functools.partial(jax_ctc.ctc_loss_with_status, implementation="blocked")
    for value, expected in zip(
        restored.call(*arguments), plain(*arguments), strict=True
    ):
        np.testing.assert_array_equal(value, expected)

    def gradient(function):
        return jax.grad(lambda x: function(x, *rest)[0].sum())(arguments[0])

    np.testing.assert_array_equal(gradient(restored.call), gradient(plain))


def test_a_named_implementation_is_that_one_or_an_error(monkeypatch, x64):
    """No silent fallback: `blocked` in float64 on a TPU says what to do."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    logits, labels = np.zeros((2, 17, 5)), np.ones((2, 3), np.int32)
    with pytest.raises(NotImplementedError, match="blocked: float64 .* 'scan'"):
        jax_ctc.ctc_loss(logits, labels, implementation="blocked")
    jax_ctc.ctc_loss(logits, labels, implementation="scan")


MARKERS = {"cpu": "jax_ctc.cpu", "blocked": "bitcast_convert", "scan": "exp"}


@pytest.mark.parametrize("implementation", [None, "blocked", "scan"])
def test_the_named_implementation_runs(implementation):
    """Look into the program: only `blocked` writes exponent bits."""
    [default] = [i.name for i in jax_ctc.implementations() if i.is_default]

    def loss(x, labels):
        return jax_ctc.ctc_loss(x, labels, implementation=implementation)

    text = jax.jit(loss).lower(*abstract(2, 9, 5, 3)).as_text()
    assert MARKERS[implementation or default] in text
    assert ("bitcast_convert" in text) == ((implementation or default) == "blocked")


@pytest.mark.slow
@pytest.mark.parametrize(("utterances", "labels"), [(8, 0), (0, 2)])
def test_empty_shapes_in_shard_map(utterances, labels):
    """No labels, or no utterances: arrays of size 0 vary like the others."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    logits = np.random.default_rng(0).normal(size=(utterances, 4, 3))
    arguments = logits.astype(np.float32), np.ones((utterances, labels), np.int32)

    def everything(logits, labels):
        return (
            jax.value_and_grad(lambda x: jax_ctc.ctc_loss(x, labels).sum())(logits)[1],
            jax_ctc.ctc_loss(logits, labels),
            jax_ctc.ctc_posteriors(logits, labels).blank,
            jax_ctc.ctc_align(logits, labels).tokens,
            jax_ctc.alignment_entropy(logits, labels),
        )

    data = PartitionSpec("data")
    mapped = jax.shard_map(everything, mesh=mesh, in_specs=data, out_specs=data)
    found = jax.jit(mapped)(*arguments)
    if utterances:
        expected = jax.jit(everything)(*arguments)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), found, expected
        )
    else:
        expected = jax.eval_shape(everything, *arguments)
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)
