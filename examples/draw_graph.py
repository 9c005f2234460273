"""What is a graph? Draws that of a word, and one with two spellings.

    python -m examples.draw_graph --out out

makes the picture of docs/graphs.md, from the arrays of the graphs themselves.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.front_door import explain_missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from jax_ctc import Graph

PICTURE = "graph.png"
BLANK, LABEL, ADDED, CLOSED = "#d9d9d9", "#a6c8ff", "#e8710a", "#d62728"
RADIUS = 0.27


@dataclass(frozen=True)
class Options:
    """Draws the graph of a word, and that of a word with two spellings."""

    out: Path = Path("out")
    """Directory for the picture; made if it is not there."""


def main() -> int:
    """Runs the example; returns 0, or 1 (a package is missing)."""
    try:
        import matplotlib  # noqa: F401
        import tyro
    except ModuleNotFoundError as error:
        return explain_missing(error)
    options = tyro.cli(Options, prog="python -m examples.draw_graph")
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out / PICTURE)
    print(options.out / PICTURE)
    return 0


def draw(path: Path) -> None:
    """Draws both graphs, one above the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), dpi=130)
    figure.set_layout_engine("constrained")
    top, bottom = figure.subplots(2, height_ratios=(1, 1))
    draw_graph(top, graph_of("see"), "see", num_added=0)
    draw_graph(bottom, either_spelling(), "colour", num_added=2)
    figure.savefig(path)


def graph_of(word: str) -> "Graph":
    """Returns the graph of a word, its letters numbered as in Unicode."""
    import jax_ctc

    return jax_ctc.ctc_graph(np.array([ord(letter) for letter in word]))


def either_spelling() -> "Graph":
    """Returns that of "colour", with two arcs past the "u"."""
    import jax_ctc

    graph, letter_r = graph_of("colour"), 11
    return jax_ctc.Graph(
        source=np.append(graph.source, [7, 8]),
        target=np.append(graph.target, [letter_r] * 2),
        emits=np.append(graph.emits, [ord("r")] * 2),
        log_weight=np.append(graph.log_weight, [0.0, 0.0]),
        start=graph.start,
        end=graph.end,
    )


def draw_graph(axes: "Axes", graph: "Graph", word: str, *, num_added: int) -> None:
    """Draws states in a row, labels below blanks, and every arc between them."""
    num_states, num_arcs = len(graph.start), len(graph.source)
    place = [(0.9 * s, -(s % 2)) for s in range(num_states)]
    arcs = zip(
        np.asarray(graph.source).tolist(),
        np.asarray(graph.target).tolist(),
        np.asarray(graph.log_weight).tolist(),
        strict=True,
    )
    for number, (source, target, log_weight) in enumerate(arcs):
        is_added, is_closed = number >= num_arcs - num_added, log_weight == -np.inf
        style: dict[str, Any] = {"color": "#444444", "lw": 1.0}
        if is_added:
            style = {"color": ADDED, "lw": 1.8}
        if is_closed:
            style = {"color": CLOSED, "lw": 1.2, "ls": (0, (4, 3))}
        draw_arc(axes, place[source], place[target], style)
    for state, (x, y) in enumerate(place):
        draw_state(
            axes,
            (x, y),
            word[state // 2] if state % 2 else "",
            is_start=float(graph.start[state]) == 0,
            is_end=float(graph.end[state]) == 0,
        )
    axes.set_xlim(-0.9, 0.9 * num_states)
    axes.set_ylim(-1.95, 0.75)
    axes.set_aspect("equal")
    axes.set_axis_off()


def draw_state(
    axes: "Axes", place: tuple[float, float], text: str, *, is_start: bool, is_end: bool
) -> None:
    """Draws a circle, doubled where a path may end, with an arrow where it begins."""
    from matplotlib.patches import Circle

    colour = LABEL if text else BLANK
    axes.add_patch(Circle(place, RADIUS, fc=colour, ec="#222222", zorder=3))
    if is_end:
        inner = Circle(place, RADIUS - 0.06, fc="none", ec="#222222", zorder=4)
        axes.add_patch(inner)
    axes.text(*place, text, ha="center", va="center", size=12, zorder=5)
    if is_start:
        x, y = place
        axes.annotate(
            "",
            (x - RADIUS, y),
            (x - RADIUS - 0.5, y),
            arrowprops={"arrowstyle": "-|>", "color": "#222222", "lw": 1.6},
        )


def draw_arc(
    axes: "Axes",
    source: tuple[float, float],
    target: tuple[float, float],
    style: dict[str, Any],
) -> None:
    """Draws an arrow; a loop away from the other row, a long one bent below it."""
    from matplotlib.patches import FancyArrowPatch

    x, y = source
    if source == target:
        outward = 1 if y == 0 else -1
        edge = y + outward * RADIUS * 0.85
        begin, end, bend = (x - 0.14, edge), (x + 0.14, edge), -outward * 1.6
        shrink = 0.0
    else:
        begin, end, shrink = source, target, 13.5
        is_level = y == target[1]
        bend = 0.0 if not is_level else 0.22 if target[0] - x < 2 else 0.36
    axes.add_patch(
        FancyArrowPatch(
            begin,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=9,
            shrinkA=shrink,
            shrinkB=shrink,
            zorder=2,
            **style,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
