"""The speech example: its sounds, its accumulated and resumed training, its front."""

import dataclasses
import re
import shutil
import wave

import jax
import numpy as np
import pytest
from flax import nnx

from examples.sharded.checkpoints import read_log
from examples.speech import demo, features, model, sounds, train, words
from tests.examples.test_examples import finish, start

# Flax, Orbax and Optax under strict JAX are their own business.
pytestmark = [pytest.mark.relaxed, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def batch():
    """Four utterances in tones."""
    rng = np.random.default_rng(0)
    texts = ["ten", "two of clubs", "three of hearts", "ace"]
    return features.as_batch(rng, sounds.say("tones", rng, texts, held_out=False))


def test_features(batch):
    """Each band is normalised within the utterance, and 0 behind it; so are labels."""
    count, num_frames, _ = batch.features.shape
    assert (count, num_frames) == (4, batch.frames.max())
    for row, frames, labels, length in zip(*batch, strict=True):
        np.testing.assert_allclose(row[:frames].mean(0), 0, atol=1e-4)
        assert (row[frames:] == 0).all()
        assert (labels[:length] > 0).all()
        assert (labels[length:] == -1).all()
    assert "".join(sounds.LETTERS[i] for i in batch.labels[1, :12]) == "two of clubs"


def test_augmentation_masks_within_the_utterance(batch):
    """Bands and times are cut out, and the key decides which."""
    inputs = batch.features, batch.frames
    one, other = (features.augment(jax.random.key(seed), *inputs) for seed in (0, 1))
    inside = np.arange(batch.features.shape[1]) < batch.frames[:, None]
    share = (np.asarray(one)[inside] == 0).mean()
    assert 0.02 < share < 0.6
    assert (np.asarray(one) != np.asarray(other)).any()


def test_letters_are_told_apart_by_their_tones():
    """No two letters share both tones, and each chord has the two it should have."""
    chords = {(n % 6, n // 6) for n in range(26)}
    assert len(chords) == 26
    sound = sounds._play(np.random.default_rng(0), "k" * 9)
    spectrum = np.abs(np.fft.rfft(sound))
    loudest = np.fft.rfftfreq(len(sound), 1 / sounds.RATE)[
        spectrum > spectrum.max() / 2
    ]
    for tone in (sounds.LOW_TONES[10 % 6], sounds.HIGH_TONES[10 // 6]):
        assert (abs(loudest / tone - 1) < 0.04).any()


def test_recordings_are_read_where_they_are(tmp_path):
    """Transcripts without their marks, at the rate of the features; else none."""
    assert sounds.recordings(tmp_path).texts == []
    (tmp_path / "cards.transcription").write_text("<s> ten of clubs  </s> (001)\n")
    with wave.open(str(tmp_path / "001.wav"), "wb") as file:
        file.setparams((1, 2, sounds.RATE // 2, 0, "NONE", ""))
        file.writeframes(np.full(800, 2**14, "<i2").tobytes())
    found = sounds.recordings(tmp_path)
    assert found.texts == ["ten of clubs"]
    assert len(found.waves[0]) == 1_600
    assert abs(np.median(found.waves[0]) - 0.5) < 0.01


@pytest.mark.skipif(not shutil.which(sounds.PROGRAM), reason="espeak-ng is missing")
def test_espeak_speaks():
    """More for a longer text."""
    rng = np.random.default_rng(0)
    short, long = sounds.say(
        "espeak", rng, ["ten", "ten of clubs four of hearts"], held_out=True
    ).waves
    assert len(short) < len(long) < 10 * sounds.RATE
    assert abs(long).max() > 0.05


def test_the_word_model_prefers_what_is_said():
    """A word that followed before is likelier than one that never did."""
    rates = words.word_model(["ten of clubs", "four of clubs"])
    log_prob = jax.jit(type(rates).log_prob)
    said, unsaid = (
        log_prob(rates, np.array([sounds.LETTERS.index(letter) for letter in text]))
        for text in ("ten of clubs", "ten clubs of")
    )
    assert float(said) > float(unsaid) + 2


@pytest.mark.slow
def test_training_accumulates_and_resumes(batch, tmp_path, monkeypatch):
    """Only a last micro-batch moves the model; a run that broke off loses no bit."""
    monkeypatch.setattr(model, "CHANNELS", 8)
    monkeypatch.setattr(model, "DILATIONS", (1,))
    monkeypatch.setattr(train, "MICRO_BATCH", 2)
    options = {"updates": 3, "seed": 0, "checkpoint_every": 2}

    reader = model.SpeechReader(rngs=nnx.Rngs(0))
    optimizer = train.make_optimizer(reader, 3)
    drawn, key = train.draw(batch, 0, 1, 0)
    moved = []
    before = reader.scores.kernel[...]
    for _ in range(train.ACCUMULATE):
        _, status, logits, frames = train.micro_step(reader, optimizer, drawn, key)
        moved.append(bool((reader.scores.kernel[...] != before).any()))
    assert moved == [False] * (train.ACCUMULATE - 1) + [True]
    assert logits.dtype == np.float32
    assert reader.first(drawn.features).dtype == jax.numpy.bfloat16
    assert (np.asarray(frames) == -(-drawn.frames // model.STRIDE)).all()
    assert not np.asarray(status).any()

    def stop():
        if progress.update == 3:
            raise KeyboardInterrupt

    whole = train.train(batch, batch, tmp_path / "a", train.Progress(), **options)
    progress = train.Progress(on_update=stop)
    with pytest.raises(KeyboardInterrupt):
        train.train(batch, batch, tmp_path / "b", progress, **options)
    progress = train.Progress()
    resumed = train.train(batch, batch, tmp_path / "b", progress, **options)
    rows = [read_log(tmp_path / name) for name in "ab"]
    assert rows[0] == rows[1]
    assert [("error_rate" in row) for row in rows[0]] == [False, True, True]
    for one, other in zip(
        *(jax.tree.leaves(nnx.state(each, nnx.Param)) for each in (whole, resumed)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_front(tmp_path, monkeypatch):
    """Options that cannot be met are one line; where a run stands is another."""
    monkeypatch.setattr(sounds.shutil, "which", lambda name: None)
    options = demo.Options(out=tmp_path)
    assert demo.find_fault(options) is None
    assert demo.settings(options)["audio"] == "tones"
    for change, message in (
        ({"audio": "espeak"}, "--audio espeak needs espeak-ng, which is not installed"),
        ({"checkpoint_every": 0}, "--checkpoint-every must be at least 1; got 0"),
    ):
        assert demo.find_fault(dataclasses.replace(options, **change)) == message
    progress = train.Progress(update=7)
    line = demo.describe_interruption(options, progress)
    assert line == "stopped after update 7 of 160; no checkpoint was saved yet"
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    line = demo.describe_interruption(options, progress)
    assert line.endswith("; the same command resumes from update 5")


@pytest.mark.exhaustive
def test_it_learns_tones_and_says_so(tmp_path):
    """Without espeak-ng: two letters of three are right after 40 updates."""
    arguments = "--audio", "tones", "--updates", 40, "--out", tmp_path
    code, out, err = finish(start("examples.speech", *arguments))
    assert code == 0, err
    assert out.startswith("audio: tones, a chord per letter; no speech")
    letters = re.findall(r"letters wrong +(\d+\.\d) %", out)
    assert len(letters) == 2
    assert float(letters[0]) < 35
    assert {path.name for path in tmp_path.glob("*.png")} == set(demo.PICTURES)
