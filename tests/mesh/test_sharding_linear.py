"""The loss without logits over several devices: batch, classes, features, frames."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jax_ctc
from benchmarks import hlo
from jax_ctc._lattice import projected
from tests.cases import more

B, T, D, V, U = 4, 8, 6, 24, 2
P = PartitionSpec

# Mesh axes, options, and where features and kernel lie.
LAYOUTS = {
    "batch": ({"data": 4}, {}, P("data"), P()),
    "classes": (
        {"data": 2, "model": 4},
        {"vocab_axis": "model"},
        P("data"),
        P(None, "model"),
    ),
    "features": (
        {"data": 4, "model": 2},
        {"feature_axis": "model"},
        P("data", None, "model"),
        P("model", None),
    ),
    "frames and classes": (
        {"time": 2, "model": 4},
        {"time_axis": "time", "vocab_axis": "model"},
        P(None, "time"),
        P(None, "model"),
    ),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of frames and classes that do not divide a device's share evenly."""
    monkeypatch.setattr(projected, "_BLOCK", {"cpu": projected.Block(6, 5, 5, 5)})
    monkeypatch.setattr(projected, "_LANES", 4)


def batch(dtype=np.float32):
    """A ragged batch, one utterance of it impossible."""
    rng = np.random.default_rng(2)
    arrays = [rng.normal(size=s).astype(dtype) for s in ((B, T, D), (D, V), (V,))]
    labels = np.array([[1, 23], [6, 6], [12, 17], [5, 18]], np.int32)
    return (*arrays, labels, np.array([8, 5, 7, 1], np.int32))


def mesh_of(name, kind=AxisType.Auto):
    """Return the layout's mesh."""
    axes = LAYOUTS[name][0]
    return jax.make_mesh(
        tuple(axes.values()), tuple(axes), axis_types=(kind,) * len(axes)
    )


def places_of(name):
    """Return where features, kernel, bias, labels and lengths lie."""
    _, _, features, kernel = LAYOUTS[name]
    leading = P(features[0]) if len(features) else P()
    return features, kernel, P(kernel[1]) if len(kernel) else P(), leading, leading


def mean_and_gradients(features, kernel, bias, *rest, axis_name=None, **options):
    """The user's own mean, and what training needs of it."""

    def mean(*layer):
        loss, status = jax_ctc.linear_ctc_loss_with_status(*layer, *rest, **options)
        return jax_ctc.reduce_loss(loss, status=status, axis_name=axis_name)

    return jax.value_and_grad(mean, argnums=(0, 1, 2))(features, kernel, bias)


@functools.cache
def whole():
    """The same of logits, on one device."""
    features, kernel, bias, *rest = batch()

    def mean(*layer):
        features, kernel, bias = layer
        logits = jnp.einsum("btd,dv->btv", features, kernel) + bias[None, None]
        loss, status = jax_ctc.ctc_loss_with_status(logits, *rest)
        return jax_ctc.reduce_loss(loss, status=status)

    return jax.jit(jax.value_and_grad(mean, argnums=(0, 1, 2)))(features, kernel, bias)


def check(found):
    """Compare with one device."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(whole()), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-5)


def program(name):
    """Compile mean and gradients in a shard_map, and return its text too."""
    _, options, features, _ = LAYOUTS[name]
    axis = features[0] if len(features) else None
    places = places_of(name)
    function = jax.shard_map(
        functools.partial(mean_and_gradients, axis_name=axis, **options),
        mesh=mesh_of(name),
        in_specs=places,
        out_specs=(P(), places[:3]),
    )
    compiled = jax.jit(function).lower(*batch()).compile()
    return compiled, hlo.collectives(compiled.as_text())


@pytest.mark.parametrize("name", LAYOUTS)
def test_sharded_is_whole(name):
    """Value and gradients are those of one device; no block of logits is sent."""
    compiled, sent = program(name)
    found = compiled(*batch())
    check(found)
    place = NamedSharding(mesh_of(name), places_of(name)[1])
    assert found[1][1].sharding.is_equivalent_to(place, 2)
    sizes = [size for each in sent for size in each.sizes]
    if name == "batch":  # the kernel's gradient and the bias's, once each
        assert all(each.times == 1 for each in sent)
        assert sizes.count(D * V) == 1
        assert max(sizes) == D * V
    if name == "classes":  # features' and states', and of the kernel its own quarter
        assert all(each.times == 1 for each in sent)
        assert max(sizes) <= B // 2 * T * max(D, U + 3)


@pytest.mark.exhaustive
def test_hvp_of_sharded_classes():
    """Curvature too, in float32."""
    features, kernel, bias, *rest = batch()
    direction = np.random.default_rng(3).normal(size=kernel.shape).astype(np.float32)

    def product(kernel, direction, features, bias, labels, lengths, **options):
        def total(kernel):
            loss = jax_ctc.linear_ctc_loss(
                features, kernel, bias, labels, lengths, infeasible="zero", **options
            )
            return loss.sum()

        return jax.jvp(jax.grad(total), (kernel,), (direction,))[1]

    name = "classes"
    mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))
    own = P(None, "model")
    sharded = jax.shard_map(
        functools.partial(product, **LAYOUTS[name][1]),
        mesh=mesh,
        in_specs=(own, own, P(), P("model"), P(), P()),
        out_specs=own,
    )
    arguments = (kernel, direction, features, bias, *rest)
    np.testing.assert_allclose(
        jax.jit(sharded)(*arguments), jax.jit(product)(*arguments), atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        more("classes", AxisType.Auto),
        more("features", AxisType.Explicit),
        ("classes", AxisType.Explicit),
    ],
    ids=["classes, told", "features, typed", "classes, typed"],
)
def test_without_shard_map(name, kind):
    """Auto axes are named under `set_mesh`; Explicit ones are read off the types."""
    mesh = mesh_of(name, kind)
    places = places_of(name)[:3]
    layer = [
        jax.device_put(x, NamedSharding(mesh, place))
        for x, place in zip(batch()[:3], places, strict=True)
    ]
    options = LAYOUTS[name][1] if kind == AxisType.Auto else {}
    function = jax.jit(functools.partial(mean_and_gradients, **options))
    with jax.set_mesh(mesh):
        found = function(*layer, *batch()[3:])
    check(found)
    assert found[1][1].sharding.is_equivalent_to(layer[1].sharding, 2)


def test_features_sharded_by_the_compiler():
    """Auto axes, untold: right, and the kernel's gradient lies as the kernel does."""
    mesh = mesh_of("features")
    place = NamedSharding(mesh, P("model", None))
    features, kernel, *rest = batch()
    found = jax.jit(mean_and_gradients)(features, jax.device_put(kernel, place), *rest)
    check(found)
    assert found[1][1].sharding.is_equivalent_to(place, 2)


def test_static_mistakes():
    """What the types of sharded arrays give away."""
    features, kernel, bias, *rest = batch()
    few = (features, kernel[:, :22], bias[:22], *rest)
    message = "`kernel` has V=22, which 4 devices"
    with jax.set_mesh(mesh_of("classes")), pytest.raises(ValueError, match=message):
        jax_ctc.linear_ctc_loss(*few, vocab_axis="model")
    sharded = jax.shard_map(
        functools.partial(jax_ctc.linear_ctc_loss, vocab_axis="model"),
        mesh=mesh_of("classes"),
        in_specs=(P("data"), P(), P(), P("data"), P("data")),
        out_specs=P("data"),
    )
    with pytest.raises(ValueError, match="`kernel` is the same on all devices"):
        sharded(*batch())
