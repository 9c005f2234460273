"""Sentences about playing cards, and waveforms that say them, made on the spot.

Three kinds, and whoever reads a result is told which it is of:

* espeak-ng speaks, where that program is installed (Debian's package espeak-ng);
* else every letter is a chord of two tones: no speech at all, but a waveform from
  which letters can be read, and which nothing has to be installed for;
* recordings of people, of five such sentences, where Debian's package
  pocketsphinx-testdata is installed. They are only ever examined, never trained on.
"""

import concurrent.futures
import io
import shutil
import subprocess
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import scipy.signal

RATE = 16_000  # samples per second
LETTERS = "- abcdefghijklmnopqrstuvwxyz"  # class 0 is the blank, 1 the space
SPACE_ID = 1
PROGRAM = "espeak-ng"
RECORDINGS = Path("/usr/share/pocketsphinx/test/data/cards")

Kind = Literal["espeak", "tones"]
DESCRIPTIONS: dict[Kind, str] = {
    "espeak": "synthetic speech by espeak-ng",
    "tones": "tones, a chord per letter; no speech, for espeak-ng is not used",
}

RANKS = (
    *("ace", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("jack", "queen", "king"),
)
SUITS = "clubs", "diamonds", "hearts", "spades"
MOST_CARDS = 3

TRAINING_VOICES = "m1", "m2", "m3", "m4", "m5", "m6", "f1", "f2", "f3", "klatt"
HELD_OUT_VOICES = "m7", "f4"
ACCENTS = "en", "en-us"
WORDS_PER_MINUTE = 120, 185
PITCHES = 25, 75  # espeak-ng's scale, 0 to 99

CHORD_SECONDS = 0.06, 0.1
GAP_SECONDS, SPACE_SECONDS = 0.02, 0.1
LOW_TONES = 350.0 * 1.2 ** np.arange(6)  # Hz
HIGH_TONES = 1_400.0 * 1.2 ** np.arange(5)


class Spoken(NamedTuple):
    """N utterances: their waveforms, [samples] float32 in [-1, 1], and their texts."""

    waves: list[np.ndarray]
    texts: list[str]


def kind_here() -> Kind:
    """Returns the better kind that this machine can make."""
    return "espeak" if shutil.which(PROGRAM) else "tones"


def draw_sentences(rng: np.random.Generator, count: int) -> list[str]:
    """Draws what people say of cards: "seven of clubs", "four queen of hearts"."""

    def card() -> str:
        rank = RANKS[rng.integers(len(RANKS))]
        suit = SUITS[rng.integers(len(SUITS))]
        return rank if rng.random() < 0.25 else f"{rank} of {suit}"

    return [
        " ".join(card() for _ in range(rng.integers(1, MOST_CARDS + 1)))
        for _ in range(count)
    ]


def say(
    kind: Kind, rng: np.random.Generator, texts: Sequence[str], *, held_out: bool
) -> Spoken:
    """Says each text, in one of the voices to train on or of those held out."""
    if kind == "tones":
        return Spoken([_play(rng, text) for text in texts], list(texts))
    voices = HELD_OUT_VOICES if held_out else TRAINING_VOICES
    commands = [
        [
            *(PROGRAM, "--stdout"),
            *("-v", f"{rng.choice(ACCENTS)}+{rng.choice(voices)}"),
            *("-s", str(rng.integers(*WORDS_PER_MINUTE))),
            *("-p", str(rng.integers(*PITCHES))),
            text,
        ]
        for text in texts
    ]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return Spoken(list(pool.map(_speak, commands)), list(texts))


def recordings(folder: Path = RECORDINGS) -> Spoken:
    """Returns the recordings of people, none where they are not installed."""
    found = Spoken([], [])
    transcripts = folder / "cards.transcription"
    lines = transcripts.read_text().splitlines() if transcripts.exists() else []
    for line in lines:  # <s> ten of clubs  </s> (001)
        *words, name = line.split()
        found.waves.append(_read((folder / f"{name.strip('()')}.wav").read_bytes()))
        found.texts.append(" ".join(words[1:-1]))
    return found


def _speak(command: Sequence[str]) -> np.ndarray:
    return _read(subprocess.run(command, check=True, capture_output=True).stdout)


def _read(data: bytes) -> np.ndarray:
    """Decodes 16-bit mono WAV. A header that was streamed does not know the length."""
    with wave.open(io.BytesIO(data)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(len(data)), "<i2")
    samples = samples.astype(np.float32) / 2**15
    if rate == RATE:
        return samples
    step = np.gcd(RATE, rate)
    return scipy.signal.resample_poly(samples, RATE // step, rate // step)


def _play(rng: np.random.Generator, text: str) -> np.ndarray:
    """Plays a chord for each letter, and rests for each space."""
    pitch = rng.uniform(0.97, 1.03)  # the singer's
    pieces = [_rest(SPACE_SECONDS)]
    for letter in text:
        if letter == " ":
            pieces.append(_rest(SPACE_SECONDS))
            continue
        number = ord(letter) - ord("a")
        tones = LOW_TONES[number % 6], HIGH_TONES[number // 6]
        times = np.arange(int(rng.uniform(*CHORD_SECONDS) * RATE)) / RATE
        chord = sum(np.sin(2 * np.pi * pitch * tone * times) for tone in tones)
        pieces += [0.2 * chord * np.hanning(len(times)), _rest(GAP_SECONDS)]
    return np.concatenate(pieces).astype(np.float32)


def _rest(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE))
