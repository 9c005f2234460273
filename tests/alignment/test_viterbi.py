"""Forced alignment: the true maximum, its spans, and what it says of bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from tests.alignments import (
    B,
    T,
    U,
    assert_flagged_rows_have_no_slope,
    flagged,
    problem,
    slope,
)
from tests.oracle import collapse, log_softmax
from tests.oracle_paths import Trellis, best_by_enumeration


def by_hand(trellis, log_probs):
    """Return tokens, start, end and score of the oracle's best path."""
    states, _ = trellis.best()
    tokens = trellis.states[states]
    count = len(trellis.states) // 2
    frames = [np.flatnonzero(states == 2 * n + 1) for n in range(count)]
    probability = np.exp(log_probs[np.arange(len(tokens)), tokens])
    return (
        tokens,
        [f[0] for f in frames],
        [f[-1] + 1 for f in frames],
        [probability[f].mean() for f in frames],
    )


@pytest.mark.parametrize(
    "labels", [[1, 2], [1, 1], [2], [], [2, 2, 1]], ids=lambda x: f"labels{x}"
)
def test_against_enumeration(labels, x64):
    """No other of all paths is more probable."""
    logits = np.random.default_rng(7 + len(labels)).normal(size=(5, 3))
    padded = np.array(labels + [0] * (3 - len(labels)), np.int32)
    result = jax_ctc.ctc_align(logits, padded, None, len(labels))
    path, score = best_by_enumeration(log_softmax(logits), labels)
    assert result.tokens.tolist() == path
    np.testing.assert_allclose(result.log_prob, score, rtol=1e-12)


def test_every_field_of_a_ragged_batch():
    """Against the float64 trellis of each utterance."""
    logits, labels, frames, counts = problem(np.float32)
    result = jax_ctc.ctc_align(logits, labels, frames, counts)
    for b in range(B):
        log_probs = log_softmax(logits[b, : frames[b]])
        trellis = Trellis(log_probs, labels[b, : counts[b]])
        tokens, start, end, score = by_hand(trellis, log_probs)
        assert result.tokens[b].tolist() == [*tokens] + [-1] * (T - frames[b])
        padding = U - counts[b]
        assert result.start[b].tolist() == start + [-1] * padding
        assert result.end[b].tolist() == end + [-1] * padding
        np.testing.assert_allclose(result.score[b], score + [0] * padding, rtol=1e-5)
        np.testing.assert_allclose(result.log_prob[b], trellis.best()[1], rtol=1e-6)
        path = result.tokens[b, : frames[b]].tolist()
        assert collapse(path) == tuple(labels[b, : counts[b]].tolist())


