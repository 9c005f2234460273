"""One utterance over several devices: classes, frames or both are sharded."""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jax_ctc
from benchmarks import hlo
from jax_ctc import Status
from jax_ctc._recursion.blocked import chunks
from tests.cases import more

B, T, V, U = 8, 16, 12, 3


class Layout(NamedTuple):
    """A mesh, the axes that the loss is told, and where batch, frames, classes lie."""

    mesh: dict[str, int]
    options: dict[str, str]
    scores: PartitionSpec

    def make_mesh(self, kind=AxisType.Auto):
        """Return the mesh of 8 devices."""
        return jax.make_mesh(
            tuple(self.mesh.values()),
            tuple(self.mesh),
            axis_types=(kind,) * len(self.mesh),
        )

    @property
    def batch(self):
        """Where what has no classes and no frames lies."""
        return PartitionSpec(self.scores[0])


LAYOUTS = {
    "classes": Layout(
        {"data": 2, "model": 4},
        {"vocab_axis": "model"},
        PartitionSpec("data", None, "model"),
    ),
    "frames": Layout(
        {"data": 2, "time": 4},
        {"time_axis": "time"},
        PartitionSpec("data", "time", None),
    ),
    "both": Layout(
        {"data": 2, "time": 2, "model": 2},
        {"time_axis": "time", "vocab_axis": "model"},
        PartitionSpec("data", "time", "model"),
    ),
    "classes over two axes": Layout(
        {"a": 2, "b": 2, "data": 2},
        {"vocab_axis": ("b", "a")},
        PartitionSpec("data", None, ("b", "a")),
    ),
}


def batch(dtype=np.float32):
    """Utterances of every fate; label ids lie on every device."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(B, T, V)).astype(dtype)
    labels = np.array(
        [[1, 6, 11], [3, 3, 9], [4, 5, 6], [7, 12, 1], [0, 2, 2], *[[8, 2, 10]] * 3],
        np.int32,
    )
    logit_lengths = np.array([16, 9, 16, 16, 16, 2, 14, 99], np.int32)
    label_lengths = np.array([3, 3, 0, 3, 3, 3, 3, 3], np.int32)
    logits[2, 13, 7] = np.nan  # not finite, in the last stretch and the third shard
    logits[6, :, 10] = -np.inf  # a label without probability
    logits[0, :, 5] = -np.inf  # a class nobody needs
    logits[1, 9:] = np.nan  # padding
    return logits, labels, logit_lengths, label_lengths


STATUS = [
    Status.OK,
    Status.OK,
    Status.NONFINITE_LOGITS,
    Status.LABEL_OUT_OF_RANGE,
    Status.BLANK_IN_LABELS,
    Status.INFEASIBLE,
    Status.ZERO_PROBABILITY,
    Status.BAD_LENGTH,
]


def everything(implementation, is_curved, logits, tangent, *rest, **axes):
    """Value, status and tangent per utterance; gradients, and curvature if asked for.

    Curvature is left out where it would only be compiled again.
    """
    options = {"implementation": implementation, **axes}
    loss, status = jax_ctc.ctc_loss_with_status(logits, *rest, **options)
    checked = jax_ctc.check_batch(logits, *rest, **axes)

    def of_log_probs(x):
        return jax_ctc.ctc_loss_from_log_probs(x, *rest, **options)

    def total(x):
        loss = jax_ctc.ctc_loss(x, *rest, **options)
        return jnp.sum(jnp.where(jnp.isfinite(loss), loss, 0))

    value, slope = jax.jvp(of_log_probs, (logits,), (tangent,))
    per_utterance = loss, status, checked, value, slope
    if is_curved:
        return per_utterance, jax.jvp(jax.grad(total), (logits,), (tangent,))
    of_scores = jax.grad(lambda x: jnp.nansum(of_log_probs(x)))(logits)
    return per_utterance, (jax.grad(total)(logits), of_scores)


@functools.cache
def reference(implementation, is_curved):
    """The same, on one device."""
    arguments = batch(np.float64)
    tangent = np.random.default_rng(2).normal(size=arguments[0].shape)
    function = jax.jit(functools.partial(everything, implementation, is_curved))
    return (tangent, *jax.device_get(function(arguments[0], tangent, *arguments[1:])))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "implementation", "is_curved"),
    [
        more("classes", "blocked", False),
        more("frames", "blocked", False),
        ("both", "blocked", True),
        more("both", "scan", True),
    ],
)
def test_sharded_is_whole(name, implementation, is_curved, x64, monkeypatch):
    """Value, status, jvp, gradient and HVP are those of one device, in float64."""
    layout = LAYOUTS[name]
    tangent, *expected = reference(implementation, is_curved)
    # Chunks that do not divide a stretch: nothing may happen between two stretches.
    monkeypatch.setattr(chunks, "_LEAST_CHUNK", 3)
    monkeypatch.setattr(chunks, "_KEEP_BYTES", 0)
    logits, *rest = batch(np.float64)
    function = jax.shard_map(
        functools.partial(everything, implementation, is_curved, **layout.options),
        mesh=layout.make_mesh(),
        in_specs=(layout.scores, layout.scores, *[layout.batch] * 3),
        out_specs=(layout.batch, layout.scores),
    )
    found = jax.jit(function)(logits, tangent, *rest)
    assert expected[0][1].tolist() == STATUS
    for value, whole in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(value, whole, rtol=1e-11, atol=1e-11)
    gradient = found[1][0]
    expected_place = NamedSharding(layout.make_mesh(), layout.scores)
    assert gradient.sharding.is_equivalent_to(expected_place, 3)
    np.testing.assert_array_equal(np.asarray(gradient)[2:], 0)


def test_sharded_classes_by_scatter():
    """Many classes, repeats, and half precision: the gradient stays in its dtype."""
    rng, dtype = np.random.default_rng(3), jnp.bfloat16
    logits = jnp.asarray(rng.normal(size=(2, 9, 1200)), dtype)
    labels = np.array([[5, 700, 5, 1199], [299, 300, 300, 301]], np.int32)
    layout = LAYOUTS["classes over two axes"]

    def gradient(x, labels, **axes):
        return jax.grad(lambda x: jax_ctc.ctc_loss(x, labels, **axes).sum())(x)

    sharded = jax.shard_map(
        functools.partial(gradient, **layout.options),
        mesh=layout.make_mesh(),
        in_specs=(layout.scores, layout.batch),
        out_specs=layout.scores,
    )
    found, whole = jax.jit(sharded)(logits, labels), gradient(logits, labels)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found.astype(np.float32),
        whole.astype(np.float32),
        atol=1e-6,
        rtol=float(jnp.finfo(dtype).eps),
    )


def mean_and_gradient(logits, *rest, axis_name=None, **axes):
    """The user's own mean."""

    def mean(logits):
        loss, status = jax_ctc.ctc_loss_with_status(logits, *rest, **axes)
        return jax_ctc.reduce_loss(loss, status=status, axis_name=axis_name)

    return jax.value_and_grad(mean)(logits)


