"""What must hold for any input: drawn values, fixed shapes."""

import functools
import itertools

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jax_ctc
from tests import oracle

T, V, U = 5, 3, 4
MANY = settings(max_examples=60, deadline=None, derandomize=True)

scores = functools.partial(
    st.floats, allow_nan=False, allow_infinity=False, allow_subnormal=False
)
LOGITS = hnp.arrays(np.float32, (T, V), elements=scores(-30, 30, width=32))
LABELS = hnp.arrays(np.int32, (U,), elements=st.integers(0, V - 1))


@functools.partial(jax.jit, static_argnames=("implementation", "blank_id"))
def run(logits, labels, logit_length, label_length, implementation, blank_id=0):
    """Loss, status and gradient of one utterance."""

    def loss(logits):
        return jax_ctc.ctc_loss_with_status(
            logits,
            labels,
            logit_length,
            label_length,
            blank_id=blank_id,
            implementation=implementation,
        )

    (value, status), gradient = jax.value_and_grad(loss, has_aux=True)(logits)
    return value, status, gradient


@pytest.mark.usefixtures("both_ends")
@pytest.mark.parametrize("implementation", ["blocked", "both_ends", "scan"])
@MANY
@given(LOGITS, LABELS, st.integers(-1, T + 1), st.integers(-1, U + 1))
def test_any_utterance(implementation, logits, labels, frames, count):
    """Flagged exactly when enumeration finds a reason, and exact otherwise."""
    value, status, gradient = run(logits, labels, frames, count, implementation)
    assert not np.isnan(gradient).any()
    if not (0 <= frames <= T and 0 <= count <= U):
        assert status & jax_ctc.Status.BAD_LENGTH
        assert not status & jax_ctc.Status.INFEASIBLE
        assert value == np.inf
    elif 0 in labels[:count]:
        assert status & jax_ctc.Status.BLANK_IN_LABELS
        assert value == np.inf
    else:
        log_probs = oracle.log_softmax(logits[:frames]) if frames else logits[:0]
        expected = oracle.loss_by_enumeration(log_probs, labels[:count])
        assert status == (jax_ctc.Status.INFEASIBLE if expected == np.inf else 0)
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
        _, exact = oracle.loss_and_gradient(logits[:frames], labels[:count])
        np.testing.assert_allclose(gradient[:frames], exact, atol=2e-5)
        np.testing.assert_array_equal(gradient[frames:], 0)
    if status:
        np.testing.assert_array_equal(gradient, 0)


def every_sequence(num_frames, num_classes, blank_id):
    """List every label sequence that T frames could hold, padded, with its length."""
    classes = [k for k in range(num_classes) if k != blank_id]
    sequences = [
        sequence
        for length in range(num_frames + 1)
        for sequence in itertools.product(classes, repeat=length)
    ]
    padded = np.full((len(sequences), num_frames), -1, np.int32)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded, np.array([len(s) for s in sequences], np.int32)


@pytest.mark.parametrize("implementation", ["blocked", "scan"])
@pytest.mark.parametrize("blank_id", [0, 1])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(LOGITS)
def test_all_label_sequences_sum_to_one(implementation, blank_id, logits):
    """The sum of exp(-loss) over all label sequences is 1: CTC is a distribution.

    It is the test that a loss without a proper forward pass fails.
    """
    labels, lengths = every_sequence(T, V, blank_id)
    loss = jax_ctc.ctc_loss(
        jnp.broadcast_to(logits, (len(labels), T, V)),
        labels,
        None,
        lengths,
        blank_id=blank_id,
        implementation=implementation,
    )
    np.testing.assert_allclose(
        np.exp(-np.asarray(loss, np.float64)).sum(), 1, rtol=1e-5
    )


@pytest.mark.parametrize("size", [1e6, float(np.finfo(np.float32).max)])
@MANY
@given(st.data())
def test_ranges_of_wild_logits(size, data):
    """Loss at least 0; rows of the gradient sum to 0 within [-1, 1]; never NaN.

    Beyond 7.4e8 nats the loss is infinite, and both implementations say so.
    """
    wild = hnp.arrays(np.float32, (T, V), elements=scores(-size, size, width=32))
    labels = np.where(data.draw(LABELS) == 0, 1, 2)[:2].astype(np.int32)
    logits = data.draw(wild)
    value, status, gradient = run(logits, labels, T, 2, "blocked")
    _, exact_status, _ = run(logits, labels, T, 2, "scan")
    assert status == exact_status
    assert status in ((0,) if size == 1e6 else (0, jax_ctc.Status.ZERO_PROBABILITY))
    assert value >= 0
    assert not np.signbit(value)
    assert np.isfinite(value) == (status == 0)
    assert np.abs(gradient).max() <= 1 + 1e-6
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-6)


@MANY
@given(LOGITS, hnp.arrays(np.float32, (T, 1), elements=scores(-100, 100, width=32)))
def test_log_probs_shift_out(logits, shift):
    """Scores taken as they are: a shift of a frame comes out of the loss whole."""
    labels = np.array([1, 2], np.int32)
    base = jax_ctc.ctc_loss_from_log_probs(logits, labels)
    moved = jax_ctc.ctc_loss_from_log_probs(logits + shift, labels)
    expected = (
        float(base)
        - np.sum((logits + shift).astype(np.float64) - logits, axis=0).mean()
    )
    size = np.abs(logits).sum() + np.abs(shift).sum()
    np.testing.assert_allclose(moved, expected, atol=1e-5 + 1e-6 * size)


@MANY
@given(LABELS, st.integers(0, U))
def test_minimum_frames_counts_the_shortest_path(labels, count):
    """Against all paths: feasible with that many frames, not with one fewer."""
    labels = np.where(labels == 0, 1, labels)
    frames = int(jax_ctc.minimum_frames(labels, np.int32(count)))
    assert oracle.paths_of(labels[:count], frames, V)
    assert frames == 0 or not oracle.paths_of(labels[:count], frames - 1, V)
