"""The doctor's parts: its lattice against the oracle, its records, its manners."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from jax_ctc._diagnose.batch import read_batch
from jax_ctc._diagnose.guess import frequencies, log_guess
from jax_ctc._diagnose.judge import mixed
from jax_ctc._diagnose.pairs import edit_distance
from jax_ctc._diagnose.structure import trailing
from tests import confusion, emissions
from tests.faults import FAULTS, other_case, repeats_collapsed, start_symbol
from tests.oracle import log_softmax, loss_by_enumeration
from tests.oracle_paths import best_by_enumeration, entropy_by_enumeration

BY_CODE = {fault.code: fault for fault in reversed(FAULTS)}  # the first of each
T, V, U = 6, 4, 3
NAMES = ["<blank>", "a", "b", "c"]


@pytest.fixture(scope="module")
def small():
    """Two short utterances, small enough to list every path."""
    rng = np.random.default_rng(0)
    return {
        "logits": 2 * rng.normal(size=(2, T, V)).astype(np.float32),
        "labels": np.array([[1, 1, 3], [2, 3, -1]], np.int32),
        "logit_lengths": np.array([6, 5], np.int32),
        "label_lengths": np.array([3, 2], np.int32),
    }


@pytest.fixture(scope="module")
def report(small):
    # As strict as the tests, which are set up later, or all would compile twice.
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        return jax_ctc.diagnose(**small, vocabulary=NAMES)


@pytest.mark.parametrize("blank_id", [0, 2])
def test_guess_is_the_mean_over_all_transcripts(blank_id):
    """Sum over y of q(y) p(y), by listing every y of every length."""
    rng = np.random.default_rng(1)
    log_probs = log_softmax(3 * rng.normal(size=(2, 5, 4)))
    share = np.where(np.arange(4) == blank_id, 0, [0.2, 0.5, 0.3, 0.1])
    share = share / share.sum()
    lengths = np.array([5, 3])
    guess = log_guess(
        log_probs.astype(np.float32), lengths, share, 3, blank_id=blank_id
    )
    classes = [c for c in range(4) if c != blank_id]
    for b, count in itertools.product(range(2), range(4)):
        total = sum(
            np.prod(share[list(y)])
            * np.exp(-loss_by_enumeration(log_probs[b, : lengths[b]], y, blank_id))
            for y in itertools.product(classes, repeat=count)
        )
        np.testing.assert_allclose(
            np.exp(guess[b, count]), total, rtol=2e-5, atol=1e-12
        )


def test_a_guess_in_groups_errs_high():
    """More classes than groups: an upper bound, so that knowledge is understated."""
    rng = np.random.default_rng(2)
    share = rng.random(150) * (np.arange(150) > 0)
    share = share / share.sum()
    every = np.arange(150)[:, None]
    sure = 12.0 * np.eye(150)[rng.integers(0, 150, (1, 8))]
    for scores, slack in ((3 * rng.normal(size=(1, 8, 150)), 99), (sure, 2)):
        log_probs = log_softmax(scores).astype(np.float32)
        few = log_guess(log_probs, np.array([8]), share, 1, blank_id=0)[0]
        many = np.broadcast_to(log_probs, (150, 8, 150))
        losses = np.asarray(jax_ctc.ctc_loss(many, every), np.float64)
        exact = np.log(share @ np.exp(-losses))
        assert exact <= few[1] <= exact + slack
        assert few[0] == pytest.approx(log_probs[0, :, 0].sum(), rel=1e-5)


def test_the_guess_is_beaten_by_chance_as_rarely_as_it_says():
    """P(log p - log guess > x) <= exp(-x) when labels know nothing of the scores."""
    rng = np.random.default_rng(4)
    labels = rng.integers(1, 5, (400, 6)).astype(np.int32)
    log_probs = log_softmax(3 * rng.normal(size=(400, 20, 5))).astype(np.float32)
    share = np.array([0, 0.25, 0.25, 0.25, 0.25])
    guess = log_guess(log_probs, np.full(400, 20), share, 6, blank_id=0)[:, 6]
    knows = -np.asarray(jax_ctc.ctc_loss(log_probs, labels)) - guess
    for x in (1, 2, 3):  # three standard deviations of a binomial above the bound
        bound = np.exp(-x)
        assert (knows > x).mean() <= bound + 3 * np.sqrt(bound / 400)
    assert np.exp(knows).mean() < 2  # the expectation is 1


def test_mixing_bounds_what_one_utterance_can_say():
    assert mixed(np.array([-1e9]), 0.1) == pytest.approx(np.log(0.1))
    assert mixed(np.array([0.0]), 0.1) == pytest.approx(0)
    assert mixed(np.array([30.0]), 0.1) == pytest.approx(30 + np.log(0.9))


def test_frequencies_and_trailing():
    labels = np.array([[1, 2, 2, 9], [3, 3, -1, 3]])
    share = frequencies(labels, np.array([3, 4]), 4)
    np.testing.assert_allclose(share, [0, 1 / 6, 2 / 6, 3 / 6])
    assert trailing(labels, np.array([3, 4]), 2).tolist() == [2, 0]
    assert trailing(labels, np.array([4, 4]), 3).tolist() == [0, 1]
    assert trailing(labels, np.array([0, 2]), 3).tolist() == [0, 2]


def test_edit_distance_is_the_fewest_changes():
    """Against the recursion as it is defined, over texts of any two lengths."""

    def fewest(a, b):
        if not a or not b:
            return len(a) + len(b)
        swap = fewest(a[1:], b[1:]) + (a[0] != b[0])
        return min(swap, fewest(a[1:], b) + 1, fewest(a, b[1:]) + 1)

    rng = np.random.default_rng(5)
    texts = [rng.integers(0, 3, rng.integers(0, 6)).tolist() for _ in range(80)]
    padded = np.array([[*text, *[-1] * (6 - len(text))] for text in texts])
    expected = [fewest(*pair) for pair in zip(texts, texts[::-1], strict=True)]
    assert edit_distance(padded, padded[::-1]).tolist() == expected


def test_the_table_against_every_path(small, report):
    """Loss, entropy, best path and blank share, by listing the paths."""
    for b, row in enumerate(report.utterances):
        frames, count = small["logit_lengths"][b], small["label_lengths"][b]
        log_probs = log_softmax(small["logits"][b, :frames])
        labels = small["labels"][b, :count]
        loss = loss_by_enumeration(log_probs, labels)
        assert row.loss == pytest.approx(loss, rel=1e-5)
        assert row.loss_per_label == pytest.approx(loss / count, rel=1e-5)
        assert row.loss_per_frame == pytest.approx(loss / frames, rel=1e-5)
        entropy = entropy_by_enumeration(log_probs, labels)
        assert row.alignment_entropy == pytest.approx(entropy, rel=1e-4)
        _, best = best_by_enumeration(log_probs, labels)
        assert row.best_path_share == pytest.approx(np.exp(best + loss), rel=1e-4)
        gradient = jax.grad(jax_ctc.ctc_loss_from_log_probs)(
            jnp.asarray(log_probs, jnp.float32), labels
        )
        share = -float(gradient[:, 0].sum()) / frames
        assert row.blank_share == pytest.approx(share, rel=1e-4)
    assert [row.spare_frames for row in report.utterances] == [2, 3]
    assert [row.labels for row in report.utterances] == ["a a c", "b c"]
    greedy = jax_ctc.greedy_decode(small["logits"], small["logit_lengths"])
    ids = [greedy.labels[b, : greedy.lengths[b]].tolist() for b in range(2)]
    expected = [" ".join(NAMES[i] for i in row) for row in ids]
    assert [row.decoded for row in report.utterances] == expected


def test_a_report_says_what_it_looked_at(report):
    assert report.passed == {
        **{"B": 2, "T": 6, "V": 4, "U": 3},
        **{"blank_id": 0, "inputs": "logits"},
    }
    assert report.findings == ()
    assert report.codes() == set()
    assert str(report).startswith("nothing to report (B = 2")


def test_leading_axes_are_flattened_and_one_utterance_will_do(small, report):
    """Row-major over any leading axes, none included."""
    deep = {name: array[:, None] for name, array in small.items()}
    assert jax_ctc.diagnose(**deep).utterances[1] == dataclasses.replace(
        report.utterances[1], labels="2 3", decoded=_ids(report.utterances[1].decoded)
    )
    one = (small["logits"][1], small["labels"][1], 5, 2)
    given = read_batch(one, blank_id=0, inputs="logits", vocabulary=None)
    assert given.scores.shape == (1, T, V)
    assert given.labels.tolist() == [[2, 3, -1]]
    assert (given.logit_lengths, given.label_lengths) == ([5], [2])


def _ids(names):
    return " ".join(str(NAMES.index(name)) for name in names.split())


def test_json(small):
    """Every field, infinities by name, and nothing that JSON lacks."""
    broken = small | {"logit_lengths": np.array([2, 5], np.int32)}
    report = jax_ctc.diagnose(**broken)
    content = json.loads(report.to_json())
    assert content["codes"] == ["INFEASIBLE"]
    [finding] = content["findings"]
    assert finding["utterances"] == [0]
    assert finding["evidence"] == {"most_frames_missing": 2, "in_utterance": 0}
    row = content["utterances"][0]
    assert row["loss"] == "inf"
    assert row["status"] == ["INFEASIBLE"]
    assert row["spare_frames"] == -2
    assert row["best_path_share"] == row["blank_share"] == 0
    json.dumps(content, allow_nan=False)


def test_log_probs_are_scored_as_they_are(small):
    """The table's loss is that of ctc_loss_from_log_probs; the doctor normalises."""
    report = jax_ctc.diagnose(**small, inputs="log_probs")
    assert report.findings[0].code == "NOT_NORMALISED"
    assert report.findings[0].severity == "warning"
    passed = jax_ctc.ctc_loss_from_log_probs(
        **{
            ("log_probs" if name == "logits" else name): array
            for name, array in small.items()
        }
    )
    losses = [row.loss for row in report.utterances]
    np.testing.assert_allclose(losses, passed, rtol=1e-5)
    good = small | {"logits": log_softmax(small["logits"]).astype(np.float32)}
    assert jax_ctc.diagnose(**good, inputs="log_probs").codes() == set()
    # Half precision rounds log-probabilities; that is no mistake, even once widened.
    for dtype in (jnp.bfloat16, np.float16):
        half = good | {"logits": good["logits"].astype(dtype)}
        assert jax_ctc.diagnose(**half, inputs="log_probs").codes() == set()
        half["logits"] = half["logits"].astype(np.float32)
        assert jax_ctc.diagnose(**half, inputs="log_probs").codes() == set()


