"""The report as one HTML page that needs no file, font or script from elsewhere."""

import dataclasses
import importlib.resources
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_ctc._diagnose.batch import Given
from jax_ctc._output.progress import show_progress
from jax_ctc._output.visible import visible
from jax_ctc._pictures.utterance import draw
from jax_ctc._report.measure import filled, kept_bad
from jax_ctc._report.text import COLUMNS, causes, cells, headline, need

_MOST_ROWS = 1000


class Pictured(NamedTuple):
    """The scores of one of the worst utterances."""

    place: int  # in the ranking
    given: Given  # a batch of it alone


def build(
    ranking: Any,
    pictured: Sequence[Pictured],
    track: Callable[[Sequence[Any]], Iterable[Any]] | None,
) -> str:
    """Return the page: causes, the worst with their pictures, and a table of all."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise need("jinja2") from error
    template = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever is written: what would act is shown, then escaped as text.
        finalize=lambda value: visible(value, "\n") if type(value) is str else value,
    ).from_string(_template())
    rows = ranking.utterances[:_MOST_ROWS]
    return template.render(
        headline=headline(ranking),
        causes=causes(ranking),
        columns=COLUMNS,
        worst=[
            (ranking.utterances[place], cells(ranking.utterances[place]), picture)
            for place, picture in _pictures(pictured, track)
        ],
        rows=[(row, cells(row)) for row in rows],
        num_left_out=len(ranking.utterances) - len(rows),
    )


def _template() -> str:
    page = importlib.resources.files("jax_ctc._report").joinpath("page.html")
    return page.read_text(encoding="utf-8")


def _pictures(
    pictured: Sequence[Pictured],
    track: Callable[[Sequence[Any]], Iterable[Any]] | None,
) -> Iterable[tuple[int, str]]:
    """Yield place and picture; all are brought to one shape, which is compiled once."""
    if not pictured:
        return
    frames = max(one.given.scores.shape[1] for one in pictured)
    width = max((one.given.holes or one.given).labels.shape[1] for one in pictured)
    for place, given in (
        track(pictured) if track else show_progress(pictured, "drawing")
    ):
        full = given.scores.shape[1]
        yield place, draw(_enlarged(given, frames, width), 0, full)


def _enlarged(given: Given, frames: int, width: int) -> Given:
    """Return the same utterance in larger arrays; a bad length stays bad."""

    def labels(told: Any) -> dict[str, np.ndarray]:
        return {
            "labels": filled(told.labels, (1, width), -1),
            "label_lengths": kept_bad(told.label_lengths, told.labels.shape[1]),
        }

    holes = given.holes
    return dataclasses.replace(
        given,
        scores=filled(given.scores, (1, frames, given.scores.shape[2]), 0),
        logit_lengths=kept_bad(given.logit_lengths, given.scores.shape[1]),
        holes=None if holes is None else dataclasses.replace(holes, **labels(holes)),
        **labels(given),
    )
