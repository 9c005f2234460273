"""A picture of an alignment: posteriors over time above what the model looked at."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.core import Tracer

from jax_ctc._alignment.records import (
    CTCAlignment,
    CTCPosteriors,
    GivenAlignment,
    GivenPosteriors,
)
from jax_ctc._alignment.spans import TokenSpan, token_spans
from jax_ctc._checks.given import ArrayLike, Index, Number, Option, Vocabulary
from jax_ctc._checks.host import native
from jax_ctc._output.visible import visible
from jax_ctc._pictures.fonts import can_draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PALETTE = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2")
_BLANK = "#e6e6e6"
_VISIBLE = 1e-3  # lower than this, a curve's outline would only smear the axis
_INCHES_PER_LABEL = 0.16  # room for one label's text
_MOST_INCHES = 60.0  # wider pictures open nowhere; texts then overlap
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.size": 10,
    "figure.dpi": 130,
}


def plot_alignment(
    posteriors: GivenPosteriors,
    alignment: GivenAlignment,
    picture: ArrayLike | None = None,
    *,
    vocabulary: Vocabulary | None = None,
    frame_rate: Number | None = None,
    title: Option | None = None,
    wildcard_id: Index | None = None,
) -> "Figure":
    """Draw where one utterance's labels are: curves of posteriors, spans, the input.

    Each label's posterior is a curve under its text, and the blank's hangs from the top
    in grey. Below stands the input, with the spans of the best path tinted: where a
    tint and a curve disagree, another alignment is nearly as good. Texts are drawn in
    matplotlib's font, and a label whose script it lacks by its id: for other scripts
    set `matplotlib.rcParams["font.family"]`.

    Args:
        posteriors: of one utterance, from `ctc_posteriors`.
        alignment: of the same utterance, from `ctc_align`.
        picture: [height, width] what the model read, such as an image or a spectrogram,
            first row on top; its width is stretched over the frames. Default: none.
        vocabulary: text of each class id. Default: ids.
        frame_rate: frames per second, for an axis in seconds. Default: frames.
        title: above the curves.
        wildcard_id: what both were told. A wildcard is drawn as "*". Default: none.

    Returns:
        A matplotlib Figure: `figure.savefig("alignment.png")`. No window is opened.

    Raises:
        ModuleNotFoundError: matplotlib is missing (`pip install 'jax_ctc[plot]'`).
        TypeError: an argument is traced or of another type.
        ValueError: the records hold a batch, differ in shape, are of an utterance that
            was flagged or has no frames; `picture` is not [height, width].

    Cost:
        On the host, some tenths of a second.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> logits = 5.0 * jnp.eye(3)[jnp.array([0, 1, 1, 0, 2])]
        >>> labels = jnp.array([1, 2])
        >>> figure = jax_ctc.plot_alignment(
        ...     jax_ctc.ctc_posteriors(logits, labels),
        ...     jax_ctc.ctc_align(logits, labels),
        ...     vocabulary="-ab",
        ... )
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['a', 'b']
    """
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise ModuleNotFoundError(
            "plot_alignment needs matplotlib: pip install 'jax_ctc[plot]'",
            name=error.name,
        ) from None
    label, blank = _check_posteriors(posteriors, alignment)  # [T, U], [T]
    image = None if picture is None else _check_picture(picture)
    rate = 1.0 if frame_rate is None else frame_rate
    [spans] = token_spans(
        alignment, rate, vocabulary=vocabulary, wildcard_id=wildcard_id
    )
    duration = len(label) / float(rate)
    with matplotlib.style.context(_STYLE):
        width = min(max(8.0, 1.0 + _INCHES_PER_LABEL * len(spans)), _MOST_INCHES)
        figure = Figure(figsize=(width, 2.6 if image is None else 4.4))
        figure.set_layout_engine("constrained")
        if image is None:
            top = bottom = figure.subplots()
        else:
            top, bottom = figure.subplots(2, sharex=True, height_ratios=(1.3, 1))
            _draw_picture(bottom, image, duration, spans)
        start, end = np.asarray(alignment.start), np.asarray(alignment.end)
        is_shown = (start >= 0) & (end > start)  # a wildcard may be empty
        ids = np.asarray(alignment.tokens)[start[is_shown]]
        names = [visible(str(span.label)) for span in spans]
        texts = [
            name if can_draw(name) else str(number)
            for name, number in zip(names, ids.tolist(), strict=True)
        ]
        draw_posteriors(top, label[:, is_shown], blank, duration, texts)
        top.set_ylabel("probability")
        top.set_title(
            visible(title, keep="\n")
            if title
            else "Posterior of each label, and of the blank (grey)"
        )
        bottom.set_xlabel("frame" if frame_rate is None else "seconds")
    return figure


def _check_posteriors(posteriors: Any, alignment: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the posteriors of the labels and of the blank on the live frames."""
    for name, value, kind in (
        ("posteriors", posteriors, CTCPosteriors),
        ("alignment", alignment, CTCAlignment),
    ):
        if not isinstance(value, kind):
            raise TypeError(
                f"`{name}` must be a {kind.__name__}; got {type(value).__name__}"
            )
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
            raise TypeError(
                f"`{name}` is traced, but a picture is drawn on the host: return it"
                " from the jitted function and plot outside"
            )
    # Half precision would lose the sum over the blank's states.
    label = np.asarray(posteriors.label, np.float64)
    blank = np.asarray(posteriors.blank, np.float64)
    tokens = np.asarray(alignment.tokens)
    if label.ndim != 2 or tokens.ndim != 1:
        raise ValueError(
            "one utterance is drawn at a time: pass jax.tree.map(lambda x: x[b], ...)"
            f" of both records; got posteriors.label {label.shape} and alignment.tokens"
            f" {tokens.shape}"
        )
    if len(label) != len(tokens) or label.shape[1] != alignment.start.shape[0]:
        raise ValueError(
            "`posteriors` and `alignment` must be of the same utterance; got"
            f" posteriors.label [T, U] = {label.shape} beside T={len(tokens)} and"
            f" U={alignment.start.shape[0]} of the alignment"
        )
    for name, value in (
        ("alignment.log_prob", alignment.log_prob),
        ("posteriors.log_likelihood", posteriors.log_likelihood),
    ):
        if not np.isfinite(value):
            raise ValueError(
                f"there is no path to draw: the utterance was flagged ({name} is"
                f" {float(value)}). `ctc_loss_with_status` and `explain` say why"
            )
    is_live = label.sum(axis=1) + blank.sum(axis=1) > 0  # a token may be any number
    if not is_live.any():
        raise ValueError("there is nothing to draw: the utterance has no frames")
    return label[is_live], blank[is_live].sum(axis=1)


