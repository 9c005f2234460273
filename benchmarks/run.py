"""Time, compile time, temporaries and gradient error of every contender.

    python -m benchmarks.run --case char ocr --impl blocked optax --mode value
    python -m benchmarks.run --cold --impl cpu optax torch
    python -m benchmarks.run --case --sweep T U V B

One JSON line per row goes to --out, and as soon as it is known to --out with ".part"
behind its name, which stays if the run is ended early; a table to the terminal, and
pictures beside --out. `time` is the median with the quartiles, `ratio` the contender's
fastest round over that of the first contender: above 1 means that the first is faster.
`MB` is what XLA holds besides arguments and results, and what a kernel holds itself.
On a GPU `device` is the milliseconds, and the operations launched, that a profiler saw
there in one run; `time` has the host's part too.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.about import about
from benchmarks.contenders import CONTENDERS, MODES, SWEPT, here
from benchmarks.measure import Bench, held
from benchmarks.names import unknown
from benchmarks.plots import plot
from benchmarks.sweeps import ROUNDS, SWEEPS
from tests.cases import named, tagged

# Called by PyTorch itself: where its gradient is off, the note says by how much.
_TRUSTED = {"torch_cudnn"}


@dataclasses.dataclass
class Options:
    """What to measure, and how often."""

    case: tuple[str, ...] = tuple(case.name for case in tagged("bench"))
    """Batches of real sizes; none: --case with nothing after it."""
    sweep: tuple[str, ...] = ()
    """Sizes to double, value and gradient: T U V B."""
    impl: tuple[str, ...] = ()
    """Contenders; by default all on cases, ours, optax and torch on sweeps."""
    mode: tuple[str, ...] = MODES
    """Modes of the cases."""
    cold: bool = False
    """Of the cases, time the first run after a pause, of threads and cores asleep."""
    rounds: int = 11
    """How often every contender runs a case; a sweep at most 3 times."""
    out: pathlib.Path = pathlib.Path("out/bench.jsonl")
    """The record; an old one is replaced when all is measured."""


def main(options: Options) -> int:
    """Measure everything asked for; 2 if something asked for does not exist."""
    fault = find_fault(options)
    if fault:
        print(fault, file=sys.stderr)
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows, where = [], about()
    draft = options.out
    if not draft.exists() or draft.is_file():  # nothing is renamed over a device
        draft = draft.with_name(f"{draft.name}.part")
    with (
        draft.open("w") as file,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("", total=None)
        for some in measure(
            options, lambda now: progress.update(task, description=now)
        ):
            file.writelines(json.dumps(row | where) + "\n" for row in some)
            file.flush()  # whatever kills the next one, these are kept
            rows += some
    draft.replace(options.out)
    # A pipe has no width of its own, and a cut figure is no figure.
    Console(width=None if sys.stdout.isatty() else 140).print(table(rows))
    for path in (options.out, *plot(rows, options.out)):
        print(path)
    return 0


def find_fault(options: Options) -> str | None:
    """Name the first option that cannot be meant."""
    known = {
        "--case": [case.name for case in tagged("bench")],
        "--sweep": list(SWEEPS),
        "--impl": list(CONTENDERS),
        "--mode": list(MODES),
    }
    for flag, names in known.items():
        fault = unknown(flag, getattr(options, flag.removeprefix("--")), names)
        if fault:
            return fault
    if options.rounds < 1:
        return f"--rounds must be at least 1; got {options.rounds}"
    if options.cold and options.sweep:
        return "--cold is for cases: give --sweep nothing, or leave --cold out"
    if not (options.case or options.sweep):
        return "nothing to measure: give --case or --sweep a name"
    return None


def measure(
    options: Options, say: Callable[[str], Any]
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each case and mode, then those of each point of the sweeps."""
    for name in options.case:
        say(f"{name}: gradient in float64")
        labels = {"case": name} | ({"cold": True} if options.cold else {})
        bench = Bench(named(name), labels, is_cold=options.cold)
        for mode in options.mode:
            say(f"{name}: {mode}")
            names = options.impl or here(CONTENDERS)
            yield bench.measure(mode, names, options.rounds, _TRUSTED)
    for letter in options.sweep:
        trusted: set[str] = set()
        for case in SWEEPS[letter].cases():
            say(case.name)
            bench = Bench(case, {"case": case.name, "sweep": letter}, precise=False)
            rows = bench.measure(
                "value_and_grad",
                options.impl or here(SWEPT),
                min(options.rounds, ROUNDS),
                trusted,
            )
            trusted |= {row["impl"] for row in rows if "seconds" in row}
            yield rows


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay the rows out for reading."""
    is_cold = any(row.get("cold") for row in rows)
    out = Table(title="the first run after a pause" if is_cold else None)
    for heading in ("case", "mode", "impl", "time, ms", "ratio", "compile, s", "MB"):
        out.add_column(heading, no_wrap=True)
    is_on_gpu = any("device_ms" in row for row in rows)
    if is_on_gpu:
        out.add_column("device, ms (launches)", no_wrap=True)
    out.add_column("gradient error")
    out.add_column("note")
    for row in rows:
        cells = ["", ""]
        if "seconds" in row:
            low, middle, high = np.percentile(row["seconds"], [25, 50, 75]) * 1e3
            cells = [f"{middle:.2f} ({low:.2f}-{high:.2f})", f"{row['ratio']:.2f}"]
        cells += [
            f"{row['compile_s']:.1f}" if "compile_s" in row else "",
            f"{held(row) / 1e6:.1f}" if "temporaries" in row else "",
        ]
        if is_on_gpu:
            cells.append(_on_device(row))
        cells += [
            f"{row['gradient_error']:.1e}" if "gradient_error" in row else "",
        ]
        out.add_row(row["case"], row["mode"], row["impl"], *cells, row.get("note", ""))
    return out


def _on_device(row: dict[str, Any]) -> str:
    if "device_ms" not in row:
        return ""
    return f"{row['device_ms']:.3f} ({row['launches']:,.0f})"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.run")))
