"""The two pictures the demo saves: the training curve and one line's posterior."""

from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.handwriting.train import Evaluation, History

PALETTE = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2")
VISIBLE = 1e-3  # lower than this, a curve's outline would only smear the axis
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


def save_posterior(
    path: Path, image: np.ndarray, posteriors: np.ndarray, truth: str, read: str
) -> None:
    """Draws a line's image above the posterior of each of its labels.

    The model scores every pixel column, so columns and frames share one axis.

    Args:
        path: file to write.
        image: [HEIGHT, T], ink is 1.
        posteriors: [T, U + 1], blank first, as from `label_posteriors`.
        truth: the U digits of the line.
        read: the digits the model read.
    """
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(8, 4.4), layout="constrained")
        top, bottom = figure.subplots(2, sharex=True, height_ratios=(1, 1.3))
        top.imshow(image, cmap="gray_r", aspect="auto", interpolation="nearest")
        top.set_title(f"A held-out line: written {truth}, read {read or 'nothing'}")
        top.set_ylim(len(image), -1.5)
        top.set_yticks([])
        top.tick_params(bottom=False)
        top.spines[:].set_visible(False)
        _tint_columns(top, posteriors, truth)
        _draw_posteriors(bottom, posteriors, truth)
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


def _draw_posteriors(axes: Axes, posteriors: np.ndarray, truth: str) -> None:
    """Draws one curve per label with its digit at the peak; the blank in grey."""
    edges = np.arange(len(posteriors) + 1) - 0.5  # a frame is as wide as its column
    # The blank hangs from the top: each column is full, and shared, from 0 to 1.
    others = 1 - posteriors[:, 0]
    axes.stairs(np.ones_like(others), edges, baseline=others, fill=True, color=PALE)
    for digit, curve, colour in zip(
        truth, posteriors[:, 1:].T, _colours(truth), strict=True
    ):
        axes.stairs(curve, edges, fill=True, color=colour, alpha=0.35)
        visible = np.flatnonzero(curve > VISIBLE)
        first, last = visible[0], visible[-1] + 1
        axes.stairs(curve[first:last], edges[first : last + 1], color=colour, lw=1.8)
        peak = curve.max()
        # Often two or three columns are equally sure: write above their middle.
        middle = np.flatnonzero(curve > 0.98 * peak).mean()
        _write(axes, digit, middle, peak, colour)
    axes.set_ylim(0, 1.2)
    axes.set_yticks([0, 0.5, 1])
    axes.set_title("Posterior of each label, and of the blank (grey)")
    axes.set_ylabel("probability")
    axes.set_xlabel("pixel column = frame")


def _tint_columns(axes: Axes, posteriors: np.ndarray, truth: str) -> None:
    """Colours the columns of the image where a label is likelier than not."""
    colours = _colours(truth)
    for column, index in zip(*np.nonzero(posteriors[:, 1:] > 0.5), strict=True):
        axes.axvspan(column - 0.5, column + 0.5, color=colours[index], alpha=0.3, lw=0)


def _write(axes: Axes, digit: str, column: float, height: float, colour: str) -> None:
    """Writes `digit` just above a curve's peak."""
    axes.annotate(
        digit,
        (column, height),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        color=colour,
        weight="bold",
        size=13,
    )


def _colours(truth: str) -> list[str]:
    """Returns one colour per label; neighbours differ, and none is grey."""
    return [PALETTE[index % len(PALETTE)] for index in range(len(truth))]