def _check_picture(picture: Any) -> np.ndarray:
    image = native(np.asarray(picture))
    if image.ndim != 2 or 0 in image.shape or image.dtype.kind not in "biuf":
        raise ValueError(
            "`picture` must be [height, width], a number per point; got shape"
            f" {image.shape} of {image.dtype}"
        )
    return image


def draw_posteriors(
    axes: Any,
    label: np.ndarray,
    blank: np.ndarray,
    duration: float,
    texts: list[str],
    *,
    size: float = 13.0,
) -> None:
    """Draw one curve per label with its text at the peak, and the blank in grey."""
    edges = np.linspace(0, duration, len(label) + 1)
    # The blank hangs from the top: each frame is full, and shared, from 0 to 1.
    axes.stairs(np.ones_like(blank), edges, baseline=1 - blank, fill=True, color=_BLANK)
    for number, (text, curve) in enumerate(zip(texts, label.T, strict=True)):
        colour = _PALETTE[number % len(_PALETTE)]
        drawn = np.flatnonzero(curve > _VISIBLE)
        if drawn.size:
            first, last = drawn[0], drawn[-1] + 1
            shown, at = curve[first:last], edges[first : last + 1]
            axes.stairs(shown, at, fill=True, color=colour, alpha=0.35)
            axes.stairs(shown, at, color=colour, lw=1.8)
        peak = curve.max()
        # Often two or three frames are equally sure: write above their middle.
        best = np.flatnonzero(curve >= 0.98 * peak)
        middle = (edges[best] + edges[best + 1]).mean() / 2
        axes.annotate(
            visible(text),  # a NUL would make an SVG malformed
            (middle, peak),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            color=colour,
            weight="bold",
            size=size,
            parse_math=False,  # a "$" is a label like any other
        )
    axes.set_xlim(0, duration)
    axes.set_ylim(0, 1.2)
    axes.set_yticks([0, 0.5, 1])


def _draw_picture(
    axes: Any, image: np.ndarray, duration: float, spans: list[TokenSpan]
) -> None:
    """Draw the input under its spans."""
    height, _ = image.shape
    axes.imshow(
        image,
        cmap="gray_r",
        aspect="auto",
        interpolation="nearest",
        extent=(0, duration, height, 0),
    )
    for number, span in enumerate(spans):
        colour = _PALETTE[number % len(_PALETTE)]
        axes.axvspan(span.start, span.end, color=colour, alpha=0.3, lw=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
