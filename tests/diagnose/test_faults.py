"""Fault injection: the first finding is the fault, and healthy batches have none.

The whole matrix is printed by `python -m tests.confusion`; here is a part of it, with
the same functions.
"""

import dataclasses
import functools

import numpy as np
import pytest

from tests import confusion, emissions
from tests.cases import more
from tests.faults import FAULTS, repeats_collapsed

SEEDS = range(2)


@pytest.fixture(scope="module")
def matrices():
    """Every fault, at every strength, into batches of a trained and another reader."""
    return {
        "trained": confusion.inject(
            functools.partial(confusion.lines_batch, confusion.STEPS),
            SEEDS,
            squares=functools.partial(
                confusion.lines_batch,
                confusion.STEPS,
                count=confusion.SQUARE,
                width=confusion.SQUARE,
            ),
        ),
        "untrained": confusion.inject(
            functools.partial(confusion.lines_batch, 0), SEEDS, is_trained=False
        ),
    }


@pytest.mark.relaxed
@pytest.mark.exhaustive
@pytest.mark.parametrize("reader", ["trained", "untrained"])
def test_the_first_finding_is_the_fault(matrices, reader):
    """In at least 95 of 100 runs, over all faults that evidence can identify."""
    matrix = matrices[reader]
    print(f"\n{reader}\n{confusion.table({confusion.BATCH: matrix})}")
    assert set(matrix) == {f for f in FAULTS if f.untrained or reader == "trained"}
    assert confusion.rate(matrix) >= 0.95
    for fault, counts in matrix.items():  # and none is systematically mistaken
        silent = counts[confusion.NOTHING] if fault.faint else 0
        runs = counts.total() - silent
        assert counts[fault.code] > runs / 2 or not runs, (fault, counts)


@pytest.mark.relaxed
@pytest.mark.exhaustive
@pytest.mark.optimised  # a reader is trained
def test_a_reader_of_print_has_the_same_faults():
    """English, in which letters are doubled; and nothing is said of healthy lines."""
    source = functools.partial(confusion.read_batch_of, confusion.printed)
    squares = functools.partial(confusion.square_of, confusion.printed)
    matrix = confusion.inject(source, [0], squares=squares)
    assert set(matrix) == set(FAULTS)
    assert confusion.rate(confusion.plain(matrix)) >= 0.95
    [collapsed] = [fault for fault in FAULTS if fault.inject is repeats_collapsed]
    large = functools.partial(source, count=32)
    for how in collapsed.strengths:  # which merged letters these are is chance
        fault = dataclasses.replace(collapsed, strengths=(how,))
        counts = confusion.inject(large, range(5), faults=[fault])[fault]
        assert counts[fault.code] >= 3, counts
        assert set(counts) <= {fault.code, confusion.NOTHING}
    assert set(confusion.clean(source, range(20))) == {confusion.NOTHING}


@pytest.mark.slow
@pytest.mark.relaxed
@pytest.mark.parametrize(
    ("steps", "count"), [(0, 4), more(0, 20), more(20, 20), more(confusion.STEPS, 20)]
)
def test_clean_lines_stay_clean(steps, count):
    """Untrained, on the plateau, and trained."""
    source = functools.partial(confusion.lines_batch, steps)
    assert set(confusion.clean(source, range(count))) == {confusion.NOTHING}


@pytest.mark.relaxed
@pytest.mark.optimised  # a reader is trained: quick programs are worth compiling
def test_a_shuffle_of_short_transcripts():
    """Two digits a line suffice where all of them have moved; one says too little."""
    assert confusion.shuffles_found(2, confusion.BATCH, [0]) == 1
    assert confusion.shuffles_found(1, confusion.BATCH, [0]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [x if x == "peaky" else more(x) for x in emissions.TRAINED]
)
def test_other_models_have_the_same_faults(kind):
    """Peaky, blurry and overconfident models of 32 classes and long transcripts."""
    source = functools.partial(confusion.made_up, kind)
    is_reader = kind not in emissions.INSERTING
    matrix = confusion.inject(source, [0], is_reader=is_reader)
    assert confusion.rate(matrix) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [more(0.0), 0.25])
@pytest.mark.parametrize("kind", emissions.KINDS)
def test_other_models_stay_clean(kind, wrong):
    """Trained or not, and with a quarter of the transcripts wrong."""
    source = functools.partial(confusion.made_up, kind, wrong=wrong)
    assert set(confusion.clean(source, range(4))) == {confusion.NOTHING}


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, more(8), more(16), 64])
@pytest.mark.parametrize("kind", emissions.CONFUSED)
def test_errors_are_no_shuffle(kind, count):
    """A model that mistakes transcripts for each other has them in their places."""
    source = functools.partial(confusion.made_up, kind, count=count)
    assert set(confusion.clean(source, range(3))) == {confusion.NOTHING}


def more_said_than_heard(batch, rng):
    """Transcripts go on after the audio; padding scores are 0, where all is cheap."""
    for row in range(0, len(batch["labels"]), 2):
        count = batch["label_lengths"][row]
        more = batch["labels"][row, count : count + 6]
        more[:] = rng.integers(1, 31, len(more))
        batch["label_lengths"][row] += len(more)
    for scores, length in zip(batch["logits"], batch["logit_lengths"], strict=True):
        scores[length:] = 0


def next_in_the_padding(batch, rng):
    """Frames after the end hold the speech of the next utterance."""
    others = np.roll(batch["logits"], -1, axis=0)
    for row, length in enumerate(batch["logit_lengths"]):
        batch["logits"][row, length:] = others[row, : len(others[row]) - length]


def itself_in_the_padding(batch, rng):
    """Frames after the end repeat the utterance from its start."""
    copies = batch["logits"].copy()
    for row, length in enumerate(batch["logit_lengths"]):
        batch["logits"][row, length:] = copies[row, : len(copies[row]) - length]


def twice_the_same(batch, rng):
    """Half of the batch is a copy of the other half."""
    for array in batch.values():
        array[len(array) // 2 :] = array[: len(array) // 2]


def always_the_same_start(batch, rng):
    """All transcripts start alike, and so do all utterances, in any model's ears."""
    batch["labels"][:, 0] = 3
    batch["logits"][:, :10] = 3 * batch["logits"][:1, :1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        more_said_than_heard,
        next_in_the_padding,
        more(itself_in_the_padding),
        more(twice_the_same),
        always_the_same_start,
    ],
)
@pytest.mark.parametrize("kind", [*emissions.TRAINED, *emissions.UNTRAINED])
def test_odd_batches_are_no_mistakes(kind, change):
    """What looks like a code's mistake and is none."""
    batch = confusion.made_up(kind, 3)
    change(batch, np.random.default_rng(3))
    assert {f.code for f in confusion.findings(batch)} <= {"ALL_BLANK"}
