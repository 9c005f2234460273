"""A `shard_map` within another, a few of the axes, and the loss between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jax_ctc

B, T, V, U = 8, 9, 12, 3
DATA, CLASSES = PartitionSpec("data"), PartitionSpec(None, None, "model")
NOWHERE = PartitionSpec()


def make_mesh(kind, names=("data", "model")):
    """2 x 4 devices."""
    return jax.make_mesh((2, 4), names, axis_types=(kind,) * 2)


def batch():
    """Logits and labels of full length."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(B, T, V)).astype(np.float32)
    return logits, rng.integers(1, V, (B, U)).astype(np.int32)


def loss_and_gradient(logits, labels, **axes):
    """Of each utterance."""
    loss, pullback = jax.vjp(lambda x: jax_ctc.ctc_loss(x, labels, **axes), logits)
    return loss, pullback(jnp.ones_like(loss))[0]


def over(mesh, manual, in_specs, out_specs, **axes):
    """Loss and gradient in a shard_map over some axes, the batch lying over data."""
    logits, labels = batch()
    if "data" in mesh.axis_names:
        place = PartitionSpec("data", None, None if manual == {"model"} else "model")
        logits = jax.device_put(logits, NamedSharding(mesh, place))
        labels = jax.device_put(labels, NamedSharding(mesh, DATA))
    function = jax.shard_map(
        lambda x, y: loss_and_gradient(x, y, **axes),
        mesh=mesh,
        in_specs=in_specs,
        out_specs=out_specs,
        axis_names=manual,
    )
    with jax.set_mesh(mesh):
        return jax.jit(function)(logits, labels)


def check(found):
    """Equal to one device."""
    for value, whole in zip(found, loss_and_gradient(*batch()), strict=True):
        np.testing.assert_allclose(value, whole, rtol=1e-6, atol=1e-6)


def test_classes_manual_and_the_batch_automatic():
    """An Auto axis of the batch stays the compiler's."""
    mesh = make_mesh(AxisType.Auto)
    specs = (CLASSES, NOWHERE), (NOWHERE, CLASSES)
    check(over(mesh, {"model"}, *specs, vocab_axis="model"))


def test_explicit_batch_inside_an_axis_that_does_not_matter():
    """Logits that are the same along the manual axis are wrapped once more."""
    mesh = make_mesh(AxisType.Explicit)
    check(over(mesh, {"model"}, (NOWHERE, NOWHERE), (NOWHERE, NOWHERE)))


@pytest.mark.parametrize(
    ("kind", "manual", "specs", "options"),
    [
        (AxisType.Explicit, "model", (CLASSES, NOWHERE), {"vocab_axis": "model"}),
        (AxisType.Explicit, "data", (DATA, DATA), {}),
        (AxisType.Auto, "data", (DATA, DATA), {"vocab_axis": "model"}),
    ],
    ids=["batch Explicit", "classes Explicit", "classes Auto"],
)
def test_what_jax_cannot_differentiate_is_refused(kind, manual, specs, options):
    """One shard_map within another, of logits that vary over both."""
    # The first of these JAX 0.12 refuses itself, before the loss sees it.
    refused = r"Name all of these axes in one shard_map|does not match the specs"
    with pytest.raises(ValueError, match=refused):
        over(make_mesh(kind), {manual}, specs, specs, **options)


def test_only_some_axes_are_entered():
    """Frames left to the mesh, classes manual."""
    mesh = make_mesh(AxisType.Auto, ("time", "model"))
    options = {"vocab_axis": "model", "time_axis": "time"}
    with pytest.raises(ValueError, match="but only 'model' are axes of the shard_map"):
        over(mesh, {"model"}, (CLASSES, NOWHERE), (NOWHERE, CLASSES), **options)


def test_an_axis_named_twice():
    """It can hold one part only."""
    with pytest.raises(ValueError, match="`vocab_axis` names 'model' twice"):
        jax_ctc.ctc_loss(*batch(), vocab_axis=("model", "model"))


@pytest.mark.parametrize("implementation", [None, "blocked"])
def test_vmap_on_explicit_axes(implementation):
    """Under `jax.set_mesh`, as docs/pods.md says: by a kernel, and in plain XLA."""
    mesh = jax.make_mesh((8,), ("data",))
    placed = jax.device_put(batch(), NamedSharding(mesh, DATA))

    def loss(logits, labels):
        return jax_ctc.ctc_loss(logits, labels, implementation=implementation)

    each = jax.vmap(jax.value_and_grad(loss))
    with jax.set_mesh(mesh):
        found = each(*placed)
    for value, whole in zip(found, each(*batch()), strict=True):
        np.testing.assert_allclose(value, whole, rtol=1e-6, atol=1e-6)


def test_vmap_on_explicit_axes_of_logits_alone():
    """The labels are the same for all, and an utterance has an axis of its own."""
    mesh = jax.make_mesh((8,), ("data",))
    logits, labels = batch()
    logits = jnp.stack([logits, -logits], axis=1)
    placed = jax.device_put(logits, NamedSharding(mesh, DATA))
    each = jax.vmap(jax_ctc.ctc_loss, in_axes=(0, None))
    with jax.set_mesh(mesh):
        found = each(placed, labels[:2])
    np.testing.assert_allclose(found, each(logits, labels[:2]), rtol=1e-6)
