"""Waveforms to log-mel features, padded into arrays; and their augmentation.

B utterances, S frames of 10 ms, MELS bands.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from examples.speech.sounds import LETTERS, RATE, Spoken

MELS = 40
WINDOW, HOP = RATE * 25 // 1_000, RATE // 100  # samples: 25 ms every 10 ms
FFT = 512
LOWEST, HIGHEST = 60.0, 7_600.0  # Hz
SNR = 10.0, 40.0  # dB, of the noise that is added before features are taken
MASKS, WIDEST_BAND, LONGEST_MASK = 2, 6, 8  # of SpecAugment: bands, frames
TILT = 0.3  # standard deviation of a random equaliser, in those of the features


class Batch(NamedTuple):
    """Utterances, padded on the right.

    Attributes:
        features: [B, S, MELS] float32, each band of mean 0 and variance 1.
        frames: [B] int32, true frames of each.
        labels: [B, U] int32, letters as classes, padded with −1.
        lengths: [B] int32, letters of each.
    """

    features: Any
    frames: Any
    labels: Any
    lengths: Any

    def rows(self, index: np.ndarray | slice) -> "Batch":
        """Returns some of the utterances."""
        return Batch(*(field[index] for field in self))


def as_batch(
    rng: np.random.Generator,
    spoken: Spoken,
    num_frames: int | None = None,
    *,
    noisy: bool = True,
) -> Batch:
    """Takes features of waveforms, with noise or as they are.

    Args:
        rng: of the noise.
        spoken: N utterances.
        num_frames: S; longer utterances are an error. Default: the longest one's.
        noisy: whether noise is added; recordings have their own.
    """
    rows = [log_mel(_noisy(rng, wave) if noisy else wave) for wave in spoken.waves]
    ids = [[LETTERS.index(letter) for letter in text] for text in spoken.texts]
    features = _padded(rows, 0.0, num_frames)
    return Batch(
        features.astype(np.float32),
        np.array([len(row) for row in rows], np.int32),
        _padded([np.array(row) for row in ids], -1).astype(np.int32),
        np.array([len(row) for row in ids], np.int32),
    )


def log_mel(wave: np.ndarray) -> np.ndarray:
    """Returns [S, MELS]: log energies in bands, each of mean 0 and variance 1."""
    wave = np.pad(wave, (0, max(0, WINDOW - len(wave))))
    windows = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(windows * np.hanning(WINDOW), FFT)) ** 2  # [S, FFT/2+1]
    energy = np.log(power @ _mel_filters() + 1e-6)
    return (energy - energy.mean(0)) / (energy.std(0) + 1e-3)


def augment(key: jax.Array, features: jax.Array, frames: jax.Array) -> jax.Array:
    """SpecAugment and a random equaliser, inside the compiled step: [B, S, MELS].

    References:
        D. S. Park et al., "SpecAugment", Interspeech 2019,
        https://arxiv.org/abs/1904.08779
    """
    count = len(features)
    key, tilt_key = jax.random.split(key)
    coarse = TILT * jax.random.normal(tilt_key, (count, 1, 5))
    features = features + jax.image.resize(coarse, (count, 1, MELS), "linear")
    for _ in range(MASKS):
        key, band_key, time_key = jax.random.split(key, 3)
        bands = _mask(band_key, jnp.full(count, MELS), MELS, WIDEST_BAND)
        times = _mask(time_key, frames, features.shape[1], LONGEST_MASK)
        features = jnp.where(bands[:, None, :] | times[:, :, None], 0, features)
    return features


def _mask(key: jax.Array, sizes: jax.Array, size: int, widest: int) -> jax.Array:
    """Returns [B, size] bool: in each row a span of up to `widest` of the first few."""
    start_key, width_key = jax.random.split(key)
    start = jax.random.uniform(start_key, sizes.shape) * sizes.astype(jnp.float32)
    width = jax.random.uniform(width_key, sizes.shape, maxval=widest + 1)
    places = jnp.arange(size, dtype=jnp.float32)[None]
    return (places >= start[:, None]) & (places < (start + width)[:, None])


def _noisy(rng: np.random.Generator, wave: np.ndarray) -> np.ndarray:
    """Adds white noise, so many decibels below the utterance."""
    level = np.sqrt(np.mean(wave**2)) * 10 ** (-rng.uniform(*SNR) / 20)
    return wave + level * rng.standard_normal(len(wave), np.float32)


def _mel_filters() -> np.ndarray:
    """Returns [FFT/2+1, MELS]: triangles, evenly spaced on the mel scale."""
    low, high = 2_595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)
    edges = np.linspace(low, high, MELS + 2)
    hertz = 700 * (10 ** (edges / 2_595) - 1)
    bins = np.arange(FFT // 2 + 1)[:, None] * RATE / FFT
    rising = (bins - hertz[:-2]) / (hertz[1:-1] - hertz[:-2])
    falling = (hertz[2:] - bins) / (hertz[2:] - hertz[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


def _padded(
    rows: Sequence[np.ndarray], filler: float, length: int | None = None
) -> np.ndarray:
    """Stacks rows [L_i, ...] into [N, length, ...]."""
    length = max(map(len, rows)) if length is None else length
    if any(len(row) > length for row in rows):
        raise ValueError(f"an utterance has more than {length} frames")
    padded = np.full((len(rows), length, *rows[0].shape[1:]), filler)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded
