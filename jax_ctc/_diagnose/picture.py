"""The picture of one utterance: what the model says, and where its labels would sit."""

import base64
import io
from typing import Any

import numpy as np
from jax import nn

from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.text import need
from jax_ctc._posteriors import ctc_posteriors

_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2")
_PALE, _DARK = "#e6e6e6", "#555555"
_INCHES_PER_CLASS = 0.14  # room for one name
_VISIBLE = 0.02  # lower curves would only smear the axis
_MOST_CLASSES = 24


def draw(given: Given, index: int) -> str:
    """Return a PNG as a data URL.

    Above, the probability of each class per frame, of the classes that matter here;
    below, the posterior of each label, and of blank hanging from the top. Frames after
    the stated length are hatched: what the loss does not look at, a reader should.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise need("matplotlib") from error
    full = given.scores.shape[1]
    stated = int(given.logit_lengths[index])
    labels = given.labels[index, : np.clip(given.label_lengths[index], 0, None)]
    probability = _probabilities(given.scores[index])
    shown = _shown(given, labels, probability)
    height = 0.6 + _INCHES_PER_CLASS * len(shown)
    figure = Figure(figsize=(9, height + 2.2), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(height, 2))
    _classes(top, probability[:, shown], [_name(given, c) for c in shown])
    _posterior(bottom, given, index, labels)
    for axes in (top, bottom):
        axes.set_xlim(-0.5, full - 0.5)
        axes.spines[["top", "right"]].set_visible(False)
        if 0 <= stated < full:
            edge = stated - 0.5
            style = {"facecolor": "none", "edgecolor": "#bbbbbb", "lw": 0}
            axes.axvspan(edge, full - 0.5, hatch="///", **style)
            axes.axvline(edge, color=_DARK, lw=0.8)
    bottom.set_xlabel(
        "frame" + (" (hatched: after the length)" if stated < full else "")
    )
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _probabilities(scores: np.ndarray) -> np.ndarray:
    """Return softmax [T, V]; 0 in frames that hold no distribution."""
    bad = ~np.isfinite(scores.max(1, keepdims=True))
    return np.where(bad, 0, np.asarray(nn.softmax(np.where(bad, 0, scores), axis=1)))


def _shown(given: Given, labels: np.ndarray, probability: np.ndarray) -> list[int]:
    """Return blank, the labels' classes as they come, then whoever else wins.

    So a model that reads what it should draws a staircase.
    """
    used = [c for c in labels.tolist() if 0 <= c < probability.shape[1]]
    peaks = probability.max(0)
    winners = [c for c in np.argsort(-peaks, kind="stable").tolist() if peaks[c] > 0.5]
    return list(dict.fromkeys([given.blank_id, *used, *winners]))[:_MOST_CLASSES]


def _classes(axes: Any, probability: np.ndarray, names: list[str]) -> None:
    """Draw p(class) per frame as a heat map."""
    style = {"aspect": "auto", "interpolation": "nearest", "cmap": "Greys"}
    axes.imshow(probability.T, vmin=0, vmax=1, **style)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_title("probability of each class", loc="left", fontsize=10)


def _posterior(axes: Any, given: Given, index: int, labels: np.ndarray) -> None:
    """Draw where the labels sit, if there is a path at all."""
    row = slice(index, index + 1)
    posteriors = ctc_posteriors(
        given.scores[row],
        given.labels[row],
        given.logit_lengths[row],
        given.label_lengths[row],
        blank_id=given.blank_id,
    )
    axes.set_ylim(0, 1.15)
    axes.set_yticks([0, 0.5, 1])
    axes.set_title(
        "posterior of each label, and of blank (grey)", loc="left", fontsize=10
    )
    if not np.isfinite(np.asarray(posteriors.log_likelihood)).all():
        axes.text(
            *(0.5, 0.5),
            "no path says these labels, so there is no posterior",
            transform=axes.transAxes,
            ha="center",
            color=_DARK,
        )
        return
    label = np.asarray(posteriors.label[0])  # [T, U]
    blank = np.asarray(posteriors.blank[0]).sum(1)
    edges = np.arange(len(blank) + 1) - 0.5
    live = np.where(np.arange(len(blank)) < given.logit_lengths[index], 1.0, 0.0)
    axes.stairs(live, edges, baseline=live - blank, fill=True, color=_PALE)
    for n, curve in enumerate(label[:, : len(labels)].T):
        colour = _COLOURS[n % len(_COLOURS)]
        axes.stairs(curve, edges, fill=True, color=colour, alpha=0.35)
        seen = np.flatnonzero(curve > _VISIBLE)
        if seen.size:
            first, last = seen[0], seen[-1] + 1
            axes.stairs(
                curve[first:last], edges[first : last + 1], color=colour, lw=1.2
            )
            name = _name(given, int(labels[n]))
            peak = int(curve.argmax())
            axes.text(
                peak, curve[peak] + 0.02, name, ha="center", color=colour, fontsize=8
            )


def _name(given: Given, label: int) -> str:
    """Write a class, so that no character of it means anything to matplotlib."""
    name = "blank" if label == given.blank_id else given.spell([label])
    return name.replace("$", r"\$").strip() or repr(name)
