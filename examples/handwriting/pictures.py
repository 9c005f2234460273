"""Pictures of the examples: the training curve, one line's alignment, a beam."""

from pathlib import Path

import jax
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.handwriting.lines import CLASS_TEXTS, Lines
from examples.handwriting.train import Evaluation, History
from jax_ctc import (
    BeamHypotheses,
    ctc_align,
    ctc_posteriors,
    plot_alignment,
    token_spans,
)

BLUE, RED, GREY, PALE = "#2f6db3", "#c8442f", "#8a8a8a", "#e6e6e6"
HALF_WINDOW = 7  # steps on either side that the smoothed loss looks at
SILENT = 5.0  # fewer digits than this (in percent) count as "reads only blanks"
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.size": 10,
    "legend.frameon": False,
    "savefig.dpi": 130,
}


def save_training_curve(path: Path, history: History) -> None:
    """Draws the loss of every step above the held-out error rate."""
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        top, bottom = figure.subplots(2, sharex=True)
        _draw_loss(top, history.losses)
        _draw_error_rate(bottom, history.evaluations)
        plateau = all_blank_steps(history.evaluations)
        if plateau:
            _shade_plateau((top, bottom), *plateau)
        bottom.set_xscale("log")
        bottom.set_xlim(1, max(2, len(history.losses)))
        bottom.xaxis.set_major_formatter("{x:.0f}")
        figure.savefig(path)


def save_alignment(
    path: Path, logits: jax.Array, lines: Lines, index: int, title: str
) -> None:
    """Draws where the digits of one line were read, above its image.

    The model scores every pixel column, so columns and frames share one axis.

    Args:
        path: file to write.
        logits: [N, T, NUM_CLASSES] of all the lines.
        lines: what is written in them.
        index: the line to draw.
        title: above the picture.
    """
    line = (
        logits[index],
        lines.labels[index],
        lines.widths[index],
        lines.lengths[index],
    )
    figure = plot_alignment(
        ctc_posteriors(*line),
        ctc_align(*line),
        lines.images[index, :, : lines.widths[index]],
        vocabulary=CLASS_TEXTS,
        title=title,
    )
    figure.savefig(path)


def save_beam(
    path: Path,
    probabilities: np.ndarray,
    image: np.ndarray,
    hypotheses: BeamHypotheses,
    title: str,
) -> None:
    """Draws N hypotheses of one line, each with its times, over the posteriors.

    Args:
        path: file to write.
        probabilities: [T, NUM_CLASSES] of every class in every column.
        image: [HEIGHT, T] of the line.
        hypotheses: of that line, with times: labels [N, L].
        title: above the picture.
    """
    # A frame is a pixel column: one frame a "second" gives times in columns.
    rows = token_spans(hypotheses, 1, vocabulary=CLASS_TEXTS)
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(9, 5), layout="constrained")
        top, middle, bottom = figure.subplots(3, sharex=True, height_ratios=(4, 4, 2))
        top.set_title(title)
        for number, (spans, log_prob) in enumerate(
            zip(rows, np.asarray(hypotheses.log_prob), strict=True)
        ):
            for span in spans:
                colour = f"C{int(span.label)}"
                width = span.end - span.start
                top.barh(number, width, left=span.start, color=colour, align="center")
                center = span.start + width / 2
                top.annotate(
                    str(span.label), (center, number), ha="center", va="center"
                )
            _write_right_of(top, number, f"{log_prob:.2f}")
        top.set_ylim(len(rows) - 0.4, -0.6)
        top.set_yticks(range(len(rows)), [f"{n + 1}." for n in range(len(rows))])
        _write_right_of(top, -0.6, "log p")
        num_frames = len(probabilities)
        middle.imshow(
            probabilities.T,
            cmap="Blues",
            aspect="auto",
            interpolation="nearest",
            extent=(0, num_frames, len(CLASS_TEXTS) - 0.5, -0.5),
        )
        middle.set_yticks(range(len(CLASS_TEXTS)), CLASS_TEXTS, size=7)
        middle.set_ylabel("posterior")
        bottom.imshow(
            image, cmap="gray_r", aspect="auto", extent=(0, num_frames, len(image), 0)
        )
        bottom.set_yticks([])
        bottom.set_xlabel("frame")
        figure.savefig(path)


def all_blank_steps(evaluations: list[Evaluation]) -> tuple[int, int] | None:
    """Returns the first and last step of CTC's plateau, where it reads only blanks.

    An untrained model babbles. The first thing it learns is to say nothing, since
    the blank is right at most columns; digits come after.
    """
    silent = [e.step for e in evaluations if e.digits_read < SILENT]
    return (silent[0], silent[-1]) if len(silent) > 1 else None


def smooth(values: list[float]) -> np.ndarray:
    """Returns the running median of `values`, which lags behind no sudden drop."""
    windows = (
        values[max(0, step - HALF_WINDOW) : step + HALF_WINDOW + 1]
        for step in range(len(values))
    )
    return np.array([np.median(window) for window in windows])


def _write_right_of(axes: Axes, height: float, text: str) -> None:
    """Writes beside the axes, at a height in their own units."""
    axes.annotate(
        text,
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
    )


def _draw_loss(axes: Axes, losses: list[float]) -> None:
    """Draws the loss of every step, raw and smoothed."""
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color=BLUE, alpha=0.3, lw=0.8, label="each batch")
    axes.plot(steps, smooth(losses), color=BLUE, lw=1.8, label="smoothed")
    axes.set_yscale("log")
    axes.set_title("CTC loss on training lines")
    axes.set_ylabel("nats per line")
    axes.legend(loc="upper right")


def _draw_error_rate(axes: Axes, evaluations: list[Evaluation]) -> None:
    """Draws the digit error rate on the held-out lines."""
    steps = [e.step for e in evaluations]
    rates = [e.digit_error_rate for e in evaluations]
    axes.plot(steps, rates, color=RED, lw=1.8, marker="o", ms=3)
    axes.annotate(
        f"{rates[-1]:.1f} % after {steps[-1]} steps",
        (steps[-1], rates[-1]),
        xytext=(0, 10),
        textcoords="offset points",
        ha="right",
        color=RED,
    )
    axes.set_title("Digit error rate on held-out lines")
    axes.set_ylabel("percent")
    # Babble can cost more than 100 %: let the first points leave the picture.
    axes.set_ylim(0, max(120, 1.3 * rates[-1]))
    axes.set_xlabel("training step")


def _shade_plateau(both: tuple[Axes, Axes], start: int, end: int) -> None:
    """Marks the steps in which the model reads only blanks."""
    for axes in both:
        axes.axvspan(start, end, color=PALE, lw=0, zorder=0)
    both[1].annotate(
        "all-blank\nplateau",
        ((start * end) ** 0.5, 50),  # the middle, on a logarithmic axis
        ha="center",
        va="center",
        color=GREY,
    )
