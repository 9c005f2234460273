"""Counts of errors: those that jiwer finds, and that add up."""

import jax
import jax.numpy as jnp
import jiwer
import numpy as np
import pytest

import jax_ctc
from jax_ctc import Status


def random_pairs(count=1000, size=12):
    """Return labels read and said, many alike; padded with garbage."""
    rng = np.random.default_rng(0)
    said = rng.integers(1, 4, (count, size))
    read = np.where(
        rng.random((count, size)) < 0.7, said, rng.integers(1, 4, said.shape)
    )
    shift = rng.integers(-2, 3, count)
    read = np.stack([np.roll(row, n) for row, n in zip(read, shift, strict=True)])
    lengths = rng.integers(0, size + 1, count)
    reference_lengths = rng.integers(1, size + 1, count)  # jiwer wants words
    return read, lengths, said, reference_lengths


def counts_of(found):
    return np.stack(
        [found.substitutions, found.insertions, found.deletions, found.total], axis=-1
    )


def by_jiwer(read, said):
    """Return its counts of two lists of words."""
    found = jiwer.process_words(" ".join(said), " ".join(read))
    return (found.substitutions, found.insertions, found.deletions, len(said))


def test_the_counts_are_jiwers():
    """1,000 random pairs; which edits they are, too."""
    read, lengths, said, reference_lengths = random_pairs()
    found = jax_ctc.label_errors(read, lengths, said, reference_lengths)
    expected = [
        by_jiwer(map(str, a[:n]), list(map(str, b[:m])))
        for a, n, b, m in zip(read, lengths, said, reference_lengths, strict=True)
    ]
    np.testing.assert_array_equal(counts_of(found), expected)
    assert not found.status.any()
    errors = np.array(expected)[:, :3].sum()
    np.testing.assert_allclose(found.rate, errors / reference_lengths.sum(), rtol=1e-6)


def test_words_are_what_lies_between_separators():
    """Class 3 parts words; two in a row, or at an end, part no empty ones."""
    read, lengths, said, reference_lengths = random_pairs()
    found = jax_ctc.label_errors(read, lengths, said, reference_lengths, separator_id=3)

    def words(labels):
        return "".join(" abc"[k] if k < 3 else " " for k in labels).split()

    rows = [
        (words(a[:n]), words(b[:m]))
        for a, n, b, m in zip(read, lengths, said, reference_lengths, strict=True)
    ]
    has_words = np.array([len(b) > 0 for _, b in rows])
    expected = [by_jiwer(a, b) for a, b in rows if b]
    np.testing.assert_array_equal(counts_of(found)[has_words], expected)
    of_nothing = [(0, len(a), 0, 0) for a, b in rows if not b]
    np.testing.assert_array_equal(counts_of(found)[~has_words], of_nothing)


def test_any_leading_axes_and_lengths():
    """Rates add up over batches; whole rows where no lengths are given."""
    read, _, said, _ = random_pairs(24, 7)
    flat = jax_ctc.label_errors(read, None, said[:, :5])
    shaped = jax_ctc.label_errors(
        read.reshape(2, 3, 4, 7), None, said[:, :5].reshape(2, 3, 4, 5), None
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a.reshape(-1), b), shaped, flat
    )
    single = jax_ctc.label_errors(read[0], None, said[0, :5])
    assert single.total.shape == ()
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[0]), single, flat)
    mapped = jax.vmap(lambda a, b: jax_ctc.label_errors(a, None, b))(read, said[:, :5])
    jax.tree.map(np.testing.assert_array_equal, mapped, flat)


@pytest.mark.parametrize(
    ("read", "said", "expected"),
    [
        ([], [], (0, 0, 0, 0)),
        ([1, 2], [], (0, 2, 0, 0)),
        ([], [1, 2, 3], (0, 0, 3, 3)),
        ([5], [5], (0, 0, 0, 1)),
    ],
)
def test_nothing_read_or_said(read, said, expected):
    found = jax_ctc.label_errors(np.array(read, int), None, np.array(said, int))
    assert tuple(counts_of(found)) == expected


def test_bad_lengths_are_flagged():
    """Their counts are 0; the neighbours keep theirs."""
    found = jax_ctc.label_errors(
        np.ones((4, 3), int), [3, 4, 3, -1], np.full((4, 2), 2), [2, 2, 3, 2]
    )
    bad = int(Status.BAD_LENGTH)
    assert found.status.tolist() == [0, bad, bad, bad]
    assert counts_of(found).tolist() == [[2, 1, 0, 2], *3 * [[0, 0, 0, 0]]]


def test_padding_is_not_looked_at():
    """Whatever is past the lengths, -1 or the separator."""
    read, lengths, said, reference_lengths = random_pairs(50)
    expected = jax_ctc.label_errors(
        read, lengths, said, reference_lengths, separator_id=3
    )
    for garbage in (-1, 3, 2**31 - 1):
        read[np.arange(12) >= lengths[:, None]] = garbage
        said[np.arange(12) >= reference_lengths[:, None]] = garbage
        found = jax_ctc.label_errors(
            read, lengths, said, reference_lengths, separator_id=3
        )
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            ([1.0], None, [1]),
            {},
            TypeError,
            r"`labels` must be .* class ids, an integer dtype",
        ),
        (
            ([1], None, [1.0]),
            {},
            TypeError,
            r"`references` must be .* an integer dtype",
        ),
        (([[1]], None, [1]), {}, ValueError, "the same leading axes"),
        (
            ([1], [1, 2], [1]),
            {},
            ValueError,
            "`lengths` must be .* one integer per utterance",
        ),
        (
            ([1], 1, [1], [1]),
            {},
            ValueError,
            "`reference_lengths` must be .* one integer per",
        ),
        (([1], None, [1]), {"separator_id": "a"}, TypeError, "`separator_id` must be"),
        (([1], None, [1]), {"separator_id": -1}, ValueError, "`separator_id` must be"),
    ],
)
def test_mistakes(arguments, options, error, message):
    with pytest.raises(error, match=message):
        jax_ctc.label_errors(*arguments, **options)


def test_inside_a_compiled_step():
    """Summed over steps on the device, the rate is that of all of them."""
    read, lengths, said, reference_lengths = (jnp.asarray(x) for x in random_pairs(60))

    @jax.jit
    def step(total, batch):
        counts = jax_ctc.label_errors(*batch)
        return jax.tree.map(lambda a, b: a + b.sum(), total, counts), None

    zero = jax_ctc.EditCounts(*5 * (jnp.int32(0),))
    batches = jax.tree.map(
        lambda x: x.reshape(4, 15, *x.shape[1:]),
        (read, lengths, said, reference_lengths),
    )
    total, _ = jax.lax.scan(step, zero, batches)
    whole = jax_ctc.label_errors(read, lengths, said, reference_lengths)
    assert float(total.rate) == float(whole.rate)
    assert int(total.errors) == int(whole.errors.sum())
