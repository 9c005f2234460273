"""A data set's report: every utterance's numbers, in order, whatever its batch."""

import functools
import itertools
import json
import warnings

import jax
import numpy as np
import pytest

import jax_ctc
from jax_ctc._report import collect
from jax_ctc._report.heard import stretches
from jax_ctc._report.measure import _numbers

ANYTHING = 9


@pytest.fixture
def no_doctor(monkeypatch):
    """Let the doctor find nothing, at once; return what it was shown."""
    seen = []

    def diagnose(*arrays, **options):
        seen.append(arrays)
        return jax_ctc.Report((), (), {})

    monkeypatch.setattr(collect, "diagnose", diagnose)
    return seen


def fewest(transcript, heard):
    """Return the least number of labels to take out of either, by the definition."""

    @functools.cache
    def cost(i, j):
        if i == len(transcript):
            return len(heard) - j
        if transcript[i] == ANYTHING:
            return min(cost(i + 1, k) for k in range(j, len(heard) + 1))
        ways = [1 + cost(i + 1, j)]
        if j < len(heard):
            ways.append(1 + cost(i, j + 1))
            if transcript[i] == heard[j]:
                ways.append(cost(i + 1, j + 1))
        return min(ways)

    return cost(0, 0)


def test_what_is_heard_beside_the_transcript():
    """Both can be read off, a hole is always there, and nothing shorter is possible."""
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(300):
        transcript = rng.choice([1, 2, 3, ANYTHING], rng.integers(0, 7)).tolist()
        heard = rng.choice([1, 2, 3], rng.integers(0, 7)).tolist()
        found = stretches(transcript, heard, ANYTHING)

        def read(*wanted, found=found):
            return list(itertools.chain(*(x for kind, x in found if kind in wanted)))

        assert read("agreed", "beyond", "hole") == heard
        runs = [kind for kind, _ in found]
        assert all(a != b for a, b in itertools.pairwise(runs))  # two holes are one
        merged = [key for key, _ in itertools.groupby(transcript)]
        told = [x if kind != "hole" else [ANYTHING] for kind, x in found]
        told = [x for (kind, _), x in zip(found, told, strict=True) if kind != "beyond"]
        told = list(itertools.chain(*told))
        assert [key for key, _ in itertools.groupby(told)] == merged
        assert len(read("beyond", "unheard")) == fewest(tuple(transcript), heard)
        kinds |= set(runs)
    assert kinds == {"agreed", "unheard", "beyond", "hole"}


def made(rng, count, frames, width, **more):
    """Return a batch of random scores."""
    return {
        "logits": 3 * rng.normal(size=(count, frames, 4)).astype(np.float32),
        "labels": rng.integers(1, 4, (count, width)).astype(np.int32),
        **more,
    }


def test_utterances_of_all_shapes(no_doctor):
    """Each has the numbers that it has alone; one program serves all of them."""
    rng = np.random.default_rng(1)
    batches = [
        made(rng, 3, 6, 3, logit_lengths=[6, 7, 5], label_lengths=[2, 2, 0]),
        made(rng, 1, 8, 2, names=["<b>\x1b"]),
        made(rng, 2, 5, 4, logit_lengths=[5, 2]),
    ]
    batches[0]["logits"][0, 2, 1] = np.nan
    _numbers.clear_cache()
    ranking = jax_ctc.rank_utterances(batches, vocabulary="-abc")
    assert _numbers._cache_size() == 1
    assert (ranking.num_batches, ranking.num_examined) == (3, 3)
    assert [shown[0].shape for shown in no_doctor] == [(3, 6, 4), (1, 8, 4), (2, 5, 4)]

    rows = {(row.batch, row.index): row for row in ranking.utterances}
    order = [(row.batch, row.index) for row in ranking.utterances]
    assert order[:3] == [(0, 0), (0, 1), (2, 1)]  # what cannot be scored, as it came
    losses = [row.loss_per_label for row in ranking.utterances[3:]]
    assert losses == sorted(losses, reverse=True)
    assert rows[0, 1].status == ("BAD_LENGTH",)  # 7 of 6 frames, with room for 8
    assert rows[2, 1].status == ("INFEASIBLE",)
    assert rows[0, 0].status == ("NONFINITE_LOGITS",)
    assert rows[0, 0].score is rows[0, 2].score is None
    assert (rows[0, 2].labels, rows[0, 2].num_unheard) == ("", 0)
    assert [rows[0, 1].name, rows[1, 0].name] == ["0:1", "<b>\x1b"]

    # All side by side in one batch, as if they had never come in three.
    logits, labels = np.zeros((6, 8, 4), np.float32), np.zeros((6, 4), np.int32)
    frames, counts = np.array([6, -1, 5, 8, 5, 2]), np.array([2, 2, 0, 2, 4, 4])
    for place, (number, index) in enumerate(sorted(rows)):
        for all_of_them, key in ((logits, "logits"), (labels, "labels")):
            one = batches[number][key][index]
            all_of_them[place, : len(one)] = one
    batch = logits, labels, frames, counts
    loss, best = np.asarray(jax_ctc.ctc_loss(*batch)), jax_ctc.ctc_align(*batch)
    heard = jax_ctc.greedy_decode(logits, frames).texts("-abc")
    for place, key in enumerate(sorted(rows)):
        row, count = rows[key], counts[place]
        assert row.heard == heard[place]
        assert len(row.labels) == count
        np.testing.assert_allclose(row.loss, loss[place], rtol=1e-5)
        np.testing.assert_allclose(
            row.loss_per_label, loss[place] / max(1, count), 1e-5
        )
        if row.score is not None:
            mean = np.mean(best.score[place, :count])
            np.testing.assert_allclose(row.score, mean, rtol=1e-5)
    saved = json.loads(ranking.to_json())
    assert [row["name"] for row in saved["utterances"]] == [
        row.name for row in ranking.utterances
    ]
    assert saved["utterances"][1]["loss"] == "inf"
    assert "<b>\\x1b" in str(ranking)


