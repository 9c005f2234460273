"""Beam search: exact where the beam holds everything, and honest where it does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from jax_ctc import Status
from jax_ctc._decoding import search
from jax_ctc._decoding.guide import Guide
from jax_ctc._decoding.search import Plan
from jax_ctc._decoding.trace import read_labels
from tests.cases import more
from tests.decoding.enumerated import labellings, read
from tests.oracle import log_softmax


@pytest.mark.parametrize(
    ("blank_id", "inputs"),
    [
        (0, "logits"),
        (1, "log_probs"),
        pytest.param(
            *(2, "logits"), marks=[pytest.mark.optimised, pytest.mark.exhaustive]
        ),
    ],
)
def test_exact_where_the_beam_holds_everything(blank_id, inputs):
    """Every label sequence, its probability within 1e-5 nats, in order, none twice."""
    rng = np.random.default_rng(blank_id)
    logits = 2 * rng.normal(size=(2, 4, 6, 3)).astype(np.float32)
    logits[0, 0, 2:4, 0] = -np.inf  # an impossible class
    logits[0, 1, :, (blank_id + 1) % 3] = -np.inf  # which some labels need
    logits[1, 0] = 0  # ties everywhere
    lengths = np.array([[6, 6, 4, 1], [6, 0, 3, 2]], np.int32)
    found = jax_ctc.beam_search_decode(
        logits,
        lengths,
        blank_id=blank_id,
        beam_width=100,
        num_hypotheses=100,
        inputs=inputs,
    )
    assert found.labels.shape == (2, 4, 100, 6)
    assert not found.status.any()
    for index in np.ndindex(2, 4):
        scores = logits[index][: lengths[index]]
        scores = log_softmax(scores) if inputs == "logits" else scores
        expected = labellings(scores, blank_id)
        rows = read(found, index)
        assert {labels for labels, *_ in rows} == set(expected)
        assert len(rows) == len(expected)
        for labels, log_prob, score in rows:
            assert abs(log_prob - expected[labels]) < 1e-5
            assert abs(score - expected[labels]) < 1e-5
        order = [score for *_, score in rows]
        assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("max_labels", [more(1), 3])
def test_limited_labels(max_labels):
    """No more labels than asked for, and all those that have no more."""
    logits = 2 * np.random.default_rng(5).normal(size=(2, 6, 3)).astype(np.float32)
    found = jax_ctc.beam_search_decode(
        logits, beam_width=40, num_hypotheses=40, max_labels=max_labels
    )
    assert found.labels.shape == (2, 40, max_labels)
    for index in range(2):
        expected = {
            labels: log_prob
            for labels, log_prob in labellings(log_softmax(logits[index])).items()
            if len(labels) <= max_labels
        }
        rows = read(found, index)
        assert {labels for labels, *_ in rows} == set(expected)
        for labels, log_prob, score in rows:
            assert abs(log_prob - expected[labels]) < 1e-5
            assert abs(score - expected[labels]) < 1e-5


def narrow():
    """More labels than the beam holds: B = 3, T = 20, V = 6, W = 5."""
    logits = 2 * np.random.default_rng(1).normal(size=(3, 20, 6)).astype(np.float32)
    return logits, np.array([20, 13, 1], np.int32)


@functools.cache
def narrow_result(num_hypotheses=5, rerank=False):
    logits, lengths = narrow()
    return jax_ctc.beam_search_decode(
        logits,
        lengths,
        blank_id=2,
        beam_width=5,
        num_hypotheses=num_hypotheses,
        rerank=rerank,
        times=True,
    )


def of_each(function, hypotheses):
    """Apply a function of the loss's signature to every hypothesis."""
    logits, lengths = narrow()
    batch, count = hypotheses.lengths.shape
    tiled = np.broadcast_to(logits[:, None], (batch, count, *logits.shape[1:]))
    labels = jnp.maximum(hypotheses.labels, 0)
    frames = np.broadcast_to(lengths[:, None], (batch, count))
    return function(tiled, labels, frames, hypotheses.lengths, blank_id=2)


