"""n-gram models: the textbook's scores, kenlm's scores, and files that are none."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from tests.decoding import arpa_models
from tests.decoding.enumerated import labellings, read
from tests.oracle import log_softmax

VOCABULARY = ["<blank>", "a", "b", "c", "d", "ẽ"]  # the model does not know the last
LETTERS = VOCABULARY[1:5]


@pytest.fixture(scope="module")
def grams():
    return arpa_models.random_model(LETTERS, 4, seed=0)


@pytest.fixture(scope="module")
def path(grams, tmp_path_factory):
    return arpa_models.write(tmp_path_factory.mktemp("arpa") / "letters.arpa", grams)


@pytest.fixture(scope="module", params=[True, False], ids=["dense", "hashed"])
def model(path, request):
    return jax_ctc.NGram.from_arpa(path, VOCABULARY, dense=request.param)


def sentences(count=60, size=12):
    """Return label ids of all classes, padded with garbage, and lengths from 0."""
    rng = np.random.default_rng(1)
    labels = rng.integers(1, len(VOCABULARY), (count, size)).astype(np.int32)
    lengths = rng.integers(0, size + 1, count).astype(np.int32)
    labels[np.arange(size) >= lengths[:, None]] = -1
    return labels, lengths


def words_of(labels, lengths):
    return [
        [VOCABULARY[k] for k in row[:n]] for row, n in zip(labels, lengths, strict=True)
    ]


def test_scores_are_the_textbooks(grams, model):
    """Back-off, <s>, </s> and <unk>, within 1e-5 nats."""
    labels, lengths = sentences()
    found = model.log_prob(labels, lengths)
    expected = [arpa_models.log_prob(grams, w) for w in words_of(labels, lengths)]
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-5)


def test_scores_are_kenlms(path, model):
    """The model that everyone else queries."""
    kenlm = pytest.importorskip("kenlm")
    reference = kenlm.Model(str(path))
    labels, lengths = sentences()
    expected = [
        arpa_models.LN10 * reference.score(" ".join(words), bos=True, eos=True)
        for words in words_of(labels, lengths)
    ]
    np.testing.assert_allclose(
        model.log_prob(labels, lengths), expected, rtol=1e-6, atol=1e-5
    )


def test_what_a_pruned_model_has_dropped(tmp_path):
    """An n-gram whose ending is unknown, and one over words that are no class."""
    grams = {
        ("<s>",): (-99.0, -0.5),
        ("</s>",): (-1.0, 0.0),
        ("a",): (-0.7, -0.2),
        ("b",): (-0.8, -0.3),
        ("word",): (-0.9, -0.4),
        ("a", "b"): (-0.1, -0.6),
        ("word", "b"): (-0.2, -0.1),
        ("a", "b", "a"): (-0.3, 0.0),  # although "b a" is unknown
        ("word", "b", "a"): (-0.35, 0.0),
    }
    path = arpa_models.write(tmp_path / "pruned.arpa", grams)
    for dense in (True, False):
        model = jax_ctc.NGram.from_arpa(path, ["", "a", "b"], dense=dense)
        for words in ("", "a", "abab", "bbab", "aaba"):
            found = model.log_prob(jnp.array([" ab".index(w) for w in words], int))
            expected = arpa_models.log_prob(grams, list(words))
            assert abs(found - expected) < 1e-5, words


def test_zipped_saved_and_loaded(path, model, tmp_path):
    """The same scores, bit by bit, from .gz and from .npz."""
    zipped = tmp_path / "letters.arpa.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    is_dense = type(model.table).__name__ == "Dense"
    again = jax_ctc.NGram.from_arpa(zipped, VOCABULARY, dense=is_dense)
    again.save(tmp_path / "model.npz")
    loaded = jax_ctc.NGram.load(tmp_path / "model.npz")
    assert jax.tree.structure(loaded) == jax.tree.structure(model)
    jax.tree.map(np.testing.assert_array_equal, loaded, model)
    with pytest.raises(ValueError, match="holds a NGram, not a Hotwords"):
        jax_ctc.Hotwords.load(tmp_path / "model.npz")
    (tmp_path / "other.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"is no file that `NGram\.save` wrote"):
        jax_ctc.NGram.load(tmp_path / "other.npz")


def test_vocabularies_are_lists_strings_or_mappings(path):
    """The blank's text is not looked at; it may be any class."""
    labels = np.array([[1, 2, 3], [4, 4, 1]])
    expected = jax_ctc.NGram.from_arpa(path, VOCABULARY).log_prob(labels)
    for vocabulary, blank in (
        ("?abcd", 0),
        (dict(enumerate("?abcd")), 0),
        ("abcd?", 4),
    ):
        model = jax_ctc.NGram.from_arpa(path, vocabulary, blank_id=blank)
        shifted = labels - (1 if blank else 0)
        np.testing.assert_array_equal(model.log_prob(shifted), expected)


