"""Programs that are exported with sizes left open, as those of other losses can be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jax_ctc
from tests.cases import more

NUM_CLASSES = 5
FRAMES, LENGTHS = np.array([61, 7, 0], np.int32), np.array([2, 2, 3], np.int32)
LABELS = np.array([[1, 2, 0], [3, 3, 0], [4, 1, 2]], np.int32)


def sums_of(logits, *others):
    """Return what reads the lattice forward and back, gradients as well."""

    def total(logits):
        loss, status = jax_ctc.ctc_loss_with_status(logits, *others)
        return jax_ctc.reduce_loss(loss, status=status), (loss, status)

    (_, results), gradient = jax.value_and_grad(total, has_aux=True)(logits)
    return *results, gradient, jax_ctc.check_batch(logits, *others)


def readings_of(logits, *others):
    """Return what follows single paths, and what all states have."""
    return (
        jax_ctc.ctc_align(logits, *others),
        jax_ctc.ctc_posteriors(logits, *others),
        jax_ctc.alignment_entropy(logits, *others),
        jax_ctc.greedy_decode(logits, others[1]).lengths,
    )


def textbook_of(logits, *others):
    """Return the specification's."""
    return jax_ctc.ctc_loss(logits, *others, implementation="scan")


def head_of(features, *others):
    """Return the loss of features, and what a training step takes of it."""

    def total(kernel):
        return jax_ctc.linear_ctc_loss(
            features, kernel, None, *others, infeasible="zero"
        ).sum()

    return jax.value_and_grad(total)(jnp.eye(NUM_CLASSES, dtype=jnp.float32))


def shapes(sizes):
    """Return the arguments' shapes: utterances, frames and labels."""
    batch, frames, labels = export.symbolic_shape(sizes)
    return [
        jax.ShapeDtypeStruct((batch, frames, NUM_CLASSES), jnp.float32),
        jax.ShapeDtypeStruct((batch, labels), jnp.int32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "sizes"),
    [
        more(sums_of, "b, 61, 3"),
        (sums_of, "b, t, u"),
        (readings_of, "b, t, 3"),
        more(textbook_of, "b, t, u"),
        (head_of, "b, t, u"),
    ],
)
def test_sizes_may_be_left_open(function, sizes):
    """One program for every batch says what a program for this one says."""
    exported, direct = (
        export.export(jax.jit(function))(*shapes(sizes)),
        jax.jit(function),
    )
    for frames in (61, 3) if "t" in sizes else (61,):  # many chunks, and part of one
        logits = np.random.default_rng(frames).normal(size=(3, 61, NUM_CLASSES))
        logits = logits.astype(np.float32)
        others = LABELS, np.minimum(FRAMES, frames), LENGTHS
        # The direct one has all frames: what is beyond the lengths is padding.
        jax.tree.map(
            assert_alike,
            exported.call(logits[:, :frames], *others),
            direct(logits, *others),
        )


def assert_alike(found, expected):
    """Compare, without the padding that only the other has."""
    expected = expected[:, : found.shape[1]] if found.ndim > 1 else expected
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_classes_may_not():
    """The blank is one of them, so they have to be known: a sentence says so."""
    [classes] = export.symbolic_shape("v")
    logits = jax.ShapeDtypeStruct((2, 6, classes), jnp.float32)
    labels = jax.ShapeDtypeStruct((2, 2), jnp.int32)
    with pytest.raises(ValueError, match=r"`logits` must have a known number of class"):
        export.export(jax.jit(jax_ctc.ctc_loss))(logits, labels)