@pytest.mark.parametrize("num_hypotheses", [more(1), 5])
def test_log_prob_is_that_of_the_loss(num_hypotheses):
    """Over all paths: at least what the beam kept, and to the last bit the loss's.

    Several hypotheses read the same scores, which no kernel does: there it is the loss
    of the plain core, to which a kernel's is equal but for its last bits.
    """
    found = narrow_result(num_hypotheses)
    plain = None if num_hypotheses == 1 else "blocked"
    loss = of_each(functools.partial(jax_ctc.ctc_loss, implementation=plain), found)
    is_one = found.score > -np.inf
    np.testing.assert_array_equal(found.log_prob, np.where(is_one, -loss, -np.inf))
    assert (found.log_prob[:2] > found.score[:2] + 1e-3).any()
    assert (found.log_prob >= found.score - 1e-5).all()
    for utterance in range(3):
        rows = [labels for labels, *_ in read(found, utterance)]
        assert len(set(rows)) == len(rows)


def test_times_are_those_of_the_alignment():
    """Frames of the best path of each hypothesis, not when the beam found a prefix."""
    found = narrow_result()
    aligned = of_each(jax_ctc.ctc_align, found)
    is_one = (np.asarray(found.score) > -np.inf)[..., None]
    np.testing.assert_array_equal(found.start, np.where(is_one, aligned.start, -1))
    np.testing.assert_array_equal(found.end, np.where(is_one, aligned.end, -1))
    np.testing.assert_array_equal(found.confidence, np.where(is_one, aligned.score, 0))
    assert jax_ctc.beam_search_decode(narrow()[0]).start is None


def test_rerank_orders_by_the_truth():
    """All W of them, so that the first does not depend on N."""
    found, first = narrow_result(5, True), narrow_result(1, True)
    is_one = found.score > -np.inf
    np.testing.assert_array_equal(found.score, found.log_prob)
    assert (np.diff(np.where(is_one, found.score, -1e9), axis=1) <= 0).all()
    np.testing.assert_array_equal(first.labels[:, 0], found.labels[:, 0])
    np.testing.assert_allclose(first.log_prob[:, 0], found.log_prob[:, 0], rtol=1e-6)
    np.testing.assert_array_equal(first.start[:, 0], found.start[:, 0])
    plain = narrow_result()
    for utterance in range(3):
        kept = {labels for labels, *_ in read(plain, utterance)}
        assert {labels for labels, *_ in read(found, utterance)} == kept


@pytest.mark.parametrize("max_labels", [None, more(6)])
def test_pruning_loses_nothing(max_labels):
    """Bit for bit what comes of looking at every extension; with a bonus, too."""
    rng = np.random.default_rng(7)
    scale = np.array([0.3, 1, 3, 6], np.float32)[:, None, None]
    scores = scale * rng.normal(size=(4, 40, 30)).astype(np.float32)
    lengths = np.array([40, 33, 40, 17], np.int32)

    @functools.partial(jax.jit, static_argnums=0)
    def beam(slack, label_bonus):
        logits, frames = jnp.asarray(scores), jnp.asarray(lengths)
        plan = Plan(4, 9, normalise=True, max_labels=max_labels, slack=slack)
        guide = Guide((), (), label_bonus)
        start = search.begin(plan, guide, jnp.zeros(4))
        end, steps = search.advance(plan, guide, start, logits, frames)
        place = jnp.broadcast_to(jnp.arange(9)[None], (4, 9))
        labels = read_labels(
            steps, place, end.beam.length, num_classes=30, max_labels=40
        )
        return end.beam.total, end.high, labels

    for bonus in map(np.float32, (0, 1.5)):
        jax.tree.map(np.testing.assert_array_equal, beam(1, bonus), beam(None, bonus))