def test_transcripts_with_holes_and_scores_as_they_are(no_doctor):
    """What is heard in a hole is neither beyond nor unheard, and costs as it does."""
    path = np.array([1, 0, 2, 0, 3, 3, 0, 1])
    log_probs = np.log(0.01 + 0.96 * np.eye(4, dtype=np.float32)[path])[None]
    labels = np.array([[1, ANYTHING, ANYTHING, 1, 3]], np.int32)
    options = {"wildcard_id": ANYTHING, "wildcard_log_prob": -0.5}
    [row] = jax_ctc.rank_utterances(
        [(log_probs - 0.25, labels)], inputs="log_probs", vocabulary="-abc", **options
    ).utterances
    assert row.differences == (
        ("agreed", "a"),
        ("hole", "bc"),
        ("agreed", "a"),
        ("unheard", "c"),
    )
    assert (row.num_beyond, row.num_unheard, row.labels) == (0, 1, "a * * ac")
    loss = jax_ctc.ctc_loss_from_log_probs(log_probs - 0.25, labels, **options)
    np.testing.assert_allclose(row.loss_per_label, loss[0] / 3, rtol=1e-5)
    best = jax_ctc.ctc_align(log_probs - 0.25, labels, inputs="log_probs", **options)
    np.testing.assert_allclose(row.score, best.score[0, [0, 3, 4]].mean(), rtol=1e-5)


def test_the_doctor_looks_at_few_shapes_and_says_so(monkeypatch):
    """Its codes are those of the utterances that it names; notes are none."""

    def diagnose(logits, *others, **options):
        found = [
            jax_ctc.Finding("TIGHT", "warning", (1,), {}, "tight"),
            jax_ctc.Finding("ALL_BLANK", "note", (0, 1), {}, "blank"),
        ]
        return jax_ctc.Report(tuple(found), (), {})

    monkeypatch.setattr(collect, "diagnose", diagnose)
    rng = np.random.default_rng(2)
    shapes = [(2, 6, 3), (2, 7, 3), (2, 6, 3), (2, 5, 3), (2, 7, 2)]
    batches = [made(rng, *shape) for shape in shapes]
    with pytest.warns(UserWarning, match="at 3 of 5 batches.*more than 2 shapes"):
        ranking = jax_ctc.rank_utterances(batches, num_shapes=2)
    assert ranking.num_examined == 3
    assert [batch for batch, _ in ranking.findings] == [0, 1, 2]
    found = {(row.batch, row.index): row.findings for row in ranking.utterances}
    assert found[2, 0] == ()
    assert found[2, 1] == ("TIGHT",)
    assert found[3, 1] is None
    assert "warning TIGHT [3 utterances in 3 batches" in str(ranking)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax_ctc.rank_utterances(batches)


def test_what_is_no_batch():
    """The message says which, and what it should be."""
    rng = np.random.default_rng(3)
    good = made(rng, 2, 6, 3)
    rank = jax_ctc.rank_utterances
    for wrong, error, message in (
        (good["logits"], TypeError, "batch 0: must be a mapping .* of one batch pass"),
        (3, TypeError, "must be an iterable of batches.*got int"),
        (good, TypeError, "batch 0: must be a mapping .*; got str"),
        ([good | {"lengths": 3}], ValueError, "batch 0: holds lengths, but must be"),
        ([{"labels": good["labels"]}], ValueError, "batch 0: lacks logits"),
        ([(good["logits"], good["labels"], *"abcd")], ValueError, "holds 6 things"),
        ([good | {"names": ["a"]}], ValueError, "name all B=2 utterances; got 1"),
        ([good | {"names": "ab"}], TypeError, "`names` must be a list of names"),
        ([good | {"labels": [[1.5], [2]]}], TypeError, "batch 0: `labels` must"),
        ([good | {"labels": [[1]]}], ValueError, "batch 0: `labels` must be"),
    ):
        with pytest.raises(error, match=message):
            rank(wrong)
    with pytest.raises(TypeError, match="batch 0: .* is traced"):
        jax.jit(lambda x: rank([(x, good["labels"])]))(good["logits"])
    for option in ("num_pictures", "num_shapes"):
        with pytest.raises(ValueError, match=f"`{option}` must be at least 0"):
            rank([good], **{option: -1})
    with pytest.raises(ValueError, match="`blank_id`"):
        rank([good], blank_id=4)
    empty = rank([])
    assert str(empty).startswith("0 utterances in 0 batches")
    assert empty.to_html().count("<section") == 0


def test_progress(no_doctor, capsys):
    """Whoever brings a bar is told of the batches; without a terminal there is none."""
    rng, seen = np.random.default_rng(4), []

    def track(batches):
        for batch in batches:
            seen.append(batch)
            yield batch

    batches = [made(rng, 1, 6, 3) for _ in range(2)]
    ranking = jax_ctc.rank_utterances(iter(batches), track=track)
    assert seen == batches
    assert jax_ctc.rank_utterances(batches).utterances == ranking.utterances
    bare = jax_ctc.rank_utterances(batches, num_shapes=0, num_pictures=0)
    assert [row.findings for row in bare.utterances] == [None, None]
    assert (bare.num_examined, "<section" in bare.to_html()) == (0, False)
    assert capsys.readouterr() == ("", "")
