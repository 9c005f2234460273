"""inputs="log_probs": nothing is renormalised, and the slope is minus the posterior."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from tests.oracle import log_softmax
from tests.oracle_paths import (
    best_by_enumeration,
    entropy_by_enumeration,
    posteriors_by_enumeration,
    weighted_paths,
)

LABELS = np.array([1, 2, 2], np.int32)
FRAMES = 6
AS_THEY_ARE: dict = {"inputs": "log_probs"}
FORBIDDEN = 3, 1  # a frame, and a class that it may not show


@pytest.fixture
def scores():
    """Return log-probabilities less a prior, plus a penalty, and with a mask."""
    rng = np.random.default_rng(7)
    scores = np.asarray(log_softmax(rng.normal(size=(FRAMES, 3))))
    scores = scores - rng.normal(size=3) + 0.3 * np.arange(FRAMES)[:, None]
    scores[FORBIDDEN] = -np.inf
    return scores


def shown(tokens):
    """Mark the class that each frame shows: [T, V]."""
    return np.eye(3)[np.asarray(tokens)]


def test_every_reading_of_the_lattice(scores, x64):
    """Values and slopes are those of the paths' own scores, listed one by one."""
    key, paths = jax.random.key(0), weighted_paths(scores, LABELS)
    expected = posteriors_by_enumeration(scores, LABELS)
    of_class = np.stack(
        [
            expected[:, ::2].sum(1),
            expected[:, 1],
            expected[:, 3] + expected[:, 5],
        ],
        axis=1,
    )
    path, total = best_by_enumeration(scores, LABELS)

    @jax.jit
    def read(scores):
        posteriors, pull = jax.vjp(
            lambda x: jax_ctc.ctc_posteriors(x, LABELS, **AS_THEY_ARE), scores
        )
        zeros = jax.tree.map(jnp.zeros_like, posteriors)
        one = jnp.ones_like(posteriors.log_likelihood)
        [slope] = pull(jax_ctc.CTCPosteriors(one, label=zeros.label, blank=zeros.blank))

        def with_slope(function):
            def of(x):
                found = function(x)
                return found.log_prob, found

            log_prob, pull, found = jax.vjp(of, scores, has_aux=True)
            return found, pull(jnp.ones_like(log_prob))[0]

        align = functools.partial(jax_ctc.ctc_align, labels=LABELS, **AS_THEY_ARE)
        draw = functools.partial(
            jax_ctc.sample_alignments,
            key,
            labels=LABELS,
            num_samples=1,
            **AS_THEY_ARE,
        )
        greedy = functools.partial(jax_ctc.greedy_decode, **AS_THEY_ARE)
        entropy = jax_ctc.alignment_entropy(scores, LABELS, **AS_THEY_ARE)
        found = {"align": align, "draw": draw, "greedy": greedy}
        records = {name: with_slope(f) for name, f in found.items()}
        return posteriors, slope, entropy, records

    posteriors, slope, entropy, records = read(scores)
    np.testing.assert_allclose(posteriors.label, expected[:, 1::2], atol=1e-12)
    np.testing.assert_allclose(posteriors.blank, expected[:, ::2], atol=1e-12)
    log_z = np.logaddexp.reduce([score for *_, score in paths])
    np.testing.assert_allclose(posteriors.log_likelihood, log_z)
    np.testing.assert_allclose(slope, of_class, atol=1e-12)
    np.testing.assert_allclose(entropy, entropy_by_enumeration(scores, LABELS))

    aligned, slope = records["align"]
    assert aligned.tokens.tolist() == path
    np.testing.assert_allclose(aligned.log_prob, total)
    np.testing.assert_array_equal(slope, shown(path))
    for n, (start, end) in enumerate(zip(aligned.start, aligned.end, strict=True)):
        mean = np.exp(scores[int(start) : int(end), LABELS[n]]).mean()
        np.testing.assert_allclose(aligned.score[n], mean)

    drawn, slope = records["draw"]
    known = {tuple(path): score for path, _, score in paths}
    tokens = np.asarray(drawn.tokens)[0]
    np.testing.assert_allclose(drawn.log_prob[0], known[tuple(tokens.tolist())])
    np.testing.assert_array_equal(slope, shown(tokens))

    decoded, slope = records["greedy"]
    np.testing.assert_allclose(decoded.log_prob, scores.max(1).sum())
    np.testing.assert_array_equal(slope, shown(scores.argmax(1)))


@pytest.mark.slow
def test_blocks_and_beam(scores, x64):
    """A recording in blocks is aligned likewise; the beam scores the same labels."""
    path, total = best_by_enumeration(scores, LABELS)
    blocks = np.split(scores, [2, 4])
    found = jax_ctc.ctc_align_chunks(blocks, LABELS, **AS_THEY_ARE)
    whole = jax_ctc.ctc_align(scores, LABELS, **AS_THEY_ARE)
    assert found.tokens.tolist() == path
    np.testing.assert_allclose(found.log_prob, total)
    np.testing.assert_allclose(found.score, whole.score)
    beam = jax_ctc.beam_search_decode(scores, beam_width=64, **AS_THEY_ARE)
    labels = beam.labels[0][: int(beam.lengths[0])]
    loss = jax_ctc.ctc_loss_from_log_probs(scores, labels)
    np.testing.assert_allclose(beam.log_prob[0], -loss)


def test_bad_frames_and_options():
    """What has no score is no path; another word than the two raises."""
    scores = np.zeros((4, 2, 3), np.float32)
    scores[1, 1], scores[2, 0, 1], scores[3, 0, 2] = -np.inf, np.inf, np.nan
    found = jax_ctc.greedy_decode(scores, **AS_THEY_ARE)
    bad = int(jax_ctc.Status.NONFINITE_LOGITS)
    assert found.status.tolist() == [0, bad, bad, bad]
    assert np.isnan(found.log_prob).tolist() == [False, True, True, True]
    for function in (jax_ctc.ctc_align, jax_ctc.ctc_posteriors):
        with pytest.raises(ValueError, match="`inputs` must be one of"):
            function(scores, np.ones((4, 1), int), inputs="probs")