def test_unknown_classes_are_named_where_there_is_no_unknown(tmp_path):
    """A class that nothing is known of is a mistake: upper case, most often."""
    grams = arpa_models.random_model(LETTERS, 2, seed=1, unknown=False)
    path = arpa_models.write(tmp_path / "letters.arpa", grams)
    with pytest.raises(ValueError, match="has no <unk>, and 2 classes .*: 'A', 'B'"):
        jax_ctc.NGram.from_arpa(path, ["", "A", "B", "a"])
    model = jax_ctc.NGram.from_arpa(path, ["", "b", "a"])
    expected = arpa_models.log_prob(grams, ["b", "a"])
    np.testing.assert_allclose(model.log_prob(jnp.array([1, 2])), expected, rtol=1e-6)


GOOD = """\\data\\
ngram 1=3
ngram 2=1

\\1-grams:
-1.0 <s> -0.5
-0.5 a -0.2
-0.7 </s>

\\2-grams:
-0.1 <s> a

\\end\\
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GOOD, "", "line 1: it should begin with"),
        ("\\data\\", "{}", "line 1: it should begin with"),
        ("ngram 1=3\nngram 2=1\n", "", r"line 3: the header should say how many"),
        ("ngram 1=3\n", "", r"line 2: 'ngram 1=' should come before 'ngram 2=1'"),
        ("\\1-grams:", "\\3-grams:", r"line 5: the section \\1-grams: should begin"),
        ("-0.5 a -0.2", "-0.5 a -0.2 b c", "line 7: a 1-gram is a number, 1 words"),
        ("-0.5 a", "x a", "line 7: 'x' is no finite number"),
        ("-0.5 a", "nan a", "line 7: 'nan' is no finite number"),
        ("a -0.2", "a y", "line 7: 'y' is no finite number"),
        ("-0.5 a", "0.5 a", "line 7: log10 p is at most 0; got 0.5"),
        ("-0.5 a -0.2", "-0.5 </s>", "line 8: '</s>' occurs twice"),
        ("-0.7 </s>\n", "", r"line 9: 2 1-grams end here, but the header says 3"),
        ("\n\\end\\\n", "", r"line 11: \\end\\ is missing: the file is cut off"),
        ("-0.1 <s> a\n\n\\end\\\n", "", "line 10: 0 2-grams end here"),
    ],
)
def test_what_is_no_arpa_file(tmp_path, old, new, message):
    """The number of the line, and what is wrong with it."""
    assert old in GOOD
    path = tmp_path / "bad.arpa"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=message):
        jax_ctc.NGram.from_arpa(path, ["", "a"])
    path.write_text(GOOD)
    jax_ctc.NGram.from_arpa(path, ["", "a"])


def test_truncated_gzip_and_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "cut.arpa.gz"
    path.write_bytes(gzip.compress(GOOD.encode())[:-12])
    with pytest.raises(ValueError, match=r"line \d+: the file cannot be read on"):
        jax_ctc.NGram.from_arpa(path, ["", "a"])
    path = tmp_path / "binary.arpa"
    path.write_bytes(GOOD.encode() + b"\xff\xfe")
    with pytest.raises(ValueError, match="cannot be read on"):
        jax_ctc.NGram.from_arpa(path, ["", "a"])
    with pytest.raises(OSError, match="nowhere"):
        jax_ctc.NGram.from_arpa(tmp_path / "nowhere.arpa", ["", "a"])


def test_mistakes(path):
    with pytest.raises(TypeError, match="got 3 for class 1"):
        jax_ctc.NGram.from_arpa(path, ["", 3])
    with pytest.raises(ValueError, match="1 is missing"):
        jax_ctc.NGram.from_arpa(path, {0: "", 2: "a"})
    with pytest.raises(ValueError, match="`blank_id` must be one"):
        jax_ctc.NGram.from_arpa(path, ["", "a"], blank_id=2)
    with pytest.raises(ValueError, match="at least one class besides the blank"):
        jax_ctc.NGram.from_arpa(
            path,
            [
                "",
            ],
        )
    model = jax_ctc.NGram.from_arpa(path, VOCABULARY)
    with pytest.raises(ValueError, match=r"for the V=6 classes .* have V=5"):
        jax_ctc.beam_search_decode(jnp.zeros((3, 5)), language_model=model)


def test_search_with_a_model_is_exact(grams, model):
    """The beam holds everything: log p + weight * log p_lm + bonus * labels."""
    logits = 2 * np.random.default_rng(3).normal(size=(2, 3, 6)).astype(np.float32)
    lengths = np.array([3, 2], np.int32)
    weight, bonus = 0.7, 0.9
    rerank = type(model.table).__name__ == "Dense"

    @jax.jit
    def decode(model, weight, bonus):
        return jax_ctc.beam_search_decode(
            logits,
            lengths,
            beam_width=120,
            num_hypotheses=120,
            language_model=model,
            lm_weight=weight,
            label_bonus=bonus,
            rerank=rerank,
        )

    found = decode(model, weight, bonus)
    for index in range(2):
        expected = {
            labels: (p, p + weight * lm + bonus * len(labels))
            for labels, p in labellings(
                log_softmax(logits[index, : lengths[index]])
            ).items()
            for lm in [arpa_models.log_prob(grams, [VOCABULARY[k] for k in labels])]
        }
        rows = read(found, index)
        ranking = sorted(expected, key=lambda labels: -expected[labels][1])
        assert len(rows) == len(expected)
        assert len({labels for labels, *_ in rows}) == len(rows)
        for (labels, log_prob, score), best in zip(rows, ranking, strict=False):
            assert abs(log_prob - expected[labels][0]) < 1e-5
            assert abs(score - expected[labels][1]) < 1e-5
            assert abs(score - expected[best][1]) < 1e-5  # in order
    before = decode._cache_size()
    decode(model, 0.1, 2.0)
    assert decode._cache_size() == before  # a sweep over weights compiles once


@pytest.mark.parametrize("model", [True], ids=["dense"], indirect=True)
def test_a_weight_of_zero_is_no_model(model):
    """Even where the model holds something impossible."""
    logits = 2 * np.random.default_rng(4).normal(size=(3, 12, 6)).astype(np.float32)
    found = jax_ctc.beam_search_decode(logits, language_model=model, lm_weight=0.0)
    plain = jax_ctc.beam_search_decode(logits)
    jax.tree.map(np.testing.assert_array_equal, found, plain)


@pytest.mark.parametrize("model", [True], ids=["dense"], indirect=True)
def test_pruning_with_a_model(model):
    """Four times the lossless hyperbola: the same first hypotheses as without any."""
    from jax_ctc._decoding import options

    logits = 2 * np.random.default_rng(5).normal(size=(32, 30, 6)).astype(np.float32)
    found = [
        jax.jit(
            lambda model: jax_ctc.beam_search_decode(
                logits, beam_width=4, language_model=model, lm_weight=1.0
            )
        )(model)
    ]
    assert options.GUIDED_SLACK == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "GUIDED_SLACK", None)
        found.append(
            jax.jit(
                lambda model: jax_ctc.beam_search_decode(
                    logits, beam_width=4, language_model=model, lm_weight=1.0
                )
            )(model)
        )
    np.testing.assert_array_equal(found[0].labels, found[1].labels)
