"""Hotwords: a bonus for every occurrence, and nothing for what breaks off."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from tests.decoding.enumerated import labellings, read
from tests.oracle import log_softmax

LETTERS = ["", "a", "b", "c", " "]
PIECES = ["", "▁a", "a", "b", "▁ba", "ab", "▁c"]


def occurrences(text, phrase):
    return sum(text.startswith(phrase, place) for place in range(len(text)))


def bonus_within(text, phrases, bonuses):
    """Return the bonus of phrases anywhere in a text, each character's."""
    return sum(
        len(phrase) * bonus * occurrences(text, phrase)
        for phrase, bonus in zip(phrases, bonuses, strict=True)
    )


def bonus_of_words(text, phrases, bonuses):
    """Return the bonus of phrases of whole words."""
    text = f" {' '.join(text.split())} "
    return sum(
        len(phrase.replace(" ", "")) * bonus * occurrences(text, f" {phrase} ")
        for phrase, bonus in zip(phrases, bonuses, strict=True)
    )


def every_sequence(num_classes, size):
    rows = list(itertools.product(range(1, num_classes), repeat=size))
    return np.array(rows, np.int32)


def text_of(labels, vocabulary):
    return "".join(vocabulary[k] for k in labels).replace("▁", " ")


@pytest.mark.parametrize(
    ("phrases", "bonuses"),
    [
        (["ab"], 2.0),
        (["aba", "b", "bab", "abc"], [1.0, 0.5, 3.0, -2.0]),  # one inside another
        (["aa", "aaa"], 1.5),  # which overlap themselves
        (["a b"], 1.0),
    ],
)
def test_every_occurrence_counts(phrases, bonuses):
    """All sequences of six letters, their ends included."""
    hotwords = jax_ctc.Hotwords.from_phrases(phrases, LETTERS, bonus=bonuses)
    labels = every_sequence(5, 6)
    each = np.broadcast_to(bonuses, len(phrases))
    expected = [bonus_within(text_of(row, LETTERS), phrases, each) for row in labels]
    np.testing.assert_allclose(hotwords.bonus(labels), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("vocabulary", "separator"),
    [
        (LETTERS, " "),
        (PIECES, "▁"),
        (["", "a", "##a", "b", "##b", "##ab", "c"], "##"),
        (["", "a@@", "a", "b@@", "b", "ba@@", "c"], "@@"),
        (["", "a", "a</w>", "b", "b</w>", "ba</w>", "c</w>"], "</w>"),
    ],
)
def test_whole_words(vocabulary, separator):
    """Spelt in any of the pieces; within other words nothing counts."""
    phrases, bonuses = ["ab", "a", "a ba", "c"], [1.0, 0.25, 2.0, 0.5]
    hotwords = jax_ctc.Hotwords.from_phrases(
        phrases, vocabulary, bonus=bonuses, separator=separator
    )
    labels = every_sequence(len(vocabulary), 5)

    def text(row):
        pieces = [vocabulary[k] for k in row]
        if separator == "##":
            return "".join(p[2:] if p.startswith("##") else " " + p for p in pieces)
        if separator == "@@":
            return "".join(p[:-2] if p.endswith("@@") else p + " " for p in pieces)
        if separator == "</w>":
            return "".join(p.replace("</w>", " ") for p in pieces)
        return "".join(pieces).replace(separator, " ")

    expected = [bonus_of_words(text(row), phrases, bonuses) for row in labels]
    np.testing.assert_allclose(hotwords.bonus(labels), expected, atol=1e-5)


def test_phrases_of_ids():
    """Phones, whose texts are no spelling."""
    hotwords = jax_ctc.Hotwords.from_phrases(
        [[1, 2], [3]], ["", "AA", "B", "AAB"], bonus=[1.0, 5.0]
    )
    assert hotwords.bonus(jnp.array([1, 2, 3, 1])).tolist() == 7.0


def test_search_with_hotwords_is_exact():
    """The beam holds everything; a phrase that breaks off leaves no trace."""
    logits = 2 * np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)
    phrases, bonuses = ["ab", "bcb"], [1.0, 2.0]
    hotwords = jax_ctc.Hotwords.from_phrases(phrases, LETTERS, bonus=bonuses)
    found = read(
        jax_ctc.beam_search_decode(
            logits, beam_width=200, num_hypotheses=200, hotwords=hotwords
        )
    )
    expected = {
        labels: p + bonus_within(text_of(labels, LETTERS), phrases, bonuses)
        for labels, p in labellings(log_softmax(logits)).items()
    }
    assert {labels for labels, *_ in found} == set(expected)
    for labels, _, score in found:
        assert abs(score - expected[labels]) < 1e-5


def test_saved_and_loaded(tmp_path):
    hotwords = jax_ctc.Hotwords.from_phrases(["ab"], LETTERS, bonus=1.0)
    hotwords.save(tmp_path / "hotwords.npz")
    loaded = jax_ctc.Hotwords.load(tmp_path / "hotwords.npz")
    jax.tree.map(np.testing.assert_array_equal, loaded, hotwords)


@pytest.mark.parametrize(
    ("phrases", "options", "error", "message"),
    [
        ("ab", {}, TypeError, "`phrases` must be a list of texts"),
        (["ab", [1]], {}, TypeError, "`phrases` must all be texts"),
        ([[1]], {"separator": " "}, TypeError, "take no `separator`"),
        (["ab", ""], {}, ValueError, "holds an empty one: ''"),
        (["axb"], {}, ValueError, "'axb' cannot be spelt .* which lack 'x'"),
        ([[7]], {}, ValueError, "cannot be spelt"),
        (["ab"], {"bonus": [1, 2]}, ValueError, "one for each of the 1 phrases"),
        (["ab"], {"bonus": np.inf}, ValueError, "a finite number of nats"),
        (["ab"], {"separator": ""}, ValueError, "`separator` must be the text"),
    ],
)
def test_mistakes(phrases, options, error, message):
    with pytest.raises(error, match=message):
        jax_ctc.Hotwords.from_phrases(phrases, LETTERS, **{"bonus": 1.0, **options})
