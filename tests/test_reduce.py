"""Means say what they leave out, and add up over devices and steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc

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


@pytest.mark.parametrize("function", [jax_ctc.reduce_loss])
def test_axis_name(function):
    """Over a named axis: the mean of everything, not a mean of means."""
    loss = jnp.array([[1.0, INF], [3.0, 5.0]])
    mapped = jax.vmap(lambda x: function(x, axis_name="i"), axis_name="i")
    np.testing.assert_array_equal(mapped(loss), [3.0, 3.0])


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
    ],
)
def test_static_mistakes(options, error, message):
    """Messages name the argument and what came."""
    with pytest.raises(error, match=message):
        jax_ctc.reduce_loss(jnp.zeros(2), **options)


def test_integer_loss():
    """A status passed as the loss is noticed."""
    with pytest.raises(TypeError, match="`loss` must be floating point"):
        jax_ctc.reduce_loss(jnp.zeros(2, jnp.int32))
