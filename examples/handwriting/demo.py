"""The demo from option to picture: train, save two pictures, print ten lines."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from examples.handwriting import lines as line_data
from examples.handwriting import pictures, report
from examples.handwriting.model import LineReader, num_parameters
from examples.handwriting.score import Score, score_lines
from examples.handwriting.train import History, read_lines, train
from jax_ctc import ctc_loss

TRAINING_PICTURE = "handwriting_training.png"
ALIGNMENT_PICTURE = "handwriting_alignment.png"
PICTURES = (TRAINING_PICTURE, ALIGNMENT_PICTURE)
NUM_SHOWN = 10
MIN_DIGITS_PICTURED = 6


@dataclass(frozen=True)
class Options:
    """Trains a small network with CTC to read lines of real handwritten digits."""

    steps: int = 600
    """Training steps of 64 lines each."""
    seed: int = 0
    """Decides the initial parameters and the training lines."""
    out: Path = Path("out")
    """Directory for the two pictures; made if it is not there."""


@dataclass
class Progress:
    """How far a run has come, for the message when it is interrupted."""

    history: History = field(default_factory=History)
    saved: list[Path] = field(default_factory=list)


def find_fault(steps: int, seed: int, out: Path, files: Sequence[str]) -> str | None:
    """Returns one line saying what is wrong with the options, or None.

    Runs before training, so that a long run never ends with nowhere to save `files`.
    """
    if steps < 1:
        return f"--steps must be at least 1; got {steps}"
    if not 0 <= seed < 2**32:
        return f"--seed must be from 0 to 2**32 − 1; got {seed}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        for name in files:
            path = out / name
            if path.exists():
                path.open("ab").close()  # an old picture must be replaceable
    except OSError as error:
        return f"--out {out}: cannot write there ({error.strerror})"
    return None


def describe_interruption(options: Options, progress: Progress) -> str:
    """Returns one line: at which step the run stopped, and what was saved."""
    done = len(progress.history.losses)
    saved = " and ".join(str(path) for path in progress.saved)
    outcome = f"only {saved} was saved" if saved else "nothing was saved"
    if len(progress.saved) == 2:
        outcome = f"{saved} were saved"
    return f"stopped after step {done} of {options.steps}; {outcome}"


def run(options: Options, progress: Progress) -> None:
    """Trains a reader, saves the pictures, prints the lines and the two rates."""
    console = Console()
    model, held_out = trained_reader(
        console, options.steps, options.seed, progress.history
    )
    logits = read_lines(model, held_out)  # [N, T, NUM_CLASSES]
    score = score_lines(logits, held_out)
    # `ctc_loss` takes one utterance as well as a batch, so `vmap` fits over it.
    losses = np.asarray(
        jax.vmap(ctc_loss)(logits, held_out.labels, held_out.widths, held_out.lengths)
    )  # [N]
    index = line_to_picture(held_out, score, losses)
    save_pictures(options.out, progress, logits, held_out, score, index)
    shown = slice(NUM_SHOWN)
    console.print(
        report.lines_table(score.truths[shown], score.texts[shown], losses[shown])
    )
    print(f"digit error rate {score.digit_error_rate:.1f} %")
    print(f"exact lines {score.exact_lines:.1f} %")


def trained_reader(
    console: Console, steps: int, seed: int, history: History | None = None
) -> tuple[LineReader, line_data.Lines]:
    """Trains a reader, showing its progress; returns it and the held-out lines."""
    training_digits, held_out_digits = line_data.load_split()
    held_out = line_data.held_out_lines(held_out_digits)
    model = LineReader(rngs=nnx.Rngs(seed))
    print(f"{num_parameters(model):,} parameters", flush=True)
    with report.progress_bar(console) as bar:
        train(
            model,
            training_digits,
            held_out,
            steps=steps,
            seed=seed,
            history=History() if history is None else history,
            on_step=report.progress_watcher(bar, steps),
        )
    return model, held_out


def save_pictures(
    out: Path,
    progress: Progress,
    logits: jax.Array,
    held_out: line_data.Lines,
    score: Score,
    index: int,
) -> None:
    """Saves the training curve and the alignment of held-out line `index`."""
    path = out / TRAINING_PICTURE
    pictures.save_training_curve(path, progress.history)
    progress.saved.append(path)
    print(f"saved {path}")

    path = out / ALIGNMENT_PICTURE
    pictures.save_alignment(
        path,
        logits,
        held_out,
        index,
        f"A held-out line: written {score.truths[index]},"
        f" read {score.texts[index] or 'nothing'}",
    )
    progress.saved.append(path)
    print(f"saved {path}")


def line_to_picture(held_out: line_data.Lines, score: Score, losses: np.ndarray) -> int:
    """Returns the index of a long held-out line.

    Of the lines read as written, takes the one with the highest of losses [N]: where
    the model is sure of everything, every posterior is a lone spike.
    """
    candidates = np.flatnonzero(held_out.lengths >= MIN_DIGITS_PICTURED).tolist()
    exact = [i for i in candidates if score.texts[i] == score.truths[i]]
    return max(exact or candidates, key=lambda index: losses[index])
