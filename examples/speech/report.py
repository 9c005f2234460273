"""What the example shows: a progress bar, a table, two pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from examples.handwriting.pictures import BLUE, RED, STYLE, smooth
from examples.sharded.checkpoints import read_log
from examples.speech.features import Batch
from examples.speech.model import STRIDE
from examples.speech.sounds import LETTERS
from examples.speech.train import Progress as State
from jax_ctc import ctc_align, ctc_posteriors, plot_alignment

NUM_SHOWN = 6


def watcher(bar: Progress, updates: int, progress: State) -> Callable[[], None]:
    """Adds a task of `updates` to the bar; returns what moves it."""
    task = bar.add_task("training", total=updates, loss="", rate="")

    def on_update() -> None:
        rate, loss = progress.word_error_rate, progress.loss
        bar.update(
            task,
            completed=progress.update,
            loss="  -" if loss is None else f"{loss:6.2f}",
            rate="  -" if rate is None else f"{rate:5.1f} %",
        )

    return on_update


def print_lines(
    console: Console, title: str, truths: Sequence[str], *columns: Sequence[str]
) -> None:
    """Prints some utterances: what was said, read greedily, and with the words."""
    table = Table(title=title, title_justify="left")
    for name in ("said", "read letter by letter", "read with the word model"):
        table.add_column(name)
    for truth, *found in list(zip(truths, *columns, strict=True))[:NUM_SHOWN]:
        colours = ["green" if text == truth else "red" for text in found]
        cells = [f"[{c}]{text}[/]" for c, text in zip(colours, found, strict=True)]
        table.add_row(truth, *cells)
    console.print(table)


def save_curve(path: Path, out: Path, title: str) -> None:
    """Draws the loss of every update above the held-out word error rate."""
    rows = read_log(out)
    looks = [row for row in rows if "error_rate" in row]
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        top, bottom = figure.subplots(2, sharex=True)
        losses, steps = [row["loss"] for row in rows], [row["step"] for row in rows]
        top.plot(steps, losses, color=BLUE, alpha=0.3, lw=0.8, label="each update")
        top.plot(steps, smooth(losses), color=BLUE, lw=1.8, label="smoothed")
        top.set_yscale("log")
        top.set_ylabel("nats per utterance")
        top.set_title(f"CTC loss on {title}")
        top.legend(loc="upper right")
        rates = [row["error_rate"] for row in looks]
        bottom.plot([row["step"] for row in looks], rates, color=RED, marker="o", ms=3)
        bottom.annotate(
            f"{rates[-1]:.1f} %",
            (looks[-1]["step"], rates[-1]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="right",
            color=RED,
        )
        bottom.set_title("Word error rate on held-out voices, read letter by letter")
        bottom.set_ylabel("percent")
        bottom.set_ylim(0, 110)
        bottom.set_xlabel("update")
        figure.savefig(path)


def save_alignment(
    path: Path, logits: jax.Array, length: jax.Array, batch: Batch, title: str
) -> None:
    """Draws where the letters of one utterance are, above its log-mel features.

    Args:
        path: file to write.
        logits: [T, V] of the utterance.
        length: [] true frames of the logits.
        batch: of this one utterance, without the axis B.
        title: above the picture.
    """
    line = logits, batch.labels, length, batch.lengths
    every = np.asarray(batch.features[: batch.frames : STRIDE])  # a column a frame
    figure = plot_alignment(
        ctc_posteriors(*line),
        ctc_align(*line),
        every.T[::-1],
        vocabulary=LETTERS,
        title=title,
    )
    figure.savefig(path)
