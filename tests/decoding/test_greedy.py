"""Greedy decoding, against a plain Python reading of the best path."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc


def by_hand(logits, length, blank_id):
    """Merge repeats, drop blanks; add up log-probabilities in float64."""
    logits = logits[:length].astype(np.float64)
    path = logits.argmax(-1)
    labels = [int(k) for k, _ in itertools.groupby(path) if k != blank_id]
    log_norm = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1))
    return labels, -log_norm.sum()


@pytest.mark.parametrize("blank_id", [0, 2, 3])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_against_plain_python(blank_id, dtype):
    """Random logits over four classes repeat and blank often."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 8, 20, 4)), dtype)
    lengths = rng.integers(0, 21, (2, 8)).astype(np.int32)
    result = jax_ctc.greedy_decode(logits, lengths, blank_id=blank_id)
    assert result.labels.shape == (2, 8, 20)
    assert result.log_prob.dtype == jnp.float32
    for index in np.ndindex(2, 8):
        one = np.asarray(logits[index].astype(jnp.float32))
        labels, log_prob = by_hand(one, lengths[index], blank_id)
        assert int(result.lengths[index]) == len(labels)
        row = result.labels[index].tolist()
        assert row == labels + [-1] * (20 - len(labels))
        np.testing.assert_allclose(result.log_prob[index], log_prob, rtol=1e-5)


def test_best_path_is_at_most_the_sequence():
    """log_prob is of one path, and -loss sums over all paths of the same labels."""
    logits = jax.random.normal(jax.random.key(1), (5, 9, 4))
    result = jax_ctc.greedy_decode(logits)
    loss = jax_ctc.ctc_loss(logits, result.labels, None, result.lengths)
    assert (result.log_prob <= -loss + 1e-5).all()


def test_ties_go_to_the_first_class():
    """Deterministic, and documented."""
    assert jax_ctc.greedy_decode(jnp.zeros((3, 4))).lengths == 0
    assert jax_ctc.greedy_decode(jnp.zeros((3, 4)), blank_id=3).labels.tolist() == [
        0,
        -1,
        -1,
    ]


def test_unreadable_utterances():
    """A bad length or a bad frame reads as nothing, not as something."""
    logits = np.zeros((6, 4, 3), np.float32)
    logits[..., 1] = 1
    logits[2, 1, 2] = np.nan
    logits[3, 3, 0] = np.nan  # padded
    logits[4, 0] = -np.inf
    logits[5, 0, 2] = np.inf
    result = jax_ctc.greedy_decode(logits, [-1, 5, 4, 3, 4, 4])
    assert result.lengths.tolist() == [0, 0, 0, 1, 0, 0]
    assert result.labels[:, 0].tolist() == [-1, -1, -1, 1, -1, -1]
    assert (result.labels[:, 1:] == -1).all()
    expected = [-np.inf, -np.inf, np.nan, result.log_prob[3], np.nan, np.nan]
    np.testing.assert_array_equal(result.log_prob, np.array(expected, np.float32))
    assert np.isfinite(result.log_prob[3])


def test_log_prob_has_the_derivative_of_the_path(x64):
    """Against finite differences; zero past the length."""
    rng = np.random.default_rng(5)
    logits, tangent = rng.normal(size=(2, 2, 6, 4))
    lengths = np.array([6, 4], np.int32)

    def total(x):
        return jax_ctc.greedy_decode(x, lengths).log_prob.sum()

    gradient = jax.grad(total)(logits)
    step = 1e-6
    slope = (total(logits + step * tangent) - total(logits - step * tangent)) / step / 2
    np.testing.assert_allclose(np.vdot(gradient, tangent), slope, atol=1e-8)
    np.testing.assert_array_equal(gradient[1, 4:], 0)


def test_shapes():
    """No batch, no frames, one class; vmap is the batch."""
    assert jax_ctc.greedy_decode(jnp.zeros((0, 3))).labels.shape == (0,)
    assert jax_ctc.greedy_decode(jnp.zeros((0, 4, 3))).labels.shape == (0, 4)
    assert jax_ctc.greedy_decode(jnp.zeros((4, 1))).lengths == 0
    logits = jax.random.normal(jax.random.key(2), (3, 7, 4))
    lengths = jnp.array([7, 0, 3])
    mapped = jax.vmap(jax_ctc.greedy_decode)(logits, lengths)
    jax.tree.map(
        np.testing.assert_array_equal, mapped, jax_ctc.greedy_decode(logits, lengths)
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((jnp.zeros(3),), ValueError, "`logits` must be"),
        ((jnp.zeros((2, 3), jnp.int32),), TypeError, "`logits` must be floating"),
        ((jnp.zeros((2, 3, 4)), 3), ValueError, "`logit_lengths` must have"),
    ],
)
def test_static_mistakes(arguments, error, message):
    """The same messages as the loss."""
    with pytest.raises(error, match=message):
        jax_ctc.greedy_decode(*arguments)


@pytest.mark.parametrize(
    ("vocabulary", "separator", "texts"),
    [
        ("-ab", None, ["aab", "", "ba"]),
        (["-", "a", "##b"], "##", ["a ab", "", "b a"]),
        ({1: "▁he", 2: "y"}, "▁", ["he hey", "", "y he"]),
    ],
)
def test_labels_as_text(vocabulary, separator, texts):
    """Of every utterance one string; of a beam search, of every hypothesis."""
    labels = np.array([[1, 1, 2], [-1, -1, -1], [2, 1, -1]], np.int32)
    lengths = np.array([3, 0, 2], np.int32)
    none = dict.fromkeys(("log_prob", "start", "end", "confidence", "status"))
    greedy = jax_ctc.Hypotheses(labels=labels, lengths=lengths, **none)
    assert greedy.texts(vocabulary, separator=separator) == texts
    beams = jax_ctc.BeamHypotheses(
        labels=labels[:, None], lengths=lengths[:, None], score=None, **none
    )
    assert beams.texts(vocabulary, separator=separator) == texts


def test_labels_without_a_text():
    found = jax_ctc.greedy_decode(jnp.eye(3, dtype=jnp.float32))
    with pytest.raises(ValueError, match="class 2 is not among its 2 entries"):
        found.texts("-a")
    with pytest.raises(TypeError, match="It is inside out"):
        found.texts({"a": 1, "b": 2})
    with pytest.raises(ValueError, match="`separator` must be the text that parts"):
        found.texts("-ab", separator="")
    with pytest.raises(TypeError, match="`texts` makes strings on the host"):
        jax.jit(lambda x: jax_ctc.greedy_decode(x).texts("-ab"))(jnp.eye(3))
