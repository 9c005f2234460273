"""Time, compile time and temporaries of every contender on the `bench` cases.

    python -m benchmarks.run --case char ocr --impl blocked optax --mode value

One JSON line per row goes to --out; a table to the terminal. `time` is the median with
the quartiles, `ratio` the median over rounds of the contender's time over that of
the first contender in the same round: above 1 means that the first is faster.
"""

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.contenders import CONTENDERS, MODES, missing
from benchmarks.measure import agreement, interleave
from tests.cases import named, tagged

# optax is off by 1e-2 in the gradient of long utterances; a wrong loss is off by more.
_AGREEMENT = 5e-2


@dataclasses.dataclass
class Options:
    """What to measure, and how often."""

    case: tuple[str, ...] = tuple(case.name for case in tagged("bench"))
    impl: tuple[str, ...] = tuple(CONTENDERS)
    mode: tuple[str, ...] = MODES
    rounds: int = 11
    out: pathlib.Path = pathlib.Path("out/bench.jsonl")


def main(options: Options) -> int:
    """Measure everything asked for; 2 if something asked for does not exist."""
    fault = find_fault(options)
    if fault:
        print(fault, file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(options.case) * len(options.mode))
        for name in options.case:
            for mode in options.mode:
                progress.update(task, description=f"{name} {mode}")
                rows += measure(name, mode, options)
                progress.advance(task)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    about = environment()
    with options.out.open("w") as file:
        file.writelines(json.dumps(row | about) + "\n" for row in rows)
    # A pipe has no width of its own, and a cut figure is no figure.
    Console(width=None if sys.stdout.isatty() else 120).print(table(rows))
    print(f"{len(rows)} rows in {options.out}")
    return 0


def find_fault(options: Options) -> str | None:
    """Name the first option that cannot be meant."""
    known = {
        "--case": [case.name for case in tagged("bench")],
        "--impl": list(CONTENDERS),
        "--mode": list(MODES),
    }
    for (flag, names), given in zip(
        known.items(), (options.case, options.impl, options.mode), strict=True
    ):
        for name in given:
            if name not in names:
                return f"{flag} {name!r} is unknown; choose from {', '.join(names)}"
    if options.rounds < 1:
        return f"--rounds must be at least 1; got {options.rounds}"
    return None


def measure(case_name: str, mode: str, options: Options) -> list[dict[str, Any]]:
    """Return one row per contender; one that is missing or fails says so."""
    batch = named(case_name).make()
    programs, rows = {}, []
    for name in options.impl:
        row: dict[str, Any] = {"case": case_name, "mode": mode, "impl": name}
        rows.append(row)
        reason = missing(name)
        if reason:
            row["note"] = reason
            continue
        try:
            program = CONTENDERS[name](batch, mode)
            result = program.run()
        except (MemoryError, RuntimeError) as error:  # a row in the table, not the end
            row["note"] = f"failed: {str(error).splitlines()[0][:80]}"
            continue
        reference = programs[next(iter(programs))].run() if programs else result
        row["difference"] = agreement(result, reference)
        if not row["difference"] <= _AGREEMENT:
            row["note"] = "disagrees: not timed"
            continue
        programs[name] = program
        row["lower_s"], row["compile_s"] = program.lower_s, program.compile_s
        row["temporaries"] = program.temporaries
    seconds = interleave(programs, options.rounds)
    for row in rows:
        if row["impl"] in seconds:
            row["seconds"] = seconds[row["impl"]]
            row["ratio"] = ratio(row["seconds"], seconds[next(iter(seconds))])
    return rows


def ratio(theirs: list[float], ours: list[float]) -> float:
    """Return the median over rounds of their time over ours."""
    return float(np.median(np.asarray(theirs) / np.asarray(ours)))


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay the rows out for reading."""
    out = Table()
    for heading in ("case", "mode", "impl", "time, ms", "ratio", "compile, s", "MB"):
        out.add_column(heading, no_wrap=True)
    out.add_column("note")
    for row in rows:
        cells = ["", "", "", ""]
        if "seconds" in row:
            low, middle, high = np.percentile(row["seconds"], [25, 50, 75]) * 1e3
            cells[0] = f"{middle:.1f} ({low:.1f}-{high:.1f})"
            cells[1] = f"{row['ratio']:.2f}"
        if row.get("compile_s") is not None:
            cells[2] = f"{row['compile_s']:.1f}"
            cells[3] = f"{row['temporaries'] / 1e6:.1f}"
        out.add_row(row["case"], row["mode"], row["impl"], *cells, row.get("note", ""))
    return out


def environment() -> dict[str, Any]:
    """Return what a reader must know to compare two records."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    versions = {}
    for package in ("jax", "jaxlib", "numpy", "optax", "torch"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "device": str(jax.devices()[0].device_kind),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit.stdout.strip() or "unknown",
    }


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.run")))
