"""Labels that stand for anything, in the losses: status, options, transforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import jax_ctc
from jax_ctc import Status

ANYTHING = 7
BATCH = {
    "labels": [[1, 7, 1], [1, 7, 1], [7, 7, 0], [1, 2, 9], [7, 1, 0], [1, 2, 7]],
    "logit_lengths": [3, 2, 0, 4, 4, 4],
    "label_lengths": [3, 3, 2, 3, 3, 4],
}
FLAGS = [
    Status.OK,
    Status.INFEASIBLE,  # a frame parts the two, the wildcard's or a blank
    Status.OK,  # anything, and so nothing, in no frame
    Status.LABEL_OUT_OF_RANGE,
    Status.BLANK_IN_LABELS,
    Status.BAD_LENGTH,  # and not one less
]


def arrays(dtype=np.float32):
    """Return a batch with one utterance per status, labels known on the device only."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(FLAGS), 4, 3)).astype(dtype)
    return logits, *(np.array(x, np.int32) for x in BATCH.values())


def test_status_values_and_zero_gradients():
    """Feasibility counts the labels that are left; what is flagged has no slope."""

    @jax.jit
    def read(*batch):
        def total(logits):
            loss, status = jax_ctc.ctc_loss_with_status(
                logits, *batch[1:], wildcard_id=ANYTHING, infeasible="zero"
            )
            return loss.sum(), (loss, status)

        slope, found = jax.grad(total, has_aux=True)(batch[0])
        checked = jax_ctc.check_batch(*batch, wildcard_id=ANYTHING)
        frames = jax_ctc.minimum_frames(batch[1], batch[3], wildcard_id=ANYTHING)
        return slope, found, checked, frames

    batch = arrays()
    slope, (loss, status), checked, frames = read(*batch)
    assert status.tolist() == checked.tolist() == [int(flag) for flag in FLAGS]
    on_host = jax_ctc.minimum_frames(batch[1], batch[3], wildcard_id=ANYTHING)
    assert isinstance(on_host, np.ndarray)
    assert frames.tolist() == on_host.tolist() == [3, 3, 0, 3, 2, 2**31 - 1]
    assert loss[2] == 0
    assert not np.asarray(slope)[1:].any()
    assert np.asarray(slope)[0].any()
    narrow = np.array([[1, 7, 1]], np.int8)
    assert jax_ctc.minimum_frames(narrow, wildcard_id=300).tolist() == [4 - 1]
    assert jax_ctc.minimum_frames(narrow, wildcard_id=ANYTHING).tolist() == [3]


def test_a_loss_without_logits(x64):
    """The layer's loss is that of its logits, and so are all its gradients."""
    rng = np.random.default_rng(5)
    features, kernel = rng.normal(size=(2, 5, 3)), rng.normal(size=(3, 6))
    labels = np.array([[1, ANYTHING, 2, 2], [ANYTHING, 5, ANYTHING, ANYTHING]])
    batch = labels, np.array([5, 4]), np.array([4, 3])

    def whole(features, kernel, log_prob):
        loss = jax_ctc.ctc_loss(
            features @ kernel,
            *batch,
            wildcard_id=ANYTHING,
            wildcard_log_prob=log_prob,
        )
        return loss.sum()

    def linear(features, kernel, log_prob):
        loss = jax_ctc.linear_ctc_loss(
            features,
            kernel,
            None,
            *batch,
            wildcard_id=ANYTHING,
            wildcard_log_prob=log_prob,
        )
        return loss.sum()

    both = jax.jit(
        lambda *x: [
            jax.value_and_grad(f, argnums=(0, 1, 2))(*x) for f in (whole, linear)
        ]
    )
    expected, found = both(features, kernel, -0.7)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected
    )


def test_sharded_classes_and_frames():
    """Where classes and frames lie on several devices, it is the same loss."""
    mesh = jax.make_mesh((2, 2), ("time", "model"), axis_types=(AxisType.Auto,) * 2)
    logits = np.random.default_rng(2).normal(size=(2, 8, 6)).astype(np.float32)
    labels = np.array([[1, ANYTHING, 5], [ANYTHING, 2, 2]], np.int32)

    def total(scores, log_prob, **options):
        loss = jax_ctc.ctc_loss(
            scores, labels, wildcard_id=ANYTHING, wildcard_log_prob=log_prob, **options
        )
        return loss.sum()

    slopes = jax.value_and_grad(total, argnums=(0, 1))
    expected = jax.jit(slopes)(logits, -0.4)
    place = PartitionSpec(None, "time", "model")
    inside = jax.shard_map(
        lambda x, p: slopes(x, p, time_axis="time", vocab_axis="model"),
        mesh=mesh,
        in_specs=(place, PartitionSpec()),
        out_specs=(PartitionSpec(), (place, PartitionSpec())),
    )
    found = jax.jit(inside)(logits, jnp.float32(-0.4))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected
    )


def test_without_a_wildcard_nothing_is_new():
    """Every function lowers to the very program that it was."""
    logits, labels, frames, counts = (jnp.asarray(x) for x in arrays())
    batch = logits, labels, frames, counts

    def summed(loss):
        return lambda *x, **options: loss(*x, **options).sum()

    key = jax.random.key(0)
    functions = (
        jax.grad(summed(jax_ctc.ctc_loss)),
        jax.grad(summed(jax_ctc.ctc_loss_from_log_probs)),
        jax_ctc.ctc_posteriors,
        jax_ctc.ctc_align,
        jax_ctc.alignment_entropy,
        lambda *x, **options: jax_ctc.sample_alignments(
            key, *x, num_samples=2, **options
        ),
    )
    for function in functions:
        lowered = []
        for options in (
            {},
            {"wildcard_id": None, "wildcard_log_prob": -3.0},
            {"wildcard_id": ANYTHING},
        ):
            told = functools.partial(function, **options)
            text = jax.jit(lambda *x, f=told: f(*x)).lower(*batch).as_text()
            lowered.append(text)
        without, asked, wild = lowered
        assert without == asked
        # What is taken out of the labels is sorted to the right.
        assert "stablehlo.sort" in wild
        assert "stablehlo.sort" not in without


def test_options():
    """Designed messages; kernels decline by name."""
    batch = arrays()
    for wrong, error, message in (
        ({"wildcard_id": 0}, ValueError, "another number than `blank_id`"),
        ({"wildcard_id": 1.5}, TypeError, "`wildcard_id` must be an int"),
        ({"wildcard_id": 2**40}, ValueError, "32 bits"),
        ({"wildcard_log_prob": np.nan}, ValueError, "`wildcard_log_prob` must be a"),
        ({"wildcard_log_prob": [0.0, 1.0]}, TypeError, "must be one number"),
        ({"implementation": "cpu"}, NotImplementedError, "classes of their own"),
    ):
        with pytest.raises(error, match=message):
            jax_ctc.ctc_loss(*batch, **({"wildcard_id": ANYTHING} | wrong))
