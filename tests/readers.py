"""Emissions of models that learned to read: the examples' own, trained on the spot."""

import functools
import pathlib
import tempfile

import numpy as np
from flax import nnx

from examples.handwriting.lines import compose_lines, load_split
from examples.handwriting.model import LineReader
from examples.handwriting.train import make_optimizer, read_lines, train_step
from examples.speech.demo import NUM_TRAINING, Options
from examples.speech.features import as_batch
from examples.speech.sounds import draw_sentences, kind_here, say
from examples.speech.train import Progress, read, train
from tests.printed import draw_texts, print_lines

STEPS = 150  # enough to read ten digits of eleven; a few seconds
STAGES = (0, 5, 20, 40, 80, STEPS)
NUM_LINES, NUM_SENTENCES, BATCH = 384, 192, 16
NUM_PRINTED, PRINTED_UPDATES = 1_500, 320  # a minute; one letter in twenty is misread


@functools.cache
def handwriting(seed=0):
    """Return {steps: batch} of 384 held-out lines, by a line reader as it learns.

    The last of its twelve classes is one that nobody uses.
    """
    training, held_out = load_split()
    model = LineReader(rngs=nnx.Rngs(seed))
    optimizer = make_optimizer(model, STEPS)
    rng = np.random.default_rng(seed)
    lines = compose_lines(np.random.default_rng(1), held_out, NUM_LINES)
    stages = {}
    for step in range(STEPS + 1):
        if step in STAGES:
            logits = np.asarray(read_lines(model, lines))
            unused = logits.mean(2, keepdims=True) - 5
            stages[step] = {
                "logits": np.concatenate([logits, unused], axis=2),
                "labels": lines.labels,
                "logit_lengths": lines.widths,
                "label_lengths": lines.lengths,
            }
        train_step(model, optimizer, compose_lines(rng, training, 64))
    return stages


@functools.cache
def lefts():
    """Return [N, digits] where each digit of those lines begins; -1: there is none."""
    _, held_out = load_split()
    return compose_lines(np.random.default_rng(1), held_out, NUM_LINES).lefts


@functools.cache
def speech(seed=0):
    """Return a batch of 192 sentences in voices that the model was not trained on.

    It is that of `python -m examples.speech`. Nobody says z, the last of its classes.
    """
    rng = np.random.default_rng(seed)
    texts = draw_sentences(rng, NUM_TRAINING)
    training = as_batch(rng, say(kind_here(), rng, texts, held_out=False))
    rng = np.random.default_rng(seed + 1)
    known = set(texts)
    texts = [x for x in draw_sentences(rng, 9 * NUM_SENTENCES) if x not in known]
    texts = texts[:NUM_SENTENCES]
    held_out = as_batch(rng, say(kind_here(), rng, texts, held_out=True))
    return _read_by_speech_reader(training, held_out, Options.updates, seed)


@functools.cache
def printed(seed=0):
    """Return a batch of 192 printed lines of a text that the model was not trained on.

    The model is the speech example's: it takes columns of pixels for frames. Nobody
    writes z, the last of its classes.
    """
    training, held_out = (
        print_lines(rng, draw_texts(rng, count, held_out=is_held_out))
        for rng, count, is_held_out in (
            (np.random.default_rng(seed), NUM_PRINTED, False),
            (np.random.default_rng(seed + 1), NUM_SENTENCES, True),
        )
    )
    return _read_by_speech_reader(training, held_out, PRINTED_UPDATES, seed)


def _read_by_speech_reader(training, held_out, updates, seed):
    """Train the speech example's model; return what it reads of `held_out`."""
    with tempfile.TemporaryDirectory() as folder:
        model = train(
            *(training, held_out, pathlib.Path(folder), Progress()),
            updates=updates,
            seed=seed,
            checkpoint_every=updates,
        )
    logits, lengths = read(model, held_out)
    return {
        "logits": np.asarray(logits, np.float32),
        "labels": np.asarray(held_out.labels),
        "logit_lengths": np.asarray(lengths),
        "label_lengths": np.asarray(held_out.lengths),
    }


def some(batch, seed, count=BATCH, width=None):
    """Return `count` random utterances, cut to `width` frames that hold them."""
    fits = np.flatnonzero(batch["logit_lengths"] <= (width or np.inf))
    rows = np.random.default_rng(seed).permutation(fits)[:count]
    chosen = {name: array[rows] for name, array in batch.items()}
    return chosen | {"logits": chosen["logits"][:, :width]}
