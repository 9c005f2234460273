"""Samples: exact frequencies, by statistical tests with fixed seeds."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jax_ctc
from tests.alignments import (
    T,
    assert_flagged_rows_have_no_slope,
    flagged,
    problem,
    slope,
)
from tests.oracle import collapse, log_softmax
from tests.oracle_paths import Trellis, weighted_paths

DRAWS = 20_000
LEAST_P = (
    1e-4  # a right sampler fails this once in ten thousand seeds, and seeds are fixed
)


@pytest.mark.parametrize("labels", [[1, 2], [1, 1], [2]], ids=lambda x: f"labels{x}")
def test_frequencies_are_the_paths_probabilities(labels):
    """Chi-squared over every path of a small lattice."""
    logits = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    padded = np.array(labels + [0] * (2 - len(labels)), np.int32)
    samples = jax_ctc.sample_alignments(
        jax.random.key(2), logits, padded, None, len(labels), num_samples=DRAWS
    )
    paths = weighted_paths(log_softmax(logits), labels)
    scores = np.array([score for *_, score in paths])
    expected = np.exp(scores - np.logaddexp.reduce(scores)) * DRAWS
    drawn = collections.Counter(map(tuple, np.asarray(samples.tokens).tolist()))
    counts = np.array([drawn[path] for path, *_ in paths])
    assert counts.sum() == DRAWS  # nothing but paths of the labels
    is_rare = expected < 5
    if is_rare.any():  # chi-squared wants at least 5 in every class
        expected = np.append(expected[~is_rare], expected[is_rare].sum())
        counts = np.append(counts[~is_rare], counts[is_rare].sum())
    assert stats.chisquare(counts, expected).pvalue > LEAST_P
    # log_prob is that of each path.
    table = {path: score for path, _, score in paths}
    known = [table[tuple(path)] for path in np.asarray(samples.tokens[:50]).tolist()]
    np.testing.assert_allclose(samples.log_prob[:50], known, rtol=1e-5)


def test_a_wrong_sampler_would_be_found():
    """The same test refuses frequencies that are off by 5 %."""
    logits = np.random.default_rng(1).normal(size=(5, 3))
    scores = np.array([s for *_, s in weighted_paths(log_softmax(logits), [1, 2])])
    exact = np.exp(scores - np.logaddexp.reduce(scores))
    wrong = exact * np.where(np.arange(len(exact)) % 2, 1.05, 0.95)
    counts = np.random.default_rng(0).multinomial(DRAWS, wrong / wrong.sum())
    assert stats.chisquare(counts, exact * DRAWS).pvalue < LEAST_P


def test_marginals_of_a_long_utterance():
    """Every frame's states, against the posteriors: many chunks, one z-score each."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(601, 7)).astype(np.float32)
    labels = rng.integers(1, 7, 90).astype(np.int32)
    count = 2000
    samples = jax_ctc.sample_alignments(
        jax.random.key(4), logits, labels, num_samples=count
    )
    posterior = Trellis(log_softmax(logits), labels).posteriors()
    of_class = np.zeros((601, 7))
    states = np.zeros(181, int)
    states[1::2] = labels
    for s, state in enumerate(states):
        of_class[:, state] += posterior[:, s]
    tokens = np.asarray(samples.tokens)
    seen = np.stack([(tokens == v).mean(0) for v in range(7)], axis=1)
    deviation = np.sqrt(of_class * (1 - of_class) / count).clip(min=1 / count)
    assert (np.abs(seen - of_class) / deviation).max() < 6
    mean = samples.log_prob.mean() + jax_ctc.ctc_loss(logits, labels)
    entropy = jax_ctc.alignment_entropy(logits, labels)
    assert abs(mean + entropy) < 6 * samples.log_prob.std() / count**0.5