def test_a_vocabulary_may_be_a_mapping(small):
    """As for `token_spans`; ids that it lacks are written as numbers."""
    arrays = tuple(small.values())
    given = read_batch(arrays, blank_id=0, inputs="logits", vocabulary={1: "a", 3: "c"})
    assert given.spell([1, 1, 3, 2]) == "aac2"
    assert given.name(3) == "3 ('c')"


def test_tracers_are_told_where_to_go(small):
    with pytest.raises(TypeError, match=r"`logits` is traced.*jax_ctc.watch"):
        jax.jit(lambda x: jax_ctc.diagnose(x, small["labels"]))(small["logits"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"vocabulary": ["a"]}, ValueError, "name all V=4 classes"),
        ({"vocabulary": 3}, TypeError, "as a list or a string of letters.*got int"),
        ({"vocabulary": set("_abc")}, TypeError, "which class is called what"),
        ({"vocabulary": b"_abc"}, TypeError, "got bytes"),
        ({"vocabulary": [1, 2, 3, 4]}, TypeError, r"by strings; got 1 \(int\)"),
        (
            {"vocabulary": {"a": 1}},
            TypeError,
            "inside out: pass {id: text for text, id",
        ),
        ({"vocabulary": {"0": "_", "1": "a"}}, TypeError, r"Pass {int\(id\): text for"),
        ({"inputs": "probs"}, ValueError, "`inputs` must be one of 'logits', 'log_p"),
        ({"blank_id": 4}, ValueError, "must be one of the V=4 classes"),
        ({"logit_lengths": np.array([6.0, 5.0])}, TypeError, "an integer dtype"),
        ({"logit_lengths": [6]}, ValueError, "must have the leading axes"),
        ({"logits": [[1, 2], [3]]}, TypeError, "must be a rectangular array"),
        ({"labels": None}, TypeError, "`labels`"),
        ({"logits": np.zeros((6, 2, 4), np.float32)}, ValueError, r"jnp.swapaxes"),
    ],
)
def test_what_no_loss_could_take_is_refused(small, change, error, message):
    with pytest.raises(error, match=message):
        jax_ctc.diagnose(**small | change)


