"""Means say what they leave out, and add up over devices and steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jax_ctc

pytestmark = pytest.mark.fast

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("loss", "options", "expected"),
    [
        ([2.0, 4.0], {}, 3.0),
        ([2.0, INF, 4.0], {}, 3.0),
        ([2.0, NAN], {}, NAN),
        ([2.0, NAN], {"status": [0, 16]}, 2.0),
        ([2.0, NAN], {"status": [0, 0]}, NAN),
        ([2.0, 0.0], {"status": [0, 1]}, 2.0),
        ([INF, INF], {}, 0.0),
        ([], {}, 0.0),
        ([2.0, 4.0], {"weights": [1.0, 3.0]}, 3.5),
        ([2.0, NAN], {"weights": [1.0, 0.0]}, 2.0),
        ([2.0, 4.0], {"weights": [0.0, 0.0]}, 0.0),
        ([2.0, INF], {"weights": [1.0, 5.0]}, 2.0),
        ([2.0, 4.0], {"label_lengths": [2, 1]}, 2.5),
        ([2.0, 4.0], {"label_lengths": [0, 4]}, 1.5),
        ([2.0, 4.0], {"weights": [1, 3]}, 3.5),
    ],
)
def test_mean(loss, options, expected):
    """+inf, flagged and weightless utterances do not count; an unexplained NaN does."""
    loss = np.array(loss, np.float32)
    np.testing.assert_equal(
        np.float32(jax_ctc.reduce_loss(loss, **options)), np.float32(expected)
    )


def test_mean_of_any_shape():
    """Leading axes are all reduced."""
    assert jax_ctc.reduce_loss(jnp.array([[1.0, 2.0], [3.0, INF]])) == 2.0
    assert jax_ctc.reduce_loss(jnp.float32(3.0)) == 3.0


def test_torch_mean():
    """label_lengths gives torch's reduction='mean', by its formula."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 9, 5)).astype(np.float32)
    labels, lengths = rng.integers(1, 5, (3, 3)), np.array([3, 0, 2], np.int32)
    loss = jax_ctc.ctc_loss(logits, labels, None, lengths)
    expected = np.mean(np.asarray(loss) / np.maximum(lengths, 1))
    value = jax_ctc.reduce_loss(loss, label_lengths=lengths)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("loss", "count", "options", "expected"),
    [
        (1000.0, 200, {}, 1000.0),  # the sum is no float16
        (0.5, 70_000, {}, 0.5),  # nor the count, and bfloat16 counts to 256
        (2.0, 2, {"weights": [60_000.0, 60_000.0]}, 2.0),
        (1.0, 257, {"weights": [1] * 257}, 1.0),
        (60_000.0, 3, {"label_lengths": [70_000, 70_000, 70_000]}, 6 / 7),
        (3.0, 300, {"status": [0] * 299 + [1]}, 3.0),
    ],
)
def test_half_precision_is_added_up_in_float32(dtype, loss, count, options, expected):
    """The mean fits its type again; sums and weights stay in float32."""
    losses = jnp.full(count, loss, dtype)
    for some in (losses, np.asarray(losses)):
        mean = jax_ctc.reduce_loss(some, **options)
        assert mean.dtype == losses.dtype
        np.testing.assert_allclose(mean.astype("float32"), expected, rtol=2**-8)
        total, weight = jax_ctc.reduce_loss_and_weight(some, **options)
        assert total.dtype == weight.dtype == jnp.float32
        exact = losses[0].astype("float32") / max(1, *options.get("label_lengths", [1]))
        np.testing.assert_allclose(total / weight, exact, rtol=1e-6)
    gradient = jax.grad(lambda x: jax_ctc.reduce_loss(x, **options).astype("float32"))
    assert jnp.isfinite(gradient(losses)).all()


