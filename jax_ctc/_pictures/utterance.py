"""The picture of one utterance: what the model says, and where its labels would sit."""

import base64
import io
from typing import Any

import numpy as np
from jax import nn

from jax_ctc._alignment.posteriors import ctc_posteriors
from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.text import need
from jax_ctc._output.visible import visible
from jax_ctc._pictures.alignment import draw_posteriors
from jax_ctc._pictures.fonts import can_draw

# A page may hold hundreds of these: small, and laid out by hand, not by a solver.
_DPI = 100
_WIDTH, _MARGIN, _RIGHT = 9.0, 0.95, 0.1  # inches; the margin holds names of classes
_ABOVE, _BETWEEN, _BELOW, _CURVES = 0.25, 0.32, 0.42, 1.25
_INCHES_PER_CLASS = 0.14  # room for one name
_MOST_CLASSES = 24
_MOST_LETTERS = 12  # of one name, as many as the margin holds
_DARK = "#555555"


def draw(given: Given, index: int, num_frames: int | None = None) -> str:
    """Return a PNG as a data URL.

    Above, the probability of each class per frame, of the classes that matter here;
    below, the posterior of each label, and of blank hanging from the top. Frames after
    the stated length are hatched: what the loss does not look at, a reader should.
    num_frames: how many there are, where more were added to share a compiled shape.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise need("matplotlib") from error
    full = given.scores.shape[1] if num_frames is None else num_frames
    stated = int(given.logit_lengths[index])
    labels = given.transcript(index)
    probability = _probabilities(given.scores[index, :full])
    shown = _shown(given, labels, probability)
    map_height = max(0.5, _INCHES_PER_CLASS * len(shown))
    height = _ABOVE + map_height + _BETWEEN + _CURVES + _BELOW
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)

    def place(bottom: float, inches: float) -> Any:
        width = _WIDTH - _MARGIN - _RIGHT
        box = (_MARGIN / _WIDTH, bottom / height, width / _WIDTH, inches / height)
        return figure.add_axes(box)

    bottom = place(_BELOW, _CURVES)
    top = place(_BELOW + _CURVES + _BETWEEN, map_height)
    _classes(top, probability[:, shown], [_name(given, c) for c in shown])
    _posterior(bottom, given, index, labels)
    for axes in (top, bottom):
        axes.set_xlim(0, max(1, full))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
        if 0 <= stated < full:
            style = {"facecolor": "none", "edgecolor": "#bbbbbb", "lw": 0}
            axes.axvspan(stated, full, hatch="///", **style)
            axes.axvline(stated, color=_DARK, lw=0.8)
    top.tick_params(labelbottom=False)
    bottom.set_xlabel(
        "frame" + (" (hatched: after the length)" if stated < full else ""), fontsize=8
    )
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _probabilities(scores: np.ndarray) -> np.ndarray:
    """Return softmax [T, V]; 0 in frames that hold no distribution."""
    bad = ~np.isfinite(scores.max(1, keepdims=True))
    return np.where(bad, 0, np.asarray(nn.softmax(np.where(bad, 0, scores), axis=1)))


def _shown(given: Given, labels: np.ndarray, probability: np.ndarray) -> list[int]:
    """Return blank, the labels' classes as they come, then whoever else wins.

    So a model that reads what it should draws a staircase.
    """
    wildcard = None if given.holes is None else given.holes.wildcard_id
    used = [
        c for c in labels.tolist() if 0 <= c < probability.shape[1] and c != wildcard
    ]
    peaks = probability.max(0, initial=0)
    winners = [c for c in np.argsort(-peaks, kind="stable").tolist() if peaks[c] > 0.5]
    return list(dict.fromkeys([given.blank_id, *used, *winners]))[:_MOST_CLASSES]


def _classes(axes: Any, probability: np.ndarray, names: list[str]) -> None:
    """Draw p(class) per frame as a heat map."""
    if len(probability):
        axes.imshow(
            probability.T,
            vmin=0,
            vmax=1,
            aspect="auto",
            interpolation="nearest",
            cmap="Greys",
            extent=(0, len(probability), len(names), 0),
        )
    axes.set_yticks(np.arange(len(names)) + 0.5, names, parse_math=False)
    axes.set_title("probability of each class", loc="left", fontsize=8, pad=3)


def _posterior(axes: Any, given: Given, index: int, labels: np.ndarray) -> None:
    """Draw where the labels sit, if there is a path at all."""
    row, told, holes = slice(index, index + 1), given.holes or given, given.holes
    posteriors = ctc_posteriors(
        given.scores[row],
        told.labels[row],
        given.logit_lengths[row],
        told.label_lengths[row],
        blank_id=given.blank_id,
        wildcard_id=None if holes is None else holes.wildcard_id,
        wildcard_log_prob=0.0 if holes is None else holes.log_prob,
    )
    axes.set_title(
        "posterior of each label, and of blank (grey)", loc="left", fontsize=8, pad=3
    )
    frames = int(given.logit_lengths[index])
    has_path = np.isfinite(np.asarray(posteriors.log_likelihood)).all()
    if frames == 0 or not has_path:
        axes.set_ylim(0, 1.2)
        axes.set_yticks([0, 0.5, 1])
        axes.text(
            *(0.5, 0.5),
            "no path says these labels, so there is no posterior",
            transform=axes.transAxes,
            ha="center",
            color=_DARK,
        )
        return
    label = np.asarray(posteriors.label[0])[:frames, : len(labels)]
    blank = np.asarray(posteriors.blank[0])[:frames].sum(1)
    wildcard = None if holes is None else holes.wildcard_id
    texts = ["*" if c == wildcard else _name(given, c) for c in labels.tolist()]
    draw_posteriors(axes, label, blank, float(frames), texts, size=8.0)


def _name(given: Given, label: int) -> str:
    """Write a class so that it can be drawn: by its id where its script cannot."""
    if label == given.blank_id:
        return "blank"
    name = given.spell([label])
    name = visible(name.strip() or repr(name))
    if not can_draw(name):
        return str(label)
    return name if len(name) <= _MOST_LETTERS else name[: _MOST_LETTERS - 1] + "…"