@pytest.mark.parametrize(
    ("shape", "num_labels"),
    [((0, 5, 4), 2), ((2, 0, 4), 2), ((2, 5, 1), 0)],
    ids=["no utterance", "no frame", "no label and one class"],
)
def test_degenerate_shapes_are_legal(shape, num_labels):
    logits = np.zeros(shape, np.float32)
    labels = np.ones((shape[0], num_labels), np.int32)
    report = jax_ctc.diagnose(logits, labels)
    assert len(report.utterances) == shape[0]
    assert report.codes() == ({"INFEASIBLE"} if shape[1] == 0 else set())


def test_wide_inputs_stay_finite(small):
    """float64 beyond float32's range is a large number, not an infinite one."""
    wide = small | {"logits": small["logits"].astype(np.float64)}
    wide["logits"][0, 0, 0] = -1e300
    assert "NONFINITE_LOGITS" not in jax_ctc.diagnose(**wide).codes()


def test_inputs_are_left_alone(small):
    before = {name: array.copy() for name, array in small.items()}
    jax_ctc.diagnose(**small)
    for name, array in before.items():
        np.testing.assert_array_equal(array, small[name])


def test_the_plateau_is_a_note():
    """Normal early on, so it is said and is no alarm."""
    [note] = confusion.findings(confusion.made_up("plateau", 0))
    assert (note.code, note.severity) == ("ALL_BLANK", "note")
    assert len(note.utterances) == 8
    assert note.evidence["mean_blank"] > 0.5


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("FRAMES_CUT", "some"), ("WRONG_BLANK", "last")),
        (("LABELS_SHIFTED", 1), ("PAIRS_SHUFFLED", 0.5)),
        (("WRONG_BLANK", "last"), ("PROBABILITIES_AS_LOGITS", 1.0)),
        (("LABELS_SHIFTED", 1), ("PADDING_COUNTED", "-1")),
        (("PAIRS_SHUFFLED", 1.0), ("LENGTHS_SWAPPED", 1.0)),
    ],
    ids=str,
)
def test_two_mistakes_are_found_one_on_top_of_the_other(first, second):
    rng = np.random.default_rng(0)
    batch = confusion.made_up("peaky", 0)
    for code, strength in (first, second):
        batch = BY_CODE[code].inject(batch, strength, rng)
    codes = [finding.code for finding in confusion.findings(batch)]
    assert set(codes[:2]) == {first[0], second[0]}