def test_gradient_counts_what_the_mean_counts():
    """1/n for each that counts, exactly 0 for the rest, whatever the rest holds."""
    loss = jnp.array([2.0, INF, NAN, 4.0])
    status = jnp.array([0, 1, 16, 0], jnp.int32)
    gradient = jax.grad(lambda x: jax_ctc.reduce_loss(x, status=status))(loss)
    np.testing.assert_array_equal(gradient, [0.5, 0, 0, 0.5])
    nothing = jax.grad(jax_ctc.reduce_loss)(jnp.array([INF, INF]))
    np.testing.assert_array_equal(nothing, 0)


def test_sums_add_up():
    """(sum, weight) over steps, divided once, is the mean over everything."""
    loss = np.array([1.0, 2.0, INF, 4.0, 5.0, 6.0], np.float32)
    parts = [jax_ctc.reduce_loss_and_weight(part) for part in np.split(loss, [2, 3])]
    total, weight = (sum(values) for values in zip(*parts, strict=True))
    np.testing.assert_allclose(total / weight, jax_ctc.reduce_loss(loss))


def test_axis_name():
    """Over a named axis: the mean of everything, not a mean of means."""
    loss = jnp.array([[1.0, INF], [3.0, 5.0]])
    mapped = jax.vmap(lambda x: jax_ctc.reduce_loss(x, axis_name="i"), axis_name="i")
    np.testing.assert_array_equal(mapped(loss), [3.0, 3.0])


# Where the flagged utterances are, of 16 on 8 devices.
SPLITS = {
    "none": [],
    "spread": [1, 6, 11, 12],
    "whole devices": [0, 1, 2, 3, 14, 15],
    "all but one": [*range(7), *range(8, 16)],
    "all": list(range(16)),
}


def split_batch(name):
    """Losses with weights and statuses, and the mean and gradient by definition."""
    rng = np.random.default_rng(8)
    loss = rng.uniform(1, 9, 16).astype(np.float32)
    weights = rng.uniform(0.5, 2, 16).astype(np.float32)
    status = np.zeros(16, np.int32)
    status[SPLITS[name]] = rng.choice([1, 16], len(SPLITS[name]))
    loss[status == 1], loss[status == 16] = INF, NAN
    share = np.where(status == 0, weights, 0) / max(weights[status == 0].sum(), 1e-9)
    mean = np.sum(np.where(status == 0, loss, 0) * share)
    return (loss, status, weights), (mean, share)


def mean_and_gradient(loss, status, weights, axis_name=None):
    """Return the mean and its gradient with respect to each loss."""
    return jax.value_and_grad(
        lambda x: jax_ctc.reduce_loss(
            x, status=status, weights=weights, axis_name=axis_name
        )
    )(loss)


DATA = PartitionSpec("data")


