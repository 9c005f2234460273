"""The example from option to picture: say, train or resume, read, compare."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from examples.handwriting.model import num_parameters
from examples.handwriting.report import progress_bar
from examples.sharded.checkpoints import note_run, saved_step
from examples.speech import report
from examples.speech.features import Batch, as_batch
from examples.speech.model import SpeechReader
from examples.speech.sounds import (
    DESCRIPTIONS,
    LETTERS,
    Kind,
    Spoken,
    draw_sentences,
    kind_here,
    recordings,
    say,
)
from examples.speech.train import Progress, error_rates, read, train
from examples.speech.words import decode, word_model
from jax_ctc import WordNGram, greedy_decode

FRAMES_PER_SECOND = 100
NUM_TRAINING, NUM_HELD_OUT, NUM_MODEL_SENTENCES = 640, 64, 3_000
HELD_OUT_SEED = 2_024  # fixed: every `--seed` is examined on the same sentences
CURVE, ALIGNMENT = "speech_training.png", "speech_alignment.png"
PICTURES = (CURVE, ALIGNMENT)


@dataclass(frozen=True)
class Options:
    """Trains a small network with CTC to write down what is said of playing cards.

    Started again with the same --out, it goes on from the last checkpoint.
    """

    updates: int = 160
    """Updates of the parameters in all, of two micro-batches of 16 utterances each."""
    seed: int = 0
    """Decides the initial parameters, the sentences and the voices."""
    audio: Literal["auto", "espeak", "tones"] = "auto"
    """Speech by espeak-ng, or a chord per letter; auto: speech if it is installed."""
    checkpoint_every: int = 40
    """Updates between checkpoints, and between looks at the held-out utterances."""
    out: Path = Path("out/speech")
    """Directory of pictures, checkpoints and log.jsonl."""


def find_fault(options: Options) -> str | None:
    """Returns one line saying what else is wrong with the options, or None."""
    if options.checkpoint_every < 1:
        return f"--checkpoint-every must be at least 1; got {options.checkpoint_every}"
    if options.audio == "espeak" and kind_here() != "espeak":
        return "--audio espeak needs espeak-ng, which is not installed"
    return None


def settings(options: Options) -> dict[str, int | str]:
    """Returns what a run must share with the one that it resumes."""
    kind = kind_here() if options.audio == "auto" else options.audio
    return {"updates": options.updates, "seed": options.seed, "audio": kind}


def describe_interruption(options: Options, progress: Progress) -> str:
    """Returns one line: where the run stopped, and from where it would go on."""
    saved = saved_step(options.out)
    resume = f"the same command resumes from update {saved}"
    outcome = resume if saved else "no checkpoint was saved yet"
    return f"stopped after update {progress.update} of {options.updates}; {outcome}"


def run(
    options: Options,
    progress: Progress,
    *,
    num_training: int = NUM_TRAINING,
    num_held_out: int = NUM_HELD_OUT,
) -> None:
    """Trains a reader, saves the pictures, prints what it reads and the rates."""
    console = Console()
    chosen = settings(options)
    note_run(options.out, chosen)
    kind: Kind = "espeak" if chosen["audio"] == "espeak" else "tones"
    print(f"audio: {DESCRIPTIONS[kind]}", flush=True)
    rng = np.random.default_rng(options.seed)
    texts_to_train = draw_sentences(rng, num_training)
    known = set(texts_to_train)
    training = as_batch(rng, say(kind, rng, texts_to_train, held_out=False))
    # Sentences that were not trained on, in voices that were not.
    rng = np.random.default_rng(HELD_OUT_SEED)
    unknown = [
        text for text in draw_sentences(rng, 9 * num_held_out) if text not in known
    ]
    said = say(kind, rng, unknown[:num_held_out], held_out=True)
    held_out = as_batch(rng, said)
    seconds = training.frames.sum() / FRAMES_PER_SECOND
    print(
        f"{num_training} utterances to train on ({seconds / 60:.0f} minutes),"
        f" {num_held_out} others held out",
        flush=True,
    )
    with progress_bar(console, "words wrong") as bar:
        progress.on_update = report.watcher(bar, options.updates, progress)
        model = train(
            training,
            held_out,
            options.out,
            progress,
            updates=options.updates,
            seed=options.seed,
            checkpoint_every=options.checkpoint_every,
        )
    print(f"{num_parameters(model):,} parameters")

    sentences = draw_sentences(rng, NUM_MODEL_SENTENCES)
    language_model = word_model([text for text in sentences if text not in said.texts])
    examine(console, model, language_model, "held out", held_out, said.texts)
    people = recordings() if kind == "espeak" else Spoken([], [])
    if people.texts:
        batch = as_batch(rng, people, noisy=False)
        title = "recordings of people, of whom it never heard one"
        examine(console, model, language_model, title, batch, people.texts)

    report.save_curve(options.out / CURVE, options.out, DESCRIPTIONS[kind])
    index = int(np.argmax(held_out.lengths))
    logits, lengths = read(model, held_out)
    report.save_alignment(
        options.out / ALIGNMENT,
        logits[index],
        lengths[index],
        Batch(*(field[index] for field in held_out)),
        f"Held out: {said.texts[index]}",
    )
    print("saved", *(options.out / name for name in PICTURES))


def examine(
    console: Console,
    model: SpeechReader,
    language_model: WordNGram,
    title: str,
    batch: Batch,
    truths: list[str],
) -> None:
    """Prints what is read of some utterances, with the words' model and without."""
    logits, lengths = read(model, batch)
    greedy = greedy_decode(logits, lengths)
    beam = decode(logits, lengths, language_model)
    best = beam.labels[:, 0], beam.lengths[:, 0]
    read_texts = greedy.texts(LETTERS), beam.texts(LETTERS)
    report.print_lines(console, title, truths, *read_texts)
    for name, found in (
        ("letter by letter", (greedy.labels, greedy.lengths)),
        ("with the word model", best),
    ):
        letters, words = error_rates(*found, batch)
        print(f"{name:20} letters wrong {letters:5.1f} %, words wrong {words:5.1f} %")