@pytest.mark.parametrize("is_ragged", [True, False])
def test_label_lengths_passed_third(is_ragged):
    """Where it fits nothing else complains, and frames seem to be missing."""
    batch = confusion.made_up("peaky", 0)
    lengths = batch["label_lengths"]
    if not is_ragged:
        lengths = np.full_like(lengths, lengths.min())
    inside = np.arange(batch["labels"].shape[1]) < lengths[:, None]
    labels = np.where(inside, batch["labels"], 0)[:, : lengths.max()]
    batch |= {"labels": labels, "logit_lengths": lengths}
    batch["label_lengths"] = np.full_like(lengths, lengths.max())
    first, *others = confusion.findings(batch)
    assert first.code == "LENGTHS_SWAPPED"
    assert "pass label_lengths fourth" in first.message
    assert "FRAMES_CUT" not in {finding.code for finding in others}


def test_causes_come_before_the_bits_they_explain():
    batch = confusion.made_up("peaky", 0)
    batch = BY_CODE["WRONG_BLANK"].inject(batch, "last", None)
    cause, symptom = confusion.findings(batch)
    assert (cause.code, symptom.code) == ("WRONG_BLANK", "BLANK_IN_LABELS")
    assert symptom.evidence["explained_by"] == ["WRONG_BLANK"]
    assert cause.evidence["acts_as_blank"] == 31
    assert "pass blank_id=31" in cause.message
    assert cause.evidence["nats"] > 100


def test_findings_are_ordered_by_what_they_explain():
    """An error of hundreds of nats before a warning; a bit names what cleared it."""
    batch = BY_CODE["WRONG_BLANK"].inject(confusion.made_up("peaky", 0), "last", None)
    scores = log_softmax(batch["logits"]) + 0.002
    batch |= {"logits": scores.astype(np.float32), "inputs": "log_probs"}
    cause, scale, symptom = confusion.findings(batch)
    assert (cause.code, scale.code) == ("WRONG_BLANK", "NOT_NORMALISED")
    assert symptom.evidence["explained_by"] == ["WRONG_BLANK"]


