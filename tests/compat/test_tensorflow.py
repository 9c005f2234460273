"""What docs/from_tensorflow.md says of TensorFlow, row by row, beside TensorFlow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc

pytestmark = [
    pytest.mark.relaxed,
    pytest.mark.filterwarnings("default"),  # TensorFlow warns of itself
]
LENGTHS = np.array([5, 4], np.int32), np.array([2, 1], np.int32)


@pytest.fixture(scope="module")
def tf():
    """TensorFlow, where it is installed."""
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def logits():
    """[B, T, V] of two utterances."""
    return np.random.default_rng(3).normal(size=(2, 5, 4)).astype(np.float32)


def theirs(tf, logits, labels, logit_lengths, label_lengths, *, sparse=False, blank=0):
    """Loss [B], and the gradient of its sum."""
    scores, rows = tf.constant(logits), tf.constant(labels)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        loss = tf.nn.ctc_loss(
            labels=tf.sparse.from_dense(rows) if sparse else rows,
            logits=scores,
            label_length=None if sparse else tf.constant(label_lengths),
            logit_length=tf.constant(logit_lengths),
            logits_time_major=False,
            blank_index=blank,
        )
    return loss.numpy(), tape.gradient(loss, scores).numpy()


def ours(logits, *arguments, **options):
    """The same, and the status."""

    def total(logits):
        loss, status = jax_ctc.ctc_loss_with_status(logits, *arguments, **options)
        return loss.sum(), (loss, status)

    gradient, (loss, status) = jax.grad(total, has_aux=True)(jnp.asarray(logits))
    return loss, gradient, status


def test_labels_sparse_and_dense(tf, logits):
    """Sparse labels become dense by `tf.sparse.to_dense`; all three agree."""
    labels = np.array([[1, 2], [3, 0]], np.int32)
    dense = tf.sparse.to_dense(tf.sparse.from_dense(labels), -1).numpy()
    assert dense.tolist() == [[1, 2], [3, -1]]
    loss, gradient, _ = ours(logits, dense, *LENGTHS)
    for sparse in (False, True):
        found = theirs(tf, logits, labels, *LENGTHS, sparse=sparse)
        np.testing.assert_allclose(found[0], loss, rtol=1e-5)
        np.testing.assert_allclose(found[1], gradient, atol=1e-5)


def test_the_blank_last(tf, logits):
    """`blank_index=-1` is `blank_id=V - 1`."""
    labels = np.array([[1, 2], [0, 0]], np.int32)
    loss, gradient, _ = ours(logits, labels, *LENGTHS, blank_id=3)
    found = theirs(tf, logits, labels, *LENGTHS, blank=-1)
    np.testing.assert_allclose(found[0], loss, rtol=1e-5)
    np.testing.assert_allclose(found[1], gradient, atol=1e-5)


def test_too_few_frames(tf, logits):
    """A number if dense, +inf if sparse, a gradient either way; here none."""
    labels = np.array([[1, 2], [3, 3]], np.int32)  # 3 3 needs three frames
    lengths = np.array([5, 2], np.int32), np.array([2, 2], np.int32)
    dense = theirs(tf, logits, labels, *lengths)
    sparse = theirs(tf, logits, labels, *lengths, sparse=True)
    assert 100 < dense[0][1] < np.inf
    assert sparse[0][1] == np.inf
    assert dense[1][1].any()
    assert sparse[1][1].any()
    loss, gradient, status = ours(logits, labels, *lengths)
    assert loss[1] == np.inf
    assert not gradient[1].any()
    assert status[1] == jax_ctc.Status.INFEASIBLE


def test_a_label_that_is_no_class(tf, logits):
    """Dense, it has probability 1 and the loss is below 0; sparse, it ends the row."""
    labels = np.array([[1, 2], [9, 0]], np.int32)
    dense = theirs(tf, logits, labels, *LENGTHS)
    assert dense[0][1] < 0
    assert dense[1][1].any()
    after, alone, negative = (
        np.array([[1, 2], row], np.int32) for row in ([3, 9], [3, 0], [3, -1])
    )
    sparse = theirs(tf, logits, after, *LENGTHS, sparse=True)
    expected = theirs(tf, logits, alone, *LENGTHS, sparse=True)
    np.testing.assert_array_equal(sparse[0], expected[0])
    with pytest.raises(tf.errors.InvalidArgumentError, match="nonnegative"):
        theirs(tf, logits, negative, *LENGTHS, sparse=True)
    loss, gradient, status = ours(logits, labels, *LENGTHS)
    assert loss[1] == np.inf
    assert not gradient[1].any()
    assert status[1] == jax_ctc.Status.LABEL_OUT_OF_RANGE


def test_the_blank_among_the_labels(tf, logits):
    """Scored as if it were a label; here flagged."""
    labels = np.array([[1, 2], [3, 0]], np.int32)
    lengths = LENGTHS[0], np.array([2, 2], np.int32)
    assert np.isfinite(theirs(tf, logits, labels, *lengths)[0]).all()
    loss, _, status = ours(logits, labels, *lengths)
    assert loss[1] == np.inf
    assert status[1] == jax_ctc.Status.BLANK_IN_LABELS


def test_decoders_return_sparse_tensors(tf, logits):
    """Theirs are time-major, with the blank last."""
    rows = tf.constant(np.swapaxes(logits, 0, 1))
    for decode in (tf.nn.ctc_greedy_decoder, tf.nn.ctc_beam_search_decoder):
        [found], _ = decode(rows, tf.constant(LENGTHS[0]))
        assert isinstance(found, tf.sparse.SparseTensor)
    [found], _ = tf.nn.ctc_greedy_decoder(rows, tf.constant(LENGTHS[0]), blank_index=0)
    labels = jax_ctc.greedy_decode(logits, LENGTHS[0]).labels
    dense = tf.sparse.to_dense(found, -1).numpy()
    np.testing.assert_array_equal(labels[:, : dense.shape[1]], dense)
