"""JAX's own guards have nothing to say: no hidden transfer, no NaN behind a mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jax_ctc

LOGITS = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
LOGITS[1, 2, 3] = -np.inf  # a class that is masked
LABELS = np.array([[1, 1], [2, 3], [3, 3]], np.int32)

READINGS = {
    "ctc_loss": lambda logits, labels, _: jax_ctc.ctc_loss(logits, labels),
    "scan": lambda logits, labels, _: jax_ctc.ctc_loss(
        logits, labels, implementation="scan"
    ),
    "check_batch": lambda logits, labels, _: jax_ctc.check_batch(logits, labels),
    "ctc_align": lambda logits, labels, _: jax_ctc.ctc_align(logits, labels),
    "ctc_posteriors": lambda logits, labels, _: jax_ctc.ctc_posteriors(logits, labels),
    "alignment_entropy": lambda logits, labels, _: jax_ctc.alignment_entropy(
        logits, labels
    ),
    "sample_alignments": lambda logits, labels, key: jax_ctc.sample_alignments(
        key, logits, labels, num_samples=2
    ),
    "graphs": lambda logits, labels, _: [
        read(logits, jax_ctc.ctc_graph(labels))
        for read in (
            jax_ctc.ctc_loss_over_graph_with_status,
            jax_ctc.ctc_align_over_graph,
        )
    ],
    "greedy_decode": lambda logits, *_: jax_ctc.greedy_decode(logits),
    "beam_search_decode": lambda logits, *_: jax_ctc.beam_search_decode(
        logits, beam_width=2
    ),
    "label_errors": lambda _, labels, __: jax_ctc.label_errors(
        labels, None, labels, None
    ),
    "minimum_frames": lambda _, labels, __: jax_ctc.minimum_frames(labels),
    "reduce_loss": lambda logits, *_: jax_ctc.reduce_loss(logits),
}


@pytest.mark.parametrize("name", READINGS)
def test_lengths_left_out_are_no_transfer(name):
    """Outside `jit`, of arrays on the device: the defaults are part of the program."""
    given = jnp.asarray(LOGITS), jnp.asarray(LABELS), jax.random.key(0)
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(READINGS[name](*given))


def test_a_layer_is_no_transfer():
    layer = jnp.ones((3, 6, 2)), jnp.ones((2, 4)), None
    labels = jnp.asarray(LABELS)
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(jax_ctc.linear_ctc_loss(*layer, labels))


def test_paddings_are_no_transfer():
    paddings = jnp.zeros((3, 6))
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(jax_ctc.lengths_from_paddings(paddings))


@pytest.mark.parametrize("implementation", ["blocked", "scan"])
def test_no_nan_behind_a_mask(implementation):
    """Infeasible, empty, and through a masked class: inf and 0 come without a NaN."""
    lengths = jnp.array([1, 6, 0]), jnp.array([2, 2, 0])

    def readings(logits):
        loss, status = jax_ctc.ctc_loss_with_status(
            logits, LABELS, *lengths, implementation=implementation
        )
        return loss, jax_ctc.reduce_loss(loss, status=status)

    checked = jax.jit(checkify.checkify(readings, errors=checkify.float_checks))
    error, (loss, mean) = checked(jnp.asarray(LOGITS))
    error.throw()
    assert loss[0] == jnp.inf
    assert loss[2] == 0
    assert jnp.isfinite(mean)


@pytest.mark.parametrize("reading", ["alignment_entropy", "ctc_posteriors"])
def test_no_nan_behind_the_mask_of_a_reading(reading):
    lengths = jnp.array([1, 6, 0]), jnp.array([2, 2, 0])
    function = checkify.checkify(
        lambda logits: getattr(jax_ctc, reading)(logits, LABELS, *lengths),
        errors=checkify.float_checks,
    )
    error, found = jax.jit(function)(jnp.asarray(LOGITS))
    error.throw()
    # What is infeasible has a likelihood of -inf; that is a number.
    assert not any(jnp.isnan(x).any() for x in jax.tree.leaves(found))


def test_no_nan_behind_the_masks_of_a_graph():
    """Closed arcs, states out of reach: nor in the gradients, nor on the best path."""
    lengths, counts = jnp.array([1, 6, 0]), jnp.array([2, 2, 0])

    def total(logits):
        graph = jax_ctc.ctc_graph(LABELS, counts)
        loss = jax_ctc.ctc_loss_over_graph(logits, graph, lengths, infeasible="zero")
        return loss.sum(), jax_ctc.ctc_align_over_graph(logits, graph, lengths)

    gradient = jax.grad(total, has_aux=True)
    checked = jax.jit(checkify.checkify(gradient, errors=checkify.float_checks))
    error, (found, path) = checked(jnp.asarray(LOGITS))
    error.throw()
    assert found.any(axis=(1, 2)).tolist() == [False, True, False]
    assert jnp.isfinite(path.log_prob).tolist() == [False, True, True]


def test_no_nan_behind_the_masks_of_a_beam():
    """Places of the beam that are empty: twice -inf is no NaN on the way."""
    function = checkify.checkify(
        lambda logits: jax_ctc.beam_search_decode(
            logits, jnp.array([1, 6, 0]), beam_width=3, num_hypotheses=3
        ),
        errors=checkify.float_checks,
    )
    error, found = jax.jit(function)(jnp.asarray(LOGITS))
    error.throw()
    assert found.log_prob[2].tolist() == [0, -jnp.inf, -jnp.inf]


def test_no_nan_behind_the_masks_of_a_layer():
    """Nor in the gradients, of utterances that are infeasible, fine and empty."""
    lengths = jnp.array([1, 6, 0]), jnp.array([2, 2, 0])

    def total(*layer):
        loss = jax_ctc.linear_ctc_loss(*layer, LABELS, *lengths, infeasible="zero")
        return loss.sum(), loss

    gradients = jax.grad(total, argnums=(0, 1, 2), has_aux=True)
    checked = jax.jit(checkify.checkify(gradients, errors=checkify.float_checks))
    features = jnp.asarray(LOGITS[:, :, :2])
    bias = jnp.array([0, -jnp.inf, 0, 0])  # a class that is masked
    error, (found, loss) = checked(features, jnp.ones((2, 4)), bias)
    error.throw()
    assert (loss > 0).tolist() == [False, True, False]
    assert found[0].any(axis=(1, 2)).tolist() == [False, True, False]
