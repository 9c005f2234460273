"""The tables that a record gives, as Markdown."""

import statistics
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.contenders import CONTENDERS
from benchmarks.measure import held
from benchmarks.sweeps import SWEEPS

Row = dict[str, Any]

_JUDGES = ("optax", "torch")
RIVALS = (
    *("blocked", "optax", "torch", "torch_cudnn"),
    *("tf_sparse", "tf_dense", "keras"),
)
TITLES = {
    "blocked": "ours in plain XLA",
    "tf_sparse": "TensorFlow, sparse",
    "tf_dense": "TensorFlow, dense",
    "keras": "Keras",
    "optax": "Optax",
    "torch": "PyTorch",
    "torch_cudnn": "PyTorch, cuDNN",
}
_MODES = {"value_and_grad": "", "value": ", loss alone"}
LETTERS = {"batch": "B", "frames": "T", "classes": "V", "labels": "U"}


class Record:
    """Rows by case, mode and contender."""

    def __init__(self, rows: list[Row]):
        """Tell cases from sweeps."""
        self.first = rows[0]
        timed = (row["impl"] for row in rows if "seconds" in row)
        self.ours = next(timed, rows[0]["impl"])  # which ratios are of
        self.rows = [row for row in rows if "sweep" not in row]
        self.swept = [row for row in rows if "sweep" in row]
        self.cases = list(dict.fromkeys(row["case"] for row in self.rows))
        self._by_key = {(r["case"], r["mode"], r["impl"]): r for r in self.rows}
        for case in self.cases:
            if "seconds" not in self.get(case, self.ours):
                raise ValueError(
                    f"the record has no time of {self.ours} on {case}, value and "
                    "gradient: measure all cases, modes and contenders with make bench"
                )

    def get(self, case: str, name: str, mode: str = "value_and_grad") -> Row:
        """Return a row, empty where the record has none."""
        return self._by_key.get((case, mode, name), {})

    def rivals(self) -> list[str]:
        """Return the rivals that were timed in any case."""
        timed = {row["impl"] for row in self.rows if "seconds" in row}
        return [name for name in RIVALS if name in timed and name != self.ours]


def cases(rows: list[Row]) -> str:
    """Return time, then memory, precision and compiling, per case, in short."""
    record = Record(rows)
    rivals = record.rivals()
    times = []
    for case in record.cases:
        ratios = [record.get(case, name).get("ratio") for name in rivals]
        time = milliseconds(record.get(case, record.ours))
        times.append(
            [case, sizes(record.get(case, record.ours)), time, *map(factor, ratios)]
        )
    for mode, title in _MODES.items():
        means = [
            mean(record.get(case, name, mode).get("ratio") for case in record.cases)
            for name in rivals
        ]
        times.append([f"geometric mean{title}", "", "", *map(factor, means)])
    costs = [_costs(record, case) for case in record.cases]
    ratios = [
        [_over(record, case, column) for case in record.cases]
        for column in ("temporaries", "compile")
    ]
    memory, compiling = (factor(mean(column)) for column in ratios)
    costs.append(["geometric mean", "", f"{memory} ours", "", "", "", compiling])
    faster = [f"{_faster(record, mode)}{title}" for mode, title in _MODES.items()]
    return "\n\n".join(
        [
            "Loss and gradient: our time, and each rival's as a multiple of ours:",
            table(["case", "B×T×V×U", "ours, ms", *(TITLES[n] for n in rivals)], times),
            f"The faster of Optax and PyTorch takes {'; '.join(faster)}.",
            "Loss and gradient: temporaries, the largest error of an entry of the "
            "gradient, and our time to compile as a multiple of Optax's:",
            table(
                ["case", "ours, MB", "Optax, MB"]
                + [
                    "ours, error",
                    "Optax, error",
                    "PyTorch, error",
                    "compiling",
                ],
                costs,
                left=1,
            ),
            source(record.first),
        ]
    )


def full(rows: list[Row]) -> str:
    """Return every contender, case and mode, with spreads and notes."""
    record = Record(rows)
    body = [
        [
            row["case"],
            row["mode"],
            row["impl"],
            spread(row),
            factor(row.get("ratio")),
            seconds(row.get("lower_s")),
            seconds(row.get("compile_s")),
            megabytes(row),
            error(row),
            row.get("note", ""),
        ]
        for row in record.rows
    ]
    headings = ["case", "mode", "contender", "time, ms (quartiles)", "ratio"]
    headings += ["lower, s", "compile, s", "MB", "gradient error", "note"]
    return "\n\n".join([table(headings, body, left=3), source(record.first)])


def sweeps(rows: list[Row]) -> str:
    """Return a table per swept size: times and temporaries, and who did not run."""
    record = Record(rows)
    parts = []
    for letter, sweep in SWEEPS.items():
        some = [row for row in record.swept if row["sweep"] == letter]
        if not some:
            continue
        names = [n for n in CONTENDERS if any(row["impl"] == n for row in some)]
        others = ", ".join(f"{LETTERS[k]} = {v}" for k, v in sweep.others.items())
        told = [
            n for n in names if any(r["impl"] == n and "temporaries" in r for r in some)
        ]
        body = []
        for size in dict.fromkeys(row[sweep.size] for row in some):
            at = {row["impl"]: row for row in some if row[sweep.size] == size}
            notes = [f"{n}: {r['note']}" for n, r in at.items() if "note" in r]
            body.append(
                [
                    f"{size:,}",
                    *(milliseconds(at.get(n, {})) for n in names),
                    *(megabytes(at.get(n, {})) for n in told),
                    "; ".join(notes),
                ]
            )
        headings = [letter, *(f"{n}, ms" for n in names), *(f"{n}, MB" for n in told)]
        parts += [
            f"{letter}, where {others}:",
            table([*headings, "note"], body, left=0),
        ]
    return "\n\n".join([*parts, source(record.first)])


