"""Alignment of blocks: the same answer as in one piece, and designed messages."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from tests.alignments import flagged
from tests.cases import more


def make(frames, classes, labels, dtype=np.float32):
    """Return logits and labels of one recording."""
    rng = np.random.default_rng(frames + labels)
    logits = (2 * rng.normal(size=(frames, classes))).astype(dtype)
    return logits, rng.integers(1, classes, labels).astype(np.int32)


def same(blocks, labels, logits):
    """Align in blocks and in one piece; compare bit for bit, floats nearly so."""
    whole = jax_ctc.ctc_align(logits, labels)
    pieces = jax_ctc.ctc_align_chunks(blocks, labels)
    for name in ("tokens", "start", "end"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
    np.testing.assert_allclose(pieces.log_prob, whole.log_prob, rtol=1e-6)
    np.testing.assert_allclose(pieces.score, whole.score, rtol=1e-5)
    assert pieces.log_prob.dtype == whole.log_prob.dtype


@pytest.mark.parametrize("cuts", [[], [1], [480], [0, 0, 7, 481, 700]])
def test_wherever_it_is_cut(cuts):
    """One block, tiny blocks, empty blocks, exactly the size used inside."""
    logits, labels = make(1000, 7, 90)
    same(np.split(logits, cuts), labels, logits)


@pytest.mark.parametrize(
    ("frames", "labels"), [(480, 3), (960, 0), more(1, 1), more(2, 2)]
)
def test_sizes(frames, labels):
    """The last block full, no labels at all, hardly a frame."""
    logits, ids = make(frames, 7, labels)
    same(iter([logits]), ids, logits)


@pytest.mark.exhaustive
def test_dtypes(x64):
    """bfloat16 and JAX arrays as blocks; float64 stays float64."""
    logits, labels = make(50, 7, 9)
    half = jnp.asarray(logits, jnp.bfloat16)
    same([half[:20], half[20:]], labels, half)
    double, labels = make(50, 7, 9, np.float64)
    same([double[:20], double[20:]], labels, double)


def test_lists_and_double_precision_without_x64():
    """What `jit` narrows silently is narrowed here too."""
    logits, labels = make(50, 7, 9, np.float64)
    same([logits[:20], logits[20:]], labels, logits.astype(np.float32))
    jax_ctc.ctc_align_chunks([logits.tolist()], labels)


def test_flagged():
    """Known only at the end, and told as in one piece."""
    for b, (logits, labels, frames, count) in enumerate(zip(*flagged(), strict=True)):
        if b == 3:
            continue  # lengths outside the arrays cannot be said here
        blocks = [logits[:2], logits[2:frames]]
        pieces = jax_ctc.ctc_align_chunks(blocks, labels[:count])
        whole = jax_ctc.ctc_align(logits[:frames], labels[:count])
        jax.tree.map(np.testing.assert_array_equal, pieces, whole)
        assert np.isfinite(pieces.log_prob) == (b == 6)
    none = jax_ctc.ctc_align_chunks([np.zeros((0, 3), np.float32)], [])
    assert (none.tokens.shape, float(none.log_prob)) == ((0,), 0.0)


def test_blank_elsewhere():
    """The blank is any class."""
    logits, labels = make(60, 5, 8)
    labels = np.where(labels == 4, 0, labels)
    whole = jax_ctc.ctc_align(logits, labels, blank_id=4)
    pieces = jax_ctc.ctc_align_chunks([logits[:9], logits[9:]], labels, blank_id=4)
    np.testing.assert_array_equal(pieces.tokens, whole.tokens)


def test_blocks_are_read_once_and_one_at_a_time():
    """A generator is enough, and it is not run ahead."""
    logits, labels = make(2000, 5, 20)
    alive = []

    def blocks():
        for start in range(0, 2000, 100):
            alive.append(start)
            yield logits[start : start + 100]

    jax_ctc.ctc_align_chunks(blocks(), labels)
    assert alive == list(range(0, 2000, 100))


@pytest.mark.parametrize(
    ("frames", "size"), [(7, 3), (700, 481), (700, 64), (700, 480), (960, 480)]
)
def test_a_buffer_may_be_filled_anew(frames, size):
    """One for all blocks, and one for the labels, as memory maps and rings have it."""
    rng = np.random.default_rng(frames)
    logits = (3 * rng.normal(size=(frames, 5))).astype(np.float32)
    labels = rng.integers(1, 5, 3)
    buffer, ids = np.empty((size, 5), np.float32), labels.copy()

    def blocks():
        for start in range(0, frames, size):
            block = buffer[: min(size, frames - start)]
            block[:] = logits[start : start + size]
            yield block
            buffer[:] = np.nan
            ids[:] = 0

    found = jax_ctc.ctc_align_chunks(blocks(), ids)
    expected = jax_ctc.ctc_align(logits, labels)
    for name in ("tokens", "start", "end"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_max_ulp(
        np.asarray(found.log_prob), np.asarray(expected.log_prob), 2
    )


@pytest.mark.parametrize("make", [np.array, more(jnp.array)])
def test_a_block_is_let_go_before_the_next(make):
    """Not held in a generator, nor in what was last compared."""

    class Blocks:
        """Makes blocks, and looks whether the one before is still there."""

        def __init__(self):
            self.last, self.count = lambda: None, 0

        def __iter__(self):
            return self

        def __next__(self):
            gc.collect()
            assert self.last() is None
            if self.count == 4:
                raise StopIteration
            self.count += 1
            block = make(np.eye(3, dtype=np.float32)[[0, 1, 2] * self.count])
            self.last = weakref.ref(block)
            return block

    blocks = Blocks()
    gc.freeze()  # what earlier tests left takes seconds to look through
    try:
        alignment = jax_ctc.ctc_align_chunks(blocks, [1, 2])
    finally:
        gc.unfreeze()
    assert alignment.tokens.shape == (30,)
    assert blocks.count == 4


GOOD = np.zeros((4, 3), np.float32)


@pytest.mark.parametrize(
    ("chunks", "labels", "error", "message"),
    [
        ([], [1], ValueError, "`chunks` held no block"),
        (GOOD, [1], ValueError, r"`chunks` must be an iterable .* \(4, 3\)"),
        ([GOOD, GOOD[:, :2]], [1], ValueError, r"`chunks\[1\]` must have the V=3"),
        ([GOOD, GOOD[0]], [1], ValueError, r"`chunks\[1\]` must be"),
        ([GOOD[None]], [1], ValueError, r"`chunks\[0\]` must be \[t, V\]"),
        ([GOOD.astype(int)], [1], TypeError, r"`chunks\[0\]` must be floating"),
        ([GOOD, GOOD.astype(np.float16)], [1], TypeError, "dtype of the blocks before"),
        ([GOOD], [[1]], ValueError, r"`labels` must be \[U\]"),
        (None, [1], TypeError, "`chunks` must be an iterable .* got NoneType"),
        (GOOD.tolist(), [1], ValueError, r"one row of shape \(3,\).* pass \[logits\]"),
        ([GOOD], [1.5], TypeError, "`labels` must be"),
    ],
)
def test_mistakes(chunks, labels, error, message):
    """Every message names the block and what to do."""
    with pytest.raises(error, match=message):
        jax_ctc.ctc_align_chunks(chunks, labels)


def test_inside_jit_it_explains_itself():
    """Blocks are read on the host."""
    with pytest.raises(TypeError, match="call `ctc_align_chunks` outside jit"):
        jax.jit(lambda x: jax_ctc.ctc_align_chunks([x], [1]))(GOOD)
    with pytest.raises(TypeError, match="`labels` of `ctc_align_chunks`"):
        jax.jit(lambda x: jax_ctc.ctc_align_chunks([GOOD], x))(np.array([1]))


def test_blank_id():
    """Checked against the classes of the first block."""
    with pytest.raises(ValueError, match="`blank_id` must be one of the V=3"):
        jax_ctc.ctc_align_chunks([GOOD], [1], blank_id=3)


def test_float64_on_a_tpu_is_refused(monkeypatch, x64):
    """As the implementation that it uses."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(NotImplementedError, match="float64 .* pass float32 blocks"):
        jax_ctc.ctc_align_chunks([GOOD.astype(np.float64)], [1])