def test_a_threshold_drops_what_is_far_below_the_best():
    """Of one frame, by hand; afterwards nothing that was dropped is extended."""
    nats = np.array([0.0, -1.5, -3.5, -0.5, -2.5, -9.0, -np.inf], np.float32)
    logits = np.stack([nats, np.where(np.arange(7) == 0, 0.0, -50.0)])
    lengths = np.array([1, 2], np.int32)
    found = jax_ctc.beam_search_decode(
        np.broadcast_to(logits, (2, 2, 7)),
        lengths,
        beam_width=8,
        num_hypotheses=8,
        beam_threshold=3.0,
    )
    for utterance in range(2):  # the second frame is silent
        rows = [labels for labels, *_ in read(found, utterance)]
        assert rows == [(), (3,), (1,), (4,)]


@pytest.mark.exhaustive
def test_a_threshold_that_nothing_is_below_changes_no_bit():
    """Not of log_prob, of score or of the times."""
    logits, lengths = narrow()
    options = {"blank_id": 2, "beam_width": 5, "num_hypotheses": 5, "times": True}
    found = jax_ctc.beam_search_decode(logits, lengths, beam_threshold=1e6, **options)
    jax.tree.map(np.testing.assert_array_equal, found, narrow_result())


def test_one_prefix_is_greedy_where_frames_are_sure():
    """Best classes above 0.71: the labels of `greedy_decode`, repeats included."""
    rng = np.random.default_rng(2)
    best = rng.integers(0, 3, (64, 30))  # repeats and blanks everywhere
    logits = rng.normal(size=(64, 30, 3))
    p = rng.uniform(0.7072, 0.99, (64, 30, 1))
    others = np.exp(logits) * (np.arange(3) != best[..., None])
    probabilities = (1 - p) * others / others.sum(-1, keepdims=True)
    probabilities += p * (np.arange(3) == best[..., None])
    logits = np.log(probabilities).astype(np.float32)
    lengths = rng.integers(0, 31, 64).astype(np.int32)
    found = jax_ctc.beam_search_decode(logits, lengths, beam_width=1)
    greedy = jax_ctc.greedy_decode(logits, lengths)
    np.testing.assert_array_equal(found.labels[:, 0], greedy.labels)
    assert (np.diff(greedy.labels, axis=1)[:, :5] == 0).any()


def test_ties_go_to_who_stays_then_to_the_lower_class():
    """Uniform scores, counted by hand: after one frame all four tie."""
    found = jax_ctc.beam_search_decode(
        jnp.zeros((1, 4)), blank_id=1, beam_width=4, num_hypotheses=4
    )
    assert found.labels[:, 0].tolist() == [-1, 0, 2, 3]


def test_flagged_utterances_have_no_hypotheses():
    """A bad length or frame: nothing found; the neighbours keep every bit."""
    logits = np.random.default_rng(3).normal(size=(6, 9, 4)).astype(np.float32)
    healthy = jax_ctc.beam_search_decode(
        logits, [9, 9, 9, 5, 9, 9], num_hypotheses=3, times=True
    )
    logits[2, 1, 2] = np.nan
    logits[3, 5:] = np.nan  # padding
    logits[4, 0] = -np.inf
    logits[5, 0, 2] = np.inf
    found = jax_ctc.beam_search_decode(
        logits, [-1, 10, 9, 5, 9, 9], num_hypotheses=3, times=True
    )
    nonfinite, length = int(Status.NONFINITE_LOGITS), int(Status.BAD_LENGTH)
    assert found.status.tolist() == [length, length, nonfinite, 0, *2 * [nonfinite]]
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[3], b[3]), found, healthy)
    for utterance, value in enumerate([-np.inf, -np.inf, np.nan, None, np.nan, np.nan]):
        if value is not None:
            assert not found.lengths[utterance].any()
            assert (found.labels[utterance] == -1).all()
            assert (found.start[utterance] == -1).all()
            assert not found.confidence[utterance].any()
            np.testing.assert_array_equal(found.log_prob[utterance], 3 * [value])
            np.testing.assert_array_equal(found.score[utterance], 3 * [value])