def test_what_crosses_the_network():
    """A maximum, the sums, and the mean: never an array with a class axis."""
    layout = LAYOUTS["classes"]
    logits, *rest = batch()
    function = jax.shard_map(
        functools.partial(mean_and_gradient, axis_name="data", **layout.options),
        mesh=layout.make_mesh(),
        in_specs=(layout.scores, *[layout.batch] * 3),
        out_specs=(PartitionSpec(), layout.scores),
    )
    text = jax.jit(function).lower(logits, *rest).compile().as_text()
    found = hlo.collectives(text)
    assert {(c.name, c.times) for c in found} == {("all-reduce", 1)}
    frames = B // 2 * T
    sizes = sorted(size for collective in found for size in collective.sizes)
    # Of the sums two make the normaliser; the mean's weight and total may share one.
    assert sizes == [1, 1, frames, frames * (U + 1 + 2)]


def test_default_lengths_are_of_all_devices():
    """Where no lengths are given, every frame of every stretch counts."""
    layout = LAYOUTS["frames"]
    logits, labels, *_ = batch()
    labels[:] = [1, 2, 3]
    logits[1:] = logits[:1]
    sharded = jax.shard_map(
        functools.partial(jax_ctc.ctc_loss, **layout.options),
        mesh=layout.make_mesh(),
        in_specs=(layout.scores, layout.batch),
        out_specs=layout.batch,
    )
    expected = jax_ctc.ctc_loss(logits, labels)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(sharded(logits, labels), expected, rtol=1e-6)


def test_frames_pass_on_two_rows():
    """Neighbours exchange columns of the lattice, whatever T and V."""
    layout = LAYOUTS["frames"]
    logits, *rest = batch()
    function = jax.shard_map(
        functools.partial(mean_and_gradient, axis_name="data", **layout.options),
        mesh=layout.make_mesh(),
        in_specs=(layout.scores, *[layout.batch] * 3),
        out_specs=(PartitionSpec(), layout.scores),
    )
    text = jax.jit(function).lower(logits, *rest).compile().as_text()
    found = hlo.collectives(text)
    turns = layout.mesh["time"]
    assert {(c.name, c.times) for c in found} == {
        ("all-reduce", 1),
        ("collective-permute", turns),
    }
    assert max(size for c in found for size in c.sizes) == B // 2 * (U + 1)