def test_keys_decide():
    """The same key, the same paths; another key, others; padding past them -1."""
    logits, labels, frames, counts = problem(np.float32)

    def draw(seed):
        return jax_ctc.sample_alignments(
            jax.random.key(seed), logits, labels, frames, counts, num_samples=3
        )

    first = draw(0)
    jax.tree.map(np.testing.assert_array_equal, first, draw(0))
    assert (first.tokens != draw(1).tokens).any()
    assert first.tokens.shape == (4, 3, T)
    for b in range(4):
        for row in first.tokens[b].tolist():
            assert collapse(row[: frames[b]]) == tuple(labels[b, : counts[b]].tolist())
            assert row[frames[b] :] == [-1] * (T - frames[b])


def test_old_style_keys():
    """jax.random.PRNGKey still works."""
    logits, *rest = problem(np.float32)
    key = jax.random.PRNGKey(0)
    jax_ctc.sample_alignments(key, logits, *rest, num_samples=2)


def test_log_prob_has_the_derivative_of_the_path(x64):
    """For score-function estimators; against finite differences."""
    logits, *rest = problem()
    tangent = np.random.default_rng(5).normal(size=logits.shape)

    @jax.jit
    def total(x):
        key = jax.random.key(1)
        return jax_ctc.sample_alignments(key, x, *rest, num_samples=3).log_prob.sum()

    gradient = np.asarray(jax.grad(total)(logits))
    np.testing.assert_allclose(
        np.vdot(gradient, tangent), slope(total, logits, tangent), atol=1e-7
    )
    assert not gradient[np.arange(T) >= rest[1][:, None]].any()


def test_score_function_gradient_is_that_of_the_loss():
    """E[d log p(path)] over samples = d log p(labels): Fisher's identity."""
    logits, labels = problem(np.float32)[0][0, :6], np.array([1, 2], np.int32)

    def mean_log_prob(x):
        return jax_ctc.sample_alignments(
            jax.random.key(3), x, labels, num_samples=DRAWS
        ).log_prob.mean()

    estimate = jax.grad(mean_log_prob)(logits)
    exact = -jax.grad(jax_ctc.ctc_loss)(logits, labels)
    assert np.abs(estimate - exact).max() < 6 * 0.5 / DRAWS**0.5


def test_flagged():
    """-1 and -inf where flagged, NaN where logits are."""
    logits, *rest = flagged()
    result = jax_ctc.sample_alignments(jax.random.key(0), logits, *rest, num_samples=2)
    for b in range(6):
        assert (result.tokens[b] == -1).all()
        value = np.nan if b == 4 else -np.inf
        np.testing.assert_array_equal(result.log_prob[b], [value] * 2)
    assert all(collapse(row) == (1, 2, 3) for row in result.tokens[6].tolist())

    def log_prob(*arguments):
        key = jax.random.key(0)
        return jax_ctc.sample_alignments(key, *arguments, num_samples=2).log_prob

    assert_flagged_rows_have_no_slope(log_prob)


@pytest.mark.parametrize(
    ("key", "count", "error", "message"),
    [
        (0, 2, TypeError, "`key` must be a JAX random key; got 0"),
        (np.zeros(2), 2, TypeError, "`key` must be a JAX random key; got float64"),
        ("split", 2, ValueError, r"keys of shape \(3,\)"),
        ("one", 0, ValueError, "`num_samples` must be at least 1; got 0"),
        ("one", 1.5, TypeError, "`num_samples` must be an int; got 1.5"),
        ("one", True, TypeError, "`num_samples` must be an int"),
    ],
)
def test_mistakes(key, count, error, message):
    """Designed messages."""
    keys = {"one": jax.random.key(0), "split": jax.random.split(jax.random.key(0), 3)}
    key = keys.get(key, key) if isinstance(key, str) else key
    with pytest.raises(error, match=message):
        jax_ctc.sample_alignments(key, jnp.zeros((4, 3)), [1], num_samples=count)


def test_num_samples_is_static():
    """The size of an array cannot be traced."""
    with pytest.raises(TypeError, match="`num_samples` must be a Python int"):
        jax.jit(
            lambda n: jax_ctc.sample_alignments(
                jax.random.key(0), jnp.zeros((4, 3)), [1], num_samples=n
            )
        )(2)