def test_near_ties_are_nearly_as_good():
    """The same logits in every frame: whichever path is taken, none is better."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        logits = np.tile(rng.normal(size=4) + [3, 0, 0, 0], (30, 1)).astype(np.float32)
        result = jax_ctc.ctc_align(logits, np.array([1, 2]))
        score = Trellis(log_softmax(logits), [1, 2]).best()[1]
        np.testing.assert_allclose(result.log_prob, score, rtol=1e-6)
        assert collapse(result.tokens.tolist()) == (1, 2)


@pytest.mark.parametrize("blank_id", [0, 3])
def test_ties_are_read_as_early_as_possible(blank_id):
    """All paths equal: labels come one after the other from the first frame."""
    labels = np.array([1, 2, 2], np.int32)
    result = jax_ctc.ctc_align(jnp.zeros((7, 4)), labels, blank_id=blank_id)
    b = blank_id
    assert result.tokens.tolist() == [1, 2, b, 2, b, b, b]
    assert best_by_enumeration(log_softmax(np.zeros((7, 4))), labels, b)[0] == [
        *(1, 2, b, 2, b, b, b)
    ]
    np.testing.assert_allclose(result.score, 0.25, rtol=1e-6)


def test_padding_changes_nothing():
    """Neither wider arrays nor garbage in them."""
    logits, labels, frames, counts = problem(np.float32)
    result = jax_ctc.ctc_align(logits, labels, frames, counts)
    wide = jax_ctc.ctc_align(
        np.pad(logits, ((0, 0), (0, 9), (0, 0)), constant_values=np.nan),
        np.pad(labels, ((0, 0), (0, 2)), constant_values=-7),
        frames,
        counts,
    )
    np.testing.assert_array_equal(wide.tokens[:, :T], result.tokens)
    assert (wide.tokens[:, T:] == -1).all()
    np.testing.assert_array_equal(wide.start[:, :U], result.start)
    np.testing.assert_array_equal(wide.end[:, :U], result.end)
    np.testing.assert_allclose(wide.score[:, :U], result.score, rtol=1e-6)
    np.testing.assert_allclose(wide.log_prob, result.log_prob, rtol=1e-6)


def test_best_path_is_at_most_the_sum():
    """log_prob <= log p(labels), and every span has a frame."""
    logits, labels, frames, counts = problem(np.float32)
    result = jax_ctc.ctc_align(logits, labels, frames, counts)
    loss = jax_ctc.ctc_loss(logits, labels, frames, counts)
    assert (result.log_prob <= -loss + 1e-5).all()
    is_label = np.arange(U) < counts[:, None]
    assert (np.asarray(result.end - result.start)[is_label] >= 1).all()


def test_derivatives_along_the_path(x64):
    """log_prob and score, against finite differences; 0 on padding."""
    logits, *rest = problem()
    tangent = np.random.default_rng(5).normal(size=logits.shape)
    weights = np.random.default_rng(6).normal(size=(B, U))

    @jax.jit
    def total(x):
        result = jax_ctc.ctc_align(x, *rest)
        return jnp.vdot(result.score, weights) + 0.1 * result.log_prob.sum()

    gradient = np.asarray(jax.grad(total)(logits))
    expected = slope(total, logits, tangent)
    np.testing.assert_allclose(np.vdot(gradient, tangent), expected, atol=1e-8)
    np.testing.assert_allclose(
        jax.jvp(total, (logits,), (tangent,))[1], expected, atol=1e-8
    )
    assert not gradient[np.arange(T) >= rest[1][:, None]].any()


def test_flagged():
    """-1, -inf and 0 where flagged; NaN in the floats where logits are."""
    logits, *rest = flagged()
    result = jax_ctc.ctc_align(logits, *rest)
    for b in range(6):
        is_nan = b == 4
        assert (result.tokens[b] == -1).all()
        assert (result.start[b] == -1).all()
        assert (result.end[b] == -1).all()
        value = np.nan if is_nan else -np.inf
        np.testing.assert_array_equal(result.log_prob[b], value)
        np.testing.assert_array_equal(result.score[b], [np.nan if is_nan else 0] * 3)
    assert collapse(result.tokens[6].tolist()) == (1, 2, 3)

    def total(x):
        result = jax_ctc.ctc_align(x, *rest)
        return jnp.sum(jnp.where(jnp.isfinite(result.log_prob), result.log_prob, 0))

    gradient = np.asarray(jax.grad(total)(logits))
    assert not gradient[:6].any()
    assert gradient[6].any()


@pytest.mark.parametrize("field", ["log_prob", "score"])
def test_flagged_rows_have_no_slope(field):
    """The derivative is exactly 0, whatever is done with the value."""
    assert_flagged_rows_have_no_slope(
        lambda *arguments: getattr(jax_ctc.ctc_align(*arguments), field)
    )


def test_masked_classes_are_legal(x64):
    """-inf on a class that the path need not show; no NaN is made."""
    logits, *rest = problem()
    logits[:, :, 0] = np.where(np.arange(T) % 2 == 0, -np.inf, logits[:, :, 0])
    with jax.debug_nans(True):
        result = jax_ctc.ctc_align(logits, *rest)
        gradient = jax.grad(lambda x: jax_ctc.ctc_align(x, *rest).log_prob[0])(logits)
    shown = np.asarray(result.tokens[0])
    assert (shown[::2] != 0).all()
    assert np.isfinite(gradient).all()


def test_a_long_confident_and_wrong_model_is_aligned_exactly():
    """float32 finds the best of paths that differ by 1e-3 of 150 000 nats."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 8)).astype(np.float32)
    logits[:, 7] += 50
    labels = rng.integers(1, 7, 40).astype(np.int32)
    result = jax_ctc.ctc_align(logits, labels)
    states, score = Trellis(log_softmax(logits), labels).best()
    np.testing.assert_allclose(result.log_prob, score, rtol=1e-6)
    tokens = Trellis(log_softmax(logits), labels).states[states]
    np.testing.assert_array_equal(result.tokens, tokens)


def test_empty_shapes():
    """No frames, no labels, no utterances, one class."""
    none = jax_ctc.ctc_align(jnp.zeros((0, 3)), np.zeros(0, np.int32))
    assert (none.tokens.shape, none.start.shape, float(none.log_prob)) == (
        (0,),
        (0,),
        0,
    )
    short = jax_ctc.ctc_align(jnp.zeros((0, 3)), np.array([1]))
    assert (short.start.tolist(), float(short.log_prob)) == ([-1], -np.inf)
    batch = jax_ctc.ctc_align(jnp.zeros((0, 4, 3)), np.zeros((0, 2), np.int32))
    assert (batch.tokens.shape, batch.score.shape) == ((0, 4), (0, 2))
    blank = jax_ctc.ctc_align(jnp.zeros((4, 1)), np.zeros(0, np.int32))
    assert blank.tokens.tolist() == [0] * 4


def temporaries(frames, classes, labels, dtype=jnp.float32):
    """Return the bytes that the compiled program holds beside its arguments."""
    arguments = (
        jax.ShapeDtypeStruct((frames, classes), dtype),
        jax.ShapeDtypeStruct((labels,), jnp.int32),
    )
    compiled = jax.jit(jax_ctc.ctc_align).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("classes", [32, 5_000])
def test_memory_of_a_long_recording(classes):
    """60 000 frames and 3 000 labels: far below 1 GB, and no copy of the logits."""
    assert temporaries(60_000, classes, 3_000) < 64 * 2**20


def test_half_precision_is_never_widened_as_a_whole():
    """bfloat16 logits are copied as bits, as in the loss; never as float32."""
    num_bytes = 8_000 * 4_000 * 2
    assert temporaries(8_000, 4_000, 300, jnp.bfloat16) < 1.5 * num_bytes