@pytest.mark.parametrize(
    ("name", "kind"), [more("classes", AxisType.Auto), ("both", AxisType.Explicit)]
)
def test_without_shard_map(name, kind):
    """Auto axes are named under `set_mesh`; Explicit ones are read off the type."""
    layout = LAYOUTS[name]
    mesh = layout.make_mesh(kind)
    logits, *rest = batch()
    placed = jax.device_put(logits, NamedSharding(mesh, layout.scores))
    options = layout.options if kind == AxisType.Auto else {}
    function = jax.jit(functools.partial(mean_and_gradient, **options))
    with jax.set_mesh(mesh):
        text = function.lower(placed, *rest).compile().as_text()
        value, gradient = function(placed, *rest)
    assert max(s for c in hlo.collectives(text) for s in c.sizes) <= B * T * (U + 3)
    whole, whole_gradient = mean_and_gradient(logits, *rest)
    np.testing.assert_allclose(value, whole, rtol=1e-6)
    np.testing.assert_allclose(gradient, whole_gradient, atol=1e-6)
    assert gradient.sharding.is_equivalent_to(placed.sharding, 3)


def test_explicit_axes_of_the_batch():
    """Labels are brought to where the logits are, without a mesh in the context."""
    mesh = jax.make_mesh((8,), ("data",))
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    logits, *rest = batch()
    expected = jax_ctc.ctc_loss(logits, *rest)
    for place in (lambda x: x), (lambda x: jax.device_put(x, sharded)):
        loss = jax_ctc.ctc_loss(jax.device_put(logits, sharded), *map(place, rest))
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        assert loss.sharding.is_equivalent_to(sharded, 1)
    loss = jax_ctc.ctc_loss(logits, *(jax.device_put(x, sharded) for x in rest))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["classes", "frames"])
def test_untracked_values_have_no_derivative(name):
    """check_vma=False: the value is right, a derivative from either side refused."""
    layout = LAYOUTS[name]
    logits, *rest = batch()

    def mapped(function, out_specs):
        return jax.jit(
            jax.shard_map(
                functools.partial(function, **layout.options),
                mesh=layout.make_mesh(),
                in_specs=(layout.scores, *[layout.batch] * 3),
                out_specs=out_specs,
                check_vma=False,
            )
        )

    loss = mapped(jax_ctc.ctc_loss, layout.batch)
    np.testing.assert_allclose(
        loss(logits, *rest), jax_ctc.ctc_loss(logits, *rest), rtol=1e-6
    )
    inside = mapped(mean_and_gradient, (layout.batch, layout.scores))
    message = "vocab_axis or time_axis adds up over devices, .* check_vma=True"
    with pytest.raises(NotImplementedError, match=message):
        inside(logits, *rest)
    with pytest.raises(NotImplementedError, match=message):
        jax.grad(lambda x: loss(x, *rest).sum())(logits)
    with pytest.raises(NotImplementedError, match=message):
        jax.jvp(lambda x: loss(x, *rest), (logits,), (logits,))


def test_a_scan_around_sharded_frames_says_what_it_cannot_do():
    """Where JAX drops the loss's rule: an error, and no derivative of bits."""
    logits, *rest = batch()
    layout = LAYOUTS["frames"]

    def curvature(logits, *rest, implementation):
        def scanned(x):
            def step(sum, x):
                loss = jax_ctc.ctc_loss(
                    x, *rest, implementation=implementation, **layout.options
                )
                return sum + jnp.sum(jnp.where(jnp.isfinite(loss), loss, 0) ** 2), None

            start = jax.lax.pcast(jnp.zeros(()), ("data", "time"), to="varying")
            return jax.lax.scan(step, start, x[None])[0]

        direction = jnp.where(jnp.isfinite(logits), logits, 0)
        return jax.jvp(jax.grad(scanned), (logits,), (direction,))[1]

    def run(implementation):
        return jax.jit(
            jax.shard_map(
                functools.partial(curvature, implementation=implementation),
                mesh=layout.make_mesh(),
                in_specs=(layout.scores, *[layout.batch] * 3),
                out_specs=layout.scores,
            )
        )(logits, *rest)

    exact, found, message = run("scan"), None, ""
    assert np.abs(exact).max() > 0
    try:
        found = run("blocked")
    except NotImplementedError as error:
        message = str(error)
    if found is None:
        assert re.search("JAX drops.* implementation='scan'", message)
    else:  # JAX 0.12.0.1 drops no rule any more
        np.testing.assert_allclose(found, exact, atol=1e-5 * np.abs(exact).max())