@pytest.mark.parametrize(
    ("shape", "log_prob"),
    [
        ((0, 3), 0.0),
        more((4, 1), 0.0),
        ((2, 0, 5, 3), None),
        more((0, 5, 3), None),
    ],
)
def test_small_shapes(shape, log_prob):
    """No frames, one class, no utterances."""
    found = jax_ctc.beam_search_decode(jnp.zeros(shape), num_hypotheses=2, times=True)
    assert found.labels.shape == (*shape[:-2], 2, shape[-2])
    if log_prob is not None:
        assert found.log_prob.tolist() == [log_prob, -np.inf]
        assert found.lengths.tolist() == [0, 0]


@pytest.mark.exhaustive
def test_bfloat16_is_lifted_first():
    """Half precision is what it says, computed in float32."""
    logits = jax.random.normal(jax.random.key(0), (2, 40, 7), jnp.bfloat16)
    half = jax_ctc.beam_search_decode(logits)
    full = jax_ctc.beam_search_decode(logits.astype(jnp.float32))
    assert half.score.dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, half, full)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((jnp.zeros(3),), {}, ValueError, "`logits` must be"),
        ((jnp.zeros((2, 3), jnp.int32),), {}, TypeError, "`logits` must be floating"),
        ((jnp.zeros((2, 3, 4)), 3), {}, ValueError, "`logit_lengths` must have"),
        ((jnp.zeros((2, 3)),), {"blank_id": 3}, ValueError, "`blank_id` must be one"),
        ((jnp.zeros((2, 3)),), {"beam_width": 0}, ValueError, "`beam_width` must be"),
        ((jnp.zeros((2, 3)),), {"max_labels": 0}, ValueError, "`max_labels` must be"),
        (
            (jnp.zeros((2, 3)),),
            {"beam_threshold": 0.0},
            ValueError,
            "`beam_threshold` must be a positive, finite .* To drop none pass None",
        ),
        (
            (jnp.zeros((2, 3)),),
            {"beam_threshold": jnp.nan},
            ValueError,
            "`beam_threshold` must be a positive, finite",
        ),
        (
            (jnp.zeros((2, 3)),),
            {"beam_threshold": "20"},
            TypeError,
            "`beam_threshold` must be a number of nats",
        ),
        (
            (jnp.zeros((2, 3)),),
            {"num_hypotheses": 17},
            ValueError,
            "`num_hypotheses` must be at most `beam_width`",
        ),
        ((jnp.zeros((2, 3)),), {"beam_width": 2**30}, ValueError, "below 2..31"),
        ((jnp.zeros((2, 3)),), {"inputs": "probs"}, ValueError, "`inputs` must be one"),
        ((jnp.zeros((2, 3)),), {"rerank": 1}, TypeError, "`rerank` must be True"),
        (
            (jnp.zeros((2, 3)),),
            {"language_model": "lm.arpa"},
            TypeError,
            "`language_model` must be a model .* got str, which lacks initial",
        ),
        ((jnp.zeros((2, 3)),), {"hotwords": ["a"]}, TypeError, "`hotwords` must be"),
        (
            (jnp.zeros((2, 3)),),
            {"lm_weight": "1"},
            TypeError,
            "`lm_weight` must be one",
        ),
        (
            (jnp.zeros((2, 3)),),
            {"label_bonus": jnp.zeros(2)},
            TypeError,
            "`label_bonus` must be one number",
        ),
    ],
)
def test_static_mistakes(arguments, options, error, message):
    """Each names the argument, and says what to pass."""
    with pytest.raises(error, match=message):
        jax_ctc.beam_search_decode(*arguments, **options)