def over_devices(function, out_specs, check_vma=True):
    """Run over 8 devices, two utterances each."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    return jax.jit(
        jax.shard_map(
            functools.partial(function, axis_name="data"),
            mesh=mesh,
            in_specs=DATA,
            out_specs=out_specs,
            check_vma=check_vma,
        )
    )


@pytest.mark.parametrize("split", SPLITS)
def test_global_mean_whatever_the_split(split):
    """One mean and one gradient: by jit, by shard_map from inside and from outside."""
    arguments, (mean, share) = split_batch(split)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    placed = jax.device_put(arguments, NamedSharding(mesh, DATA))
    inside = over_devices(mean_and_gradient, (PartitionSpec(), DATA))

    def reduced(loss, status, weights, axis_name):
        return jax_ctc.reduce_loss(
            loss, status=status, weights=weights, axis_name=axis_name
        )

    outside = jax.value_and_grad(over_devices(reduced, PartitionSpec()))
    for function in (jax.jit(mean_and_gradient), inside, outside):
        value, gradient = function(*placed)
        np.testing.assert_allclose(value, mean, rtol=1e-6)
        np.testing.assert_allclose(gradient, share, rtol=1e-6)


def test_untracked_mean_has_no_derivative():
    """check_vma=False, and vmap: JAX would multiply by the number of devices."""
    arguments, (mean, share) = split_batch("spread")

    def reduced(loss, status, weights, axis_name):
        return jax_ctc.reduce_loss(
            loss, status=status, weights=weights, axis_name=axis_name
        )

    untracked = over_devices(reduced, PartitionSpec(), check_vma=False)
    np.testing.assert_allclose(untracked(*arguments), mean, rtol=1e-6)
    message = "reduce_loss with axis_name adds up over devices.*check_vma=True"
    inside = over_devices(mean_and_gradient, (PartitionSpec(), DATA), check_vma=False)
    with pytest.raises(NotImplementedError, match=message):
        inside(*arguments)
    with pytest.raises(NotImplementedError, match=message):
        jax.grad(untracked)(*arguments)
    mapped = jax.vmap(
        functools.partial(mean_and_gradient, axis_name="i"), axis_name="i"
    )
    with pytest.raises(NotImplementedError, match=message):
        mapped(*arguments)

    # What the message leads to works: local sums, one weight, gradients added up.
    def by_hand(loss, status, weights, axis_name):
        def total(x):
            return jax_ctc.reduce_loss_and_weight(x, status=status, weights=weights)

        gradient, weight = jax.grad(total, has_aux=True)(loss)
        return gradient / jax.lax.psum(weight, axis_name)

    by_hand = over_devices(by_hand, DATA, check_vma=False)
    np.testing.assert_allclose(by_hand(*arguments), share, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"status": [0]},
            ValueError,
            r"`status` must have the shape of `loss`, \(2,\)",
        ),
        ({"status": [0.0, 1.0]}, TypeError, "`status` must be"),
        ({"weights": [[1.0, 1.0]]}, ValueError, r"`weights` .* got shape \(1, 2\)"),
        ({"label_lengths": [1.0, 2.0]}, TypeError, "`label_lengths` must be"),
        ({"weights": [1j, 2j]}, TypeError, "`weights` must be real.*complex128"),
    ],
)
def test_static_mistakes(options, error, message):
    """Messages name the argument and what came."""
    with pytest.raises(error, match=message):
        jax_ctc.reduce_loss(jnp.zeros(2), **options)


def test_integer_loss():
    """A status passed as the loss is noticed."""
    for loss in (jnp.zeros(2, jnp.int32), np.zeros(2, np.longdouble)):
        with pytest.raises(TypeError, match="`loss` must be floating point"):
            jax_ctc.reduce_loss(loss)


@pytest.mark.parametrize(
    ("axis_name", "error", "message"),
    [
        ("dat", ValueError, "no axis 'dat' is mapped here"),
        ({"i"}, TypeError, "`axis_name` must be the name of a mesh axis, or a tuple"),
        (("i", "i"), ValueError, "`axis_name` names 'i' twice"),
    ],
)
def test_wrong_axis_names(axis_name, error, message):
    """Inside a map and outside, one clear line."""

    def mean(x):
        return jax_ctc.reduce_loss(x, axis_name=axis_name)

    with pytest.raises(error, match=message):
        jax.vmap(mean, axis_name="i")(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match="no axis 'i' is mapped here. Inside jax.sha"):
        jax_ctc.reduce_loss_and_weight(jnp.zeros(2), axis_name="i")


def test_an_axis_the_loss_does_not_vary_over():
    """The mean and its gradient are as without it; sums count every copy."""
    mesh = jax.make_mesh((2, 4), ("i", "j"), axis_types=(AxisType.Auto,) * 2)
    loss = jnp.array([1.0, INF, 5.0, 2.0])

    def parts(x):
        mean = jax.value_and_grad(
            lambda x: jax_ctc.reduce_loss(x, axis_name=("i", "j"))
        )(x)
        return mean, jax_ctc.reduce_loss_and_weight(x, axis_name=["i", "j"])

    split, whole = PartitionSpec("i"), PartitionSpec()
    (mean, gradient), sums = jax.jit(
        jax.shard_map(
            parts,
            mesh=mesh,
            in_specs=split,
            out_specs=((whole, split), (whole, whole)),
        )
    )(loss)
    np.testing.assert_allclose(mean, 8 / 3, rtol=1e-6)
    np.testing.assert_allclose(gradient, np.array([1, 0, 1, 1]) / 3, rtol=1e-6)
    assert [float(x) for x in sums] == [32.0, 12.0]