def on_gpu(rows: list[Row]) -> str:
    """Return time, on the device too, then memory and precision, per case."""
    record = Record(rows)
    rivals = record.rivals()
    parts = []
    for mode, title in _MODES.items():
        body = []
        for case in record.cases:
            ours = record.get(case, record.ours, mode)
            if not ours:
                continue
            ratios = [record.get(case, name, mode).get("ratio") for name in rivals]
            launches = f"{ours['launches']:.0f}" if ours.get("launches") else "–"
            times = [fine(ours), launches, *map(factor, ratios)]
            body.append([case, sizes(ours), *times])
        means = [
            mean(record.get(case, name, mode).get("ratio") for case in record.cases)
            for name in rivals
        ]
        body.append(["geometric mean", "", "", "", *map(factor, means)])
        headings = ["case", "B×T×V×U", "ours, ms (on the device)", "launches"]
        headings += [TITLES[name] for name in rivals]
        parts += [f"Loss{title or ' and gradient'}:", table(headings, body)]
    names = [record.ours, *rivals]
    told = [record.ours, *(n for n in rivals if n in ("blocked", "optax"))]
    titles = TITLES | {record.ours: "ours"}
    costs = [
        [
            case,
            *(megabytes(record.get(case, name)) for name in told),
            *(error(record.get(case, name)) for name in names),
        ]
        for case in record.cases
    ]
    headings = [f"{titles[name]}, MB" for name in told]
    headings += [f"{titles[name]}, error" for name in names]
    return "\n\n".join(
        [
            *parts,
            "Loss and gradient: temporaries, and the largest error of an entry of the "
            "gradient:",
            table(["case", *headings], costs, left=1),
            source(record.first),
        ]
    )


TABLES = {"cases": cases, "full": full, "sweeps": sweeps, "gpu": on_gpu}


def source(row: Row) -> str:
    """Say where the record is from."""
    versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items() if v)
    return (
        f"`make bench` on {row['cpu']}, {row['cores']} cores ({row['device']}, "
        f"{row['machine']}), Python {row['python']}, {versions}; "
        f"commit {row['commit']}."
    )


def table(headings: list[str], rows: Iterable[list[str]], left: int = 2) -> str:
    """Return a table; from column `left` on all but notes are right-aligned."""
    rules = [
        "---" if number < left or heading == "note" else "---:"
        for number, heading in enumerate(headings)
    ]
    lines = [headings, rules, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean(ratios: Iterable[float | None]) -> float | None:
    """Return the geometric mean of those there are."""
    known = [ratio for ratio in ratios if ratio is not None]
    return statistics.geometric_mean(known) if known else None


def sizes(row: Row) -> str:
    """Return B×T×V×U."""
    return "×".join(str(row[size]) for size in LETTERS)


def milliseconds(row: Row) -> str:
    """Return the median."""
    return f"{1e3 * np.median(row['seconds']):.1f}" if "seconds" in row else "–"


def fine(row: Row) -> str:
    """Return the median, and what of it the device was busy."""
    if "seconds" not in row:
        return "–"
    time = f"{1e3 * np.median(row['seconds']):.3f}"
    return f"{time} ({row['device_ms']:.3f})" if row.get("device_ms") else time


def spread(row: Row) -> str:
    """Return the median and the quartiles."""
    if "seconds" not in row:
        return "–"
    low, middle, high = np.percentile(row["seconds"], [25, 50, 75]) * 1e3
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


def factor(ratio: float | None) -> str:
    """Return a multiple, to two or three figures."""
    if ratio is None:
        return "–"
    return f"{ratio:.0f}×" if ratio >= 100 else f"{ratio:.3g}×"


def seconds(time: float | None) -> str:
    """Return seconds to two figures."""
    return "–" if time is None else f"{time:.2f}"


def megabytes(row: Row) -> str:
    """Return what is held besides arguments and results, kernels' own included."""
    return f"{held(row) / 1e6:.1f}" if "temporaries" in row else "–"


def error(row: Row) -> str:
    """Return the gradient's error."""
    return f"{row['gradient_error']:.0e}" if "gradient_error" in row else "–"


def _costs(record: Record, case: str) -> list[str]:
    ours, optax, torch = (record.get(case, n) for n in (record.ours, "optax", "torch"))
    return [
        *(case, megabytes(ours), megabytes(optax)),
        *(error(row) for row in (ours, optax, torch)),
        factor(_over(record, case, "compile")),
    ]


def _faster(record: Record, mode: str) -> str:
    """Return how long the faster of the two takes: in the mean, and at least."""
    ratios = []
    for case in record.cases:
        both = (record.get(case, name, mode).get("ratio") for name in _JUDGES)
        ratios += [min(known)] if (known := [x for x in both if x is not None]) else []
    if not ratios:
        return "–"
    return (
        f"{factor(mean(ratios))} our time in the geometric mean "
        f"and {factor(min(ratios))} at least"
    )


def _over(record: Record, case: str, what: str) -> float | None:
    """Return Optax's temporaries over ours, or our lowering and compiling over its."""
    ours, optax = (record.get(case, name) for name in (record.ours, "optax"))
    if not {"compile_s", "temporaries"} <= ours.keys() & optax.keys():
        return None
    if what == "temporaries":
        return held(optax) / held(ours)
    return _building(ours) / _building(optax)


def _building(row: Row) -> float:
    return row["lower_s"] + row["compile_s"]
