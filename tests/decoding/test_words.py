"""Word models over spelt words: rated when a word ends, by the textbook."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from tests.cases import more
from tests.decoding import arpa_models
from tests.decoding.enumerated import labellings, read
from tests.oracle import log_softmax

WORDS = ["ab", "a", "ba", "bab", "caab"]
PENALTY = 3.0
# The same letters, under the four ways in which vocabularies part words.
SPELLINGS = {
    " ": ["", "a", "b", "c", " "],
    "▁": ["", "a", "b", "▁a", "▁b", "▁c", "▁ba"],
    "##": ["", "##a", "##b", "a", "b", "c", "##ab"],
    "@@": ["", "a", "b", "a@@", "b@@", "c@@", "ba@@"],
    "</w>": ["", "a", "b", "a</w>", "b</w>", "c", "ab</w>"],
}


def words_of(labels, vocabulary, separator):
    """Return the words that labels spell, and whether the last one has ended."""
    text, ended = "", True
    for label in labels:
        piece = vocabulary[label]
        if separator == "##":
            text += piece[2:] if piece.startswith("##") else " " + piece
        elif separator == "@@":
            text += piece[:-2] if piece.endswith("@@") else piece + " "
        elif separator == "</w>":
            text += piece.replace("</w>", " ")
        else:
            text += piece.replace(separator, " ")
        ended = text.endswith(" ")
    return text.split(), ended


def expected_log_prob(grams, labels, vocabulary, separator):
    """Rate words by the textbook, and take off what those that are none cost."""
    words, _ = words_of(labels, vocabulary, separator)
    unknown = [place for place, word in enumerate(words) if word not in WORDS]
    total = -PENALTY * len(unknown)
    if ("<unk>",) in grams or not unknown:
        return total + arpa_models.log_prob(grams, words)
    # A model without <unk> says nothing of these, and of the next no more than of a
    # word after nothing.
    first, last = unknown[0], unknown[-1]
    total += arpa_models.log_prob(grams, words[:first], end=False)
    for before, after in itertools.pairwise(unknown):
        known = words[before + 1 : after]
        total += arpa_models.log_prob(grams, known, begin=False, end=False)
    return total + arpa_models.log_prob(grams, words[last + 1 :], begin=False)


@pytest.fixture(scope="module", params=[True, False], ids=["unk", "no unk"])
def grams(request):
    return arpa_models.random_model(WORDS, 3, seed=2, unknown=request.param)


@pytest.fixture(scope="module")
def path(grams, tmp_path_factory):
    return arpa_models.write(tmp_path_factory.mktemp("arpa") / "words.arpa", grams)


@pytest.mark.parametrize(
    "separator", [x if n < 2 else more(x) for n, x in enumerate(SPELLINGS)]
)
def test_scores_are_the_textbooks(path, grams, separator):
    """Every sequence of four pieces, in every way to part words."""
    vocabulary = SPELLINGS[separator]
    model = jax_ctc.WordNGram.from_arpa(
        path, vocabulary, separator, unknown_penalty=PENALTY
    )
    size = len(vocabulary) - 1
    labels = 1 + np.stack(np.unravel_index(np.arange(size**4), (size,) * 4), axis=1)
    lengths = np.random.default_rng(0).integers(0, 5, len(labels))
    found = jax.jit(type(model).log_prob)(model, labels, lengths)
    expected = [
        expected_log_prob(grams, row[:n], vocabulary, separator)
        for row, n in zip(labels, lengths, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("known_words_only", [False, True])
def test_search_with_words_is_exact(path, grams, known_words_only):
    """The beam holds everything; what can become no word may be left out."""
    vocabulary = SPELLINGS[" "]
    logits = 2 * np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)
    model = jax_ctc.WordNGram.from_arpa(
        path,
        vocabulary,
        unknown_penalty=PENALTY,
        known_words_only=known_words_only,
    )
    found = read(
        jax_ctc.beam_search_decode(
            logits,
            beam_width=200,
            num_hypotheses=200,
            language_model=model,
            lm_weight=0.8,
            rerank=True,
        )
    )

    def may_be_said(labels):
        words, _ = words_of(labels, vocabulary, " ")
        text = "".join(vocabulary[k] for k in labels)
        *whole, last = text.split(" ")
        is_known = all(word in WORDS for word in whole if word)
        return is_known and any(w.startswith(last) for w in WORDS) and len(words) >= 0

    expected = {
        labels: p + 0.8 * expected_log_prob(grams, labels, vocabulary, " ")
        for labels, p in labellings(log_softmax(logits)).items()
        if not known_words_only or may_be_said(labels)
    }
    assert {labels for labels, *_ in found} == set(expected)
    for labels, _, score in found:
        assert abs(score - expected[labels]) < 2e-5


def test_saved_and_loaded(path, tmp_path):
    model = jax_ctc.WordNGram.from_arpa(path, SPELLINGS["▁"], "▁")
    model.save(tmp_path / "words.npz")
    loaded = jax_ctc.WordNGram.load(tmp_path / "words.npz")
    assert jax.tree.structure(loaded) == jax.tree.structure(model)
    jax.tree.map(np.testing.assert_array_equal, loaded, model)


def test_mistakes(path):
    with pytest.raises(ValueError, match="can be spelt in the classes.*same case"):
        jax_ctc.WordNGram.from_arpa(path, ["", "A", "B", " "])
    with pytest.raises(ValueError, match="`separator` must be the text that parts"):
        jax_ctc.WordNGram.from_arpa(path, SPELLINGS[" "], "")
    model = jax_ctc.WordNGram.from_arpa(path, SPELLINGS[" "])
    with pytest.raises(ValueError, match=r"`language_model` is for the V=5 classes"):
        jax_ctc.beam_search_decode(jnp.zeros((3, 4)), language_model=model)