def in_shard_map(function, *specs, **options):
    """Run a function of a batch, classes sharded, where mistakes are looked for."""
    logits, *rest = batch()
    layout = LAYOUTS["classes"]
    return jax.shard_map(
        functools.partial(function, **options),
        mesh=layout.make_mesh(),
        in_specs=specs,
        out_specs=PartitionSpec(("data", "model")),
    )(logits, *rest)


DATA, SCORES = PartitionSpec("data"), PartitionSpec("data", None, "model")


@pytest.mark.parametrize(
    ("specs", "options", "message"),
    [
        ([DATA] * 4, {"vocab_axis": "model"}, "`logits` is the same on all devices"),
        (
            [SCORES, PartitionSpec(("data", "model")), DATA, DATA],
            {"vocab_axis": "model"},
            "`labels` must be|`labels` varies along 'model'",
        ),
        (
            [SCORES, PartitionSpec("data", None), DATA, DATA],
            {"vocab_axis": "modle"},
            "there is no mesh axis 'modle' here",
        ),
        (
            [SCORES, DATA, DATA, DATA],
            {"vocab_axis": "model", "time_axis": "model"},
            "must be different mesh axes; both name 'model'",
        ),
        (
            [SCORES, DATA, DATA, DATA],
            {"vocab_axis": "model", "blank_id": 12},
            "one of the V=12 classes, 0..11; got 12",
        ),
    ],
)
def test_static_mistakes_inside(specs, options, message):
    """What the types of sharded arrays give away."""
    with pytest.raises(ValueError, match=message):
        in_shard_map(jax_ctc.ctc_loss, *specs, **options)


def test_labels_that_vary():
    """Labels must be the same on all devices that share an utterance."""

    def loss(logits, labels, *lengths):
        labels = labels + jax.lax.axis_index("model")
        return jax_ctc.ctc_loss(logits, labels, *lengths, vocab_axis="model")

    with pytest.raises(ValueError, match="`labels` varies along 'model'"):
        in_shard_map(loss, SCORES, DATA, DATA, DATA)


def test_static_mistakes_outside():
    """Axes that are not there, sizes that do not divide, types that say otherwise."""
    logits, *rest = batch()
    with pytest.raises(TypeError, match="`vocab_axis` must be the name of a mesh"):
        jax_ctc.ctc_loss(logits, *rest, vocab_axis=2)
    with pytest.raises(ValueError, match="no mesh axis 'model' here.*axes here: none"):
        jax_ctc.ctc_loss(logits, *rest, vocab_axis="model")
    layout = LAYOUTS["classes"]
    with jax.set_mesh(layout.make_mesh()):
        with pytest.raises(ValueError, match="V=11, which 4 devices along 'model'"):
            jax_ctc.ctc_loss(logits[..., :11], *rest, vocab_axis="model")
        with pytest.raises(ValueError, match="T=15, which 4 .* frames past"):
            jax_ctc.ctc_loss(logits[:, :15], *rest, time_axis="model")
    mesh = layout.make_mesh(AxisType.Explicit)
    placed = jax.device_put(logits, NamedSharding(mesh, layout.scores))
    with pytest.raises(ValueError, match="`vocab_axis` is 'data', but .* says 'model'"):
        jax_ctc.ctc_loss(placed, *rest, vocab_axis="data")


@pytest.mark.exhaustive
def test_one_utterance_of_a_hundred_thousand_frames():
    """Over 8 devices, with padding in the last stretch: the loss and gradient of one.

    Exactly, that is: the gradient of one device is as far from it (numerics.md).
    """
    rng = np.random.default_rng(5)
    frames = 100_000
    logits = rng.normal(size=(1, frames, 8)).astype(np.float32)
    labels = rng.integers(1, 8, (1, 64)).astype(np.int32)
    lengths = np.array([frames - 345], np.int32)
    mesh = jax.make_mesh((8,), ("time",), axis_types=(AxisType.Auto,))
    place, nowhere = PartitionSpec(None, "time"), PartitionSpec()
    sharded = jax.shard_map(
        functools.partial(mean_and_gradient, time_axis="time"),
        mesh=mesh,
        in_specs=(place, nowhere, nowhere),
        out_specs=(nowhere, place),
    )
    loss, gradient = jax.jit(sharded)(logits, labels, lengths)
    alone, own_gradient = jax.jit(mean_and_gradient)(logits, labels, lengths)
    with jax.enable_x64(True):
        exact, exact_gradient = jax.jit(
            functools.partial(mean_and_gradient, implementation="scan")
        )(logits.astype(np.float64), labels, lengths)
    for value in (loss, alone):
        np.testing.assert_allclose(value, exact, rtol=1e-6)
    for slopes in (gradient, own_gradient):
        np.testing.assert_allclose(slopes, exact_gradient, atol=2e-6)
    np.testing.assert_array_equal(np.asarray(gradient)[:, frames - 345 :], 0)
