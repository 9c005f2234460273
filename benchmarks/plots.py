"""Pictures of a record: how much slower the rivals are, and how cost grows."""

import io
import math
import pathlib
from typing import Any

import numpy as np

from benchmarks.contenders import CONTENDERS, MODES
from benchmarks.sweeps import SWEEPS
from jax_ctc._output.whole import write_whole

Rows = list[dict[str, Any]]

_COLOURS = {
    "cpu": "#000000",
    "cuda": "#000000",  # never beside the one for CPUs
    "blocked": "#56b4e9",
    "scan": "#999999",
    "optax": "#0072b2",
    "torch": "#d55e00",
    "torch_cudnn": "#7a3300",
    "tf_sparse": "#009e73",
    "tf_dense": "#cc79a7",
    "keras": "#e69f00",
}
_TITLES = {"value": "loss", "value_and_grad": "loss and gradient"}
_SIZES = {"T": "frames T", "U": "labels U", "V": "classes V", "B": "utterances B"}


def plot(rows: Rows, record: pathlib.Path) -> list[pathlib.Path]:
    """Save what the rows can show beside the record; return the paths."""
    pictures = {
        "cases": (draw_cases, [row for row in rows if "sweep" not in row], 2),
        "sweeps": (draw_sweeps, [row for row in rows if "sweep" in row], 1),
    }
    paths = []
    for name, (draw, some, fewest) in pictures.items():
        if len({row["impl"] for row in some if "seconds" in row}) >= fewest:
            paths.append(record.with_name(f"{record.stem}_{name}.png"))
            picture = io.BytesIO()
            draw(some).savefig(picture, dpi=100)
            write_whole(paths[-1], picture.getvalue())
    return paths


def draw_cases(rows: Rows) -> Any:
    """Draw a bar per case and rival: its time over ours, loss alone above."""
    timed = [row for row in rows if "seconds" in row]
    modes = [mode for mode in MODES if any(row["mode"] == mode for row in timed)]
    first = timed[0]["impl"]
    names = [n for n in CONTENDERS if n != first and _some(timed, impl=n)]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    figure, panels = _panels(len(modes), 1, height=0.6 + 2.6 * len(modes))
    width = 0.8 / max(1, len(names))
    ratios = [row["ratio"] for row in timed]
    for axes, mode in zip(panels[:, 0], modes, strict=True):
        for number, name in enumerate(names):
            bars = _some(timed, impl=name, mode=mode)
            axes.bar(
                [
                    cases.index(row["case"]) + (number - (len(names) - 1) / 2) * width
                    for row in bars
                ],
                [row["ratio"] - 1 for row in bars],
                width * 0.92,
                bottom=1,
                color=_COLOURS[name],
                label=name,
            )
        axes.set_yscale("log")
        axes.axhline(1, color="black", linewidth=1)
        axes.set_ylim(min(0.5, *ratios) * 0.9, max(ratios) * 1.7)
        axes.yaxis.set_major_formatter("{x:g}×")
        axes.set_ylabel(f"time over that of {first}")
        axes.annotate(_TITLES[mode], (0.01, 0.93), xycoords="axes fraction")
        axes.set_xticks(range(len(cases)), [case.replace("_", "\n") for case in cases])
        axes.tick_params(axis="x", length=0)
    _legend(figure, panels)
    return figure


def draw_sweeps(rows: Rows) -> Any:
    """Draw time above temporaries, a column per sweep, a cross where none would run."""
    letters = [letter for letter in SWEEPS if _some(rows, sweep=letter)]
    figure, panels = _panels(2, len(letters), height=5)
    for column, letter in zip(panels.T, letters, strict=True):
        for name in CONTENDERS:
            points = _some(rows, sweep=letter, impl=name)
            for axes, cost in zip(column, (_milliseconds, _megabytes), strict=True):
                _line(axes, points, SWEEPS[letter].size, cost, name)
        for axes in column:
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.xaxis.set_major_formatter(_power)
            axes.yaxis.set_major_formatter("{x:,g}")
            axes.yaxis.set_minor_formatter("")
        column[1].set_xlabel(_SIZES[letter])
    panels[0, 0].set_ylabel("loss and gradient, ms")
    panels[1, 0].set_ylabel("temporaries, MB")
    _legend(figure, panels)
    return figure


def _line(axes: Any, points: Rows, size: str, cost: Any, name: str) -> None:
    """Draw one contender; no time is known where it did not run: a cross on top."""
    known = [(row[size], cost(row)) for row in points]
    known = [(x, y) for x, y in known if not math.isnan(y)]
    if known:
        style = {"color": _COLOURS[name], "label": name, "markersize": 3}
        axes.plot(*zip(*known, strict=True), "o-", **style)
    failed = [
        row[size]
        for row in points
        if "seconds" not in row and not row.get("note", "").startswith("skipped")
    ]
    if cost is _milliseconds:
        # One below the other: several may fail at the same size.
        height = 0.98 - 0.06 * list(_COLOURS).index(name)
        heights, transform = [height] * len(failed), axes.get_xaxis_transform()
    else:
        by_size = dict(known)
        failed = [x for x in failed if x in by_size]
        heights, transform = [by_size[x] for x in failed], axes.transData
    if failed:
        axes.plot(
            failed,
            heights,
            "x",
            color=_COLOURS[name],
            markersize=10,
            markeredgewidth=2.5,
            transform=transform,
            label="did not run",
        )


def _milliseconds(row: dict[str, Any]) -> float:
    return 1e3 * float(np.median(row["seconds"])) if "seconds" in row else math.nan


def _megabytes(row: dict[str, Any]) -> float:
    return row["temporaries"] / 1e6 if row.get("temporaries") else math.nan


def _power(x: float, _: Any) -> str:
    return f"{x / 1024:g}k" if x >= 1024 else f"{x:g}"


def _some(rows: Rows, **wanted: str) -> Rows:
    return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


def _panels(rows: int, columns: int, height: float) -> tuple[Any, Any]:
    """Return a figure 900 pixels wide, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharex="col")
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, panels


def _legend(figure: Any, panels: Any) -> None:
    """Name every contender once, above all panels."""
    entries = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    names = sorted(entries, key=[*CONTENDERS, "did not run"].index)
    figure.legend(
        [entries[name] for name in names],
        names,
        loc="outside upper center",
        ncols=len(names),
        frameon=False,
    )