def test_a_mask_put_on_half_precision_is_no_mistake():
    """Widened after log_softmax, and one class masked by a number."""
    batch = confusion.made_up("peaky", 0)
    half = jnp.asarray(batch["logits"], jnp.bfloat16)
    scores = np.array(jax.nn.log_softmax(half).astype(jnp.float32))
    scores[:, :, -1] = -1e9
    batch |= {"logits": scores, "inputs": "log_probs"}
    assert confusion.findings(batch) == ()


@pytest.mark.parametrize("factor", [2, 4])
def test_lengths_from_before_subsampling_in_wide_padding(factor):
    """T is half as much again as the longest utterance needs."""
    batch = confusion.made_up("peaky", 0)
    padding = np.zeros((8, batch["logit_lengths"].max() * 3 // 2, 32), np.float32)
    padding[:, : batch["logits"].shape[1]] = batch["logits"]
    batch |= {"logits": padding, "logit_lengths": batch["logit_lengths"] * factor}
    finding = confusion.findings(batch)[0]
    assert finding.code == "LENGTH_UNITS"
    assert finding.evidence["factor"] == factor


def test_lengths_a_frame_too_long_are_in_frames():
    batch = confusion.made_up("peaky", 0)
    batch["logit_lengths"] = np.full(8, batch["logits"].shape[1] + 1)
    assert {f.code for f in confusion.findings(batch)} == {"BAD_LENGTH"}


def test_probabilities_in_zero_padding():
    """The softmax of each utterance, stacked, and lengths forgotten."""
    batch = BY_CODE["PROBABILITIES_AS_LOGITS"].inject(
        confusion.made_up("peaky", 0), 1.0, None
    )
    for scores, length in zip(batch["logits"], batch["logit_lengths"], strict=True):
        scores[length:] = 0
    batch["logit_lengths"] = None
    assert confusion.findings(batch)[0].code == "PROBABILITIES_AS_LOGITS"


@pytest.mark.parametrize("which", ["alphabet", "frequency"])
def test_the_other_case_is_named_as_such(which):
    """Transcripts in capitals where the model writes small letters, and back."""
    [fault] = [fault for fault in FAULTS if fault.inject is other_case]
    rng = np.random.default_rng(0)
    batch = fault.inject(confusion.made_up("peaky", 0, count=3), which, rng)
    [finding] = confusion.findings(batch)
    assert (finding.code, finding.evidence["case"]) == (fault.code, "lower")
    assert "lower case" in finding.message
    assert "text.lower()" in finding.message
    batch["vocabulary"] = [name.swapcase() for name in batch["vocabulary"]]
    assert "text.upper()" in confusion.findings(batch)[0].message


@pytest.mark.parametrize(("kind", "ends"), [("<s>", 1), ("both ends", 2)])
def test_a_start_symbol_is_cut_off(kind, ends):
    """Where it stands; and where the lengths are wrong as well, nothing breaks."""
    batch = start_symbol(confusion.made_up("peaky", 0, count=3), kind, None)
    [finding] = confusion.findings(batch)
    assert finding.code == "START_SYMBOL"
    assert finding.evidence["id"] == batch["logits"].shape[2] - 1
    assert ("ends with" in finding.message) == (ends == 2)
    assert f"label_lengths - {ends}" in finding.message
    batch["label_lengths"] = batch["label_lengths"] + batch["labels"].shape[1]
    assert "BAD_LENGTH" in {each.code for each in confusion.findings(batch)}


def doubled(count=20):
    """Return a batch of a reader that errs at nothing: one label of three is double."""
    rng = np.random.default_rng(0)
    texts = np.repeat(
        rng.permuted(np.tile(np.arange(1, 13), (count, 1)), axis=1), 2, axis=1
    )
    is_kept = np.ones(texts.shape, bool)
    is_kept[:, 1::2] = rng.permuted(
        np.tile([True] * 4 + [False] * 8, (count, 1)), axis=1
    )
    labels = texts[is_kept].reshape(count, 16).astype(np.int32)
    logits = np.zeros((count, 33, 14), np.float32)
    logits[:, 0::2, 0] = logits[
        np.arange(count)[:, None], 1 + 2 * np.arange(16), labels
    ] = 9
    lengths = np.full(count, 33, np.int32), np.full(count, 16, np.int32)
    names = "logits", "labels", "logit_lengths", "label_lengths"
    return dict(zip(names, (logits, labels, *lengths), strict=True))


@pytest.mark.parametrize("kept", [0, 1, 4, 5])
def test_merged_repeats_are_written_out(kept):
    """In one transcript of five they may stand; more say that this is no rule."""
    batch = doubled()
    assert not confusion.findings(batch)
    merged = repeats_collapsed(batch, "all", None)
    for name in ("labels", "label_lengths"):
        merged[name][:kept] = batch[name][:kept]
    if kept == 5:
        assert not confusion.findings(merged)
        return
    [finding] = confusion.findings(merged)
    assert finding.code == "REPEATS_COLLAPSED"
    assert finding.utterances == tuple(range(kept, 20))
    assert finding.evidence["heard_twice"] == 4 * (20 - kept)
    assert finding.evidence["transcripts_with_repeats"] == kept
    assert (f"; {kept} others have some" in finding.message) == (kept > 0)


def of_sounds(rng, *, gap):
    """Return a batch of sounds of two frames, each answered by a class of its own.

    gap: the class of the frame behind every sixth sound; -1: there is none.
    """
    labels = rng.integers(1, 21, (6, 30)).astype(np.int32)
    labels[:, 1:] += labels[:, 1:] == labels[:, :-1]
    of_sound = rng.permutation(np.arange(1, 200))[:23]  # by lot
    logits = rng.normal(size=(6, 70, 200)).astype(np.float32)
    for row, text in enumerate(labels):
        classes = []
        for place, label in enumerate(text):
            classes += [of_sound[label]] * 2 + [gap] * (gap >= 0 and place % 6 == 5)
        logits[row, np.arange(len(classes)), classes] += 12
        logits[row, len(classes) :, 0] += 12
    return {
        "logits": logits,
        "labels": labels,
        "logit_lengths": np.full(6, 65 if gap >= 0 else 60, np.int32),
        "label_lengths": np.full(6, 30, np.int32),
    }


@pytest.mark.parametrize(("gap", "codes"), [(0, ["LABELS_RENAMED"]), (-1, []), (9, [])])
def test_a_model_that_reads_by_other_numbers_knows_its_blank(gap, codes):
    """A blank in six shows it; an untrained model answers sounds and gaps by lot."""
    batch = of_sounds(np.random.default_rng(0), gap=gap)
    assert [finding.code for finding in confusion.findings(batch)] == codes


def test_an_exchange_that_leaves_too_few_frames():
    """A long transcript and a short one: the cause comes before the status bit."""
    batch = emissions.batch("peaky", np.random.default_rng(1), 4)
    batch["logit_lengths"][1] = 30  # of 30 frames, and 4 labels
    ends = batch["logits"][1, 30:]
    ends[:], ends[:, 0] = 0, 9
    spoken = batch["logits"][1, :30].argmax(1)
    text = spoken[(spoken > 0) & (np.diff(spoken, prepend=0) != 0)]
    batch["labels"][1], batch["labels"][1, : len(text)] = -1, text
    batch["label_lengths"][1] = len(text)
    assert confusion.findings(batch) == ()
    long = int(batch["label_lengths"].argmax())
    order = np.arange(4)
    order[[1, long]] = long, 1
    for name in ("labels", "label_lengths"):
        batch[name] = batch[name][order]
    cause, symptom = confusion.findings(batch)
    assert (cause.code, symptom.code) == ("PAIRS_SHUFFLED", "INFEASIBLE")
    assert symptom.evidence["explained_by"] == ["PAIRS_SHUFFLED"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 32])
@pytest.mark.parametrize("kind", emissions.KINDS)
def test_healthy_batches_of_any_size(count, kind):
    """One utterance, two, or many; of these a fifth is wrong, of those all or half."""
    rng = np.random.default_rng(count)
    wrong = max(1, round(0.2 * count)) / count
    batch = emissions.batch(kind, rng, count, 20, 60, 8, wrong=wrong)
    assert {f.code for f in confusion.findings(batch)} <= {"ALL_BLANK"}
