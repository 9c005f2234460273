"""minimum_frames and lengths_from_paddings, on the host and on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc

pytestmark = pytest.mark.fast

NEVER = 2**31 - 1


@pytest.mark.parametrize(
    ("labels", "lengths", "expected"),
    [
        ([[1, 2, 3], [1, 1, 1], [2, 2, 1]], None, [3, 5, 4]),
        ([[1, 1, 1], [1, 1, 1], [1, 1, 1]], [0, 1, 2], [0, 1, 3]),
        ([[1, 1], [1, 1]], [3, -1], [NEVER, NEVER]),
        ([1, 1, 2], None, 4),
        (np.zeros((2, 0), np.int32), None, [0, 0]),
        (np.zeros((0, 3), np.int32), None, []),
        ([[[1, 1]], [[1, 2]]], None, [[3], [2]]),
    ],
)
def test_minimum_frames(labels, lengths, expected):
    """Labels plus adjacent repeats; nothing is enough for a bad length."""
    labels = np.asarray(labels, np.int32)
    lengths = None if lengths is None else np.asarray(lengths, np.int32)
    host = jax_ctc.minimum_frames(labels, lengths)
    assert type(host) in (np.ndarray, np.int32)
    np.testing.assert_array_equal(host, expected)
    assert host.dtype == np.int32
    device = jax_ctc.minimum_frames(
        jnp.asarray(labels), None if lengths is None else jnp.asarray(lengths)
    )
    assert isinstance(device, jax.Array)
    np.testing.assert_array_equal(device, expected)
    traced = jax.jit(jax_ctc.minimum_frames)(labels, lengths)
    np.testing.assert_array_equal(traced, expected)


@pytest.mark.parametrize("xp", [np, jnp])
@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
def test_lengths_of_any_integers_are_counted(xp, dtype, x64):
    """As many equal labels as the type can say, or 30,000, need twice the frames."""
    count = min(np.iinfo(dtype).max, 30_000)
    labels = xp.ones((1, count), dtype)
    for lengths in (None, xp.asarray([count], dtype), [count]):
        frames = jax_ctc.minimum_frames(labels, lengths)
        assert frames.tolist() == [2 * count - 1]
        assert frames.dtype == np.int32
    traced = jax.jit(jax_ctc.minimum_frames)(labels, xp.asarray([count], dtype))
    assert traced.tolist() == [2 * count - 1]


@pytest.mark.parametrize("xp", [np, jnp])
def test_a_length_that_no_small_type_can_check(xp):
    """255 of uint8 beside more labels than that, and beside fewer."""
    lengths = xp.asarray([255], np.uint8)
    for count, frames in ((300, 509), (200, NEVER)):
        labels = xp.ones((1, count), np.int32)
        assert jax_ctc.minimum_frames(labels, lengths).tolist() == [frames]


def test_a_filter_by_small_lengths_passes_what_can_be_scored():
    labels, lengths = np.ones((1, 200), np.int32), np.array([200], np.uint8)
    for frames in (398, 399):
        is_kept = np.array([frames]) >= jax_ctc.minimum_frames(labels, lengths)
        status = jax_ctc.check_batch(
            np.zeros((1, 399, 4), np.float32), labels, [frames], lengths
        )
        assert is_kept.tolist() == (status == 0).tolist() == [frames == 399]


def test_minimum_frames_is_the_boundary():
    """Exactly that many frames are feasible, one fewer is not."""
    labels = np.array([[1, 1, 2], [1, 2, 3], [2, 2, 2]], np.int32)
    frames = jax_ctc.minimum_frames(labels)
    logits = np.zeros((3, 6, 4), np.float32)
    assert jax_ctc.check_batch(logits, labels, frames).tolist() == [0, 0, 0]
    assert jax_ctc.check_batch(logits, labels, frames - 1).tolist() == [1, 1, 1]


def test_host_helpers_stay_on_the_host(monkeypatch):
    """NumPy in a data pipeline never becomes a JAX array, not even on the way."""

    def refuse(*_, **__):
        raise AssertionError("a JAX array was made")

    for name in ("asarray", "array", "where"):
        monkeypatch.setattr(jnp, name, refuse)
    monkeypatch.setattr(jax, "device_put", refuse)
    assert jax_ctc.minimum_frames(np.array([[1, 1]])).tolist() == [3]
    assert jax_ctc.minimum_frames([[1, 2]], [1]).tolist() == [1]
    assert jax_ctc.lengths_from_paddings([[0.0, 1.0]]).tolist() == [1]


@pytest.mark.parametrize("dtype", [np.float32, np.int32, bool])
@pytest.mark.parametrize("xp", [np, jnp])
def test_lengths_from_paddings(dtype, xp):
    """1 is padding; only padding on the right has a length."""
    paddings = xp.asarray(
        np.array(
            [[0, 0, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0], [0, 1, 0]],
        ).astype(dtype)
    )
    lengths = jax_ctc.lengths_from_paddings(paddings)
    assert isinstance(lengths, xp.ndarray)
    assert lengths.dtype == np.int32
    assert lengths.tolist() == [3, 2, 0, -1, -1]


def test_paddings_that_are_no_paddings():
    """Fractions and NaN have no length; the loss then reports BAD_LENGTH."""
    lengths = jax_ctc.lengths_from_paddings(np.array([[0, 0.5], [0, np.nan], [0, 2]]))
    assert lengths.tolist() == [-1, -1, -1]
    status = jax_ctc.check_batch(np.zeros((3, 2, 2), np.float32), [[1]] * 3, lengths)
    assert status.tolist() == [jax_ctc.Status.BAD_LENGTH] * 3
    with pytest.raises(ValueError, match="`paddings` must be"):
        jax_ctc.lengths_from_paddings(np.float32(0))
