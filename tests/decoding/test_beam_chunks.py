"""Block by block: the same bits as in one call, and labels as soon as they settle."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from jax_ctc import Status
from tests.cases import more
from tests.decoding import arpa_models

LETTERS = ["", "a", "b", "c", "d"]


def recording(num_frames, seed=0, sure=2.0):
    rng = np.random.default_rng(seed)
    return (sure * rng.normal(size=(num_frames, 5))).astype(np.float32)


def cut(logits, sizes):
    """Yield blocks of these sizes, again and again."""
    start = 0
    for size in itertools.cycle(sizes):
        yield logits[start : start + size]
        start += size
        if start >= len(logits):
            return


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("arpa") / "letters.arpa"
    grams = arpa_models.random_model(LETTERS[1:], 3, seed=0)
    return jax_ctc.NGram.from_arpa(arpa_models.write(path, grams), LETTERS)


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("num_frames", [75, more(64), more(3)])
def test_the_same_bits_in_any_blocks(num_frames):
    """Labels, log_prob, score and times."""
    logits = recording(num_frames)
    options = {"beam_width": 6, "num_hypotheses": 3, "times": True}
    expected = jax_ctc.beam_search_decode(logits, **options)
    for sizes in ([num_frames], [1], [7, 0, 40]):
        found = jax_ctc.beam_search_chunks(cut(logits, sizes), **options)
        same(found, expected)


@pytest.mark.slow
def test_the_same_bits_with_all_that_guides(model):
    """A language model, hotwords, a bonus, a limit, rerank, half precision."""
    logits = jnp.asarray(recording(75), jnp.bfloat16)
    options = {
        "blank_id": 0,
        "beam_width": 6,
        "num_hypotheses": 3,
        "language_model": model,
        "lm_weight": 0.8,
        "label_bonus": 0.5,
        "hotwords": jax_ctc.Hotwords.from_phrases(["abc"], LETTERS, bonus=1.0),
        "max_labels": 20,
        "inputs": "log_probs",
        "rerank": True,
    }
    expected = jax_ctc.beam_search_decode(logits, **options)
    blocks = cut(np.asarray(logits), [50])
    same(jax_ctc.beam_search_chunks(blocks, **options), expected)


def settle(logits, sizes, **options):
    """Return what settled, with the frames read by then, and the result."""
    given, read = [], 0

    def blocks():
        nonlocal read
        for block in cut(logits, sizes):
            read += len(block)
            yield block

    found = jax_ctc.beam_search_chunks(
        blocks(), on_settled=lambda new: given.append((read, new)), **options
    )
    return given, found


@pytest.mark.parametrize(
    ("sure", "is_guided"), [(2.0, True), more(2.0, False), more(6.0, True)]
)
def test_what_has_settled_does_not_change(model, sure, is_guided):
    """All hypotheses begin with it, whatever comes; each label is given out once."""
    guide = {"language_model": model, "lm_weight": 1.0} if is_guided else {}
    logits = recording(300, int(is_guided), sure)
    given, found = settle(logits, [32], beam_width=4, num_hypotheses=4, **guide)
    labels = np.concatenate([new.labels for _, new in given])
    assert len(labels) > 30
    for row, length in zip(found.labels, found.lengths, strict=True):
        assert length >= len(labels)
        np.testing.assert_array_equal(row[: len(labels)], labels)
    # And nothing waits that all agreed on: another block settles some more.
    assert len(given) > 4


def test_a_threshold_lets_sure_labels_settle():
    """In a wide beam, whose last places would go on to hold what is e**-30 as sure."""
    best = np.repeat(np.random.default_rng(0).integers(0, 5, 60), 4)
    logits = 30.0 * np.eye(5, dtype=np.float32)[best]
    given, _ = settle(logits, [32])
    assert sum(len(new.labels) for _, new in given) < 5
    given, found = settle(logits, [32], beam_threshold=20.0)
    settled = np.concatenate([new.labels for _, new in given])
    assert len(settled) >= int(found.lengths[0]) - 8
    np.testing.assert_array_equal(found.labels[0, : len(settled)], settled)
    same(found, jax_ctc.beam_search_decode(logits, beam_threshold=20.0))


def test_times_of_settled_labels():
    """Where frames are sure, those of the alignment, although later frames lacked."""
    best = np.repeat(np.random.default_rng(0).integers(0, 5, 60), 4)
    logits = 9.0 * np.eye(5, dtype=np.float32)[best]
    given, found = settle(logits, [32], times=True, beam_width=1)
    # Of a label that was still going on, the end was yet to come.
    over = np.concatenate([new.end < read for read, new in given])
    assert over.sum() >= int(found.lengths[0]) - 8
    for field in ("start", "end", "confidence"):
        early = np.concatenate([getattr(new, field) for _, new in given])
        late = np.asarray(getattr(found, field))[0, : len(early)]
        np.testing.assert_allclose(early[over], late[over], rtol=1e-6)
        if field == "start":
            np.testing.assert_array_equal(early, late)
    assert all(new.end.max() <= read for read, new in given)
    spans = [s for _, new in given for s in jax_ctc.token_spans(new, 10)[0]]
    assert len(spans) == len(over)
    for span, late, is_over in zip(
        spans, jax_ctc.token_spans(found, 10)[0], over, strict=False
    ):
        assert span == late or not is_over


def test_a_repeat_across_what_was_given_out():
    """The same label again, after a blank, settled apart from the first."""
    best = np.array([1] * 20 + [0] * 20 + [1] * 20 + [0] * 40)
    given, _ = settle(9.0 * np.eye(5, dtype=np.float32)[best], [10], beam_width=1)
    starts = np.concatenate([new.start for _, new in given])
    assert starts.tolist() == [0, 40]


def test_bad_frames_and_nothing_at_all():
    """NaN anywhere: a flag, no hypotheses, nothing settled after it."""
    logits = 3 * recording(100)
    logits[40] = np.nan
    given, found = settle(logits, [32])
    assert int(found.status) == Status.NONFINITE_LOGITS
    assert int(found.lengths[0]) == 0
    assert np.isnan(found.log_prob).all()
    assert all(read <= 64 for read, _ in given)
    empty = jax_ctc.beam_search_chunks([np.zeros((0, 5), np.float32)])
    assert (empty.labels.shape, empty.log_prob.tolist()) == ((1, 0), [0.0])
    silent = jax_ctc.beam_search_chunks([np.zeros((4, 1), np.float32)])
    assert silent.lengths.tolist() == [0]


@pytest.mark.parametrize(
    ("blocks", "options", "error", "message"),
    [
        ([], {}, ValueError, "`blocks` held no block"),
        (np.zeros((3, 5)), {}, ValueError, "use `beam_search_decode`"),
        ([np.zeros((3, 5)), np.zeros((3, 4))], {}, ValueError, "must have the V=5"),
        ([np.zeros((3, 5))], {"blank_id": 5}, ValueError, "`blank_id` must be one"),
        ([np.zeros((3, 5))], {"on_settled": 3}, TypeError, "`on_settled` must be"),
        ([np.zeros((3, 5))], {"num_hypotheses": 99}, ValueError, "at most"),
    ],
)
def test_mistakes(blocks, options, error, message):
    with pytest.raises(error, match=message):
        jax_ctc.beam_search_chunks(blocks, **options)
