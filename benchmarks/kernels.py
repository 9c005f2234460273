"""What an accelerator would launch per frame, compiled for one that is not there.

    python -m benchmarks.kernels --target "H100 x 1" "v5e x 1" --impl blocked optax

Value, and value and gradient, of one case on one chip. Launches are the operations that
the device starts one by one, in loops as often as they turn. For a TPU also cycles, by
the compiler's own model of each operation (which starts at some 1,800 for any), and the
bundles that it scheduled for them, each counted once for each time its operation is
started. No speed is measured here, nor can it be concluded.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from jax.sharding import PartitionSpec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import hlo, targets
from benchmarks.about import about
from benchmarks.contenders import MODES
from benchmarks.contenders.on_jax import LOSSES, Loss, in_mode, ours
from benchmarks.names import unknown
from jax_ctc import _recursion
from jax_ctc._output.whole import write_whole
from tests.cases import Case, named, tagged

_BUNDLES = re.compile(r"total scheduled bundles:\s+(\d+)")


@dataclasses.dataclass
class Options:
    """What to compile, and for what."""

    case: str = "char"
    target: tuple[str, ...] = ("H100 x 1", "v5e x 1")
    impl: tuple[str, ...] = ("cuda", "blocked", "scan", "optax")
    mode: tuple[str, ...] = MODES
    out: pathlib.Path = pathlib.Path("out/kernels.jsonl")


def main(options: Options) -> int:
    """Compile everything asked for; 2 if something cannot be."""
    fault = find_fault(options)
    if fault:
        print(fault, file=sys.stderr)
        return 2
    case = named(options.case)
    jobs = [
        (target, impl, mode)
        for target in options.target
        for mode in options.mode
        for impl in options.impl
        if _is_for(impl, target)
    ]
    with tempfile.TemporaryDirectory() as folder:
        dump_schedules(pathlib.Path(folder))
        with Progress(console=Console(stderr=True), transient=True) as progress:
            rows = [
                measure(case, *job, pathlib.Path(folder))
                for job in progress.track(jobs)
            ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    where = about()
    text = "".join(json.dumps(row | where) + "\n" for row in rows)
    write_whole(options.out, text)
    Console(width=None if sys.stdout.isatty() else 120).print(table(rows))
    print(f"{len(rows)} rows in {options.out}")
    return 0


def find_fault(options: Options) -> str | None:
    """Name the first option that cannot be meant, or compiled for."""
    known = {
        "--case": ([options.case], [case.name for case in tagged("bench")]),
        "--target": (options.target, [t for t in targets.TARGETS if t.endswith("x 1")]),
        "--impl": (options.impl, list(LOSSES)),
        "--mode": (options.mode, list(MODES)),
    }
    for flag, (given, names) in known.items():
        fault = unknown(flag, given, names)
        if fault:
            return fault
    for name in options.target:
        if targets.missing(name):
            return f"--target {name}: {targets.missing(name)}"
    return None


def _is_for(impl: str, target: str) -> bool:
    """Tell whether an implementation is for a target: a guest is for one platform."""
    guest = _recursion.GUESTS.get(impl)
    return guest is None or targets.TARGETS[target][0] == guest.PLATFORM


def dump_schedules(folder: pathlib.Path) -> None:
    """Have the TPU compiler write down its schedules; it reads this once, at start."""
    os.environ["LIBTPU_INIT_ARGS"] = (
        f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
    )


def measure(
    case: Case, target: str, impl: str, mode: str, folder: pathlib.Path
) -> dict[str, Any]:
    """Compile one program and read its figures."""
    for old in folder.iterdir():
        old.unlink()
    start = time.perf_counter()
    compiled = build(case, target, impl, mode)
    seconds = time.perf_counter() - start
    found = hlo.launches(compiled.as_text())
    row = {
        "case": case.name,
        "target": target,
        "mode": mode,
        "impl": impl,
        "launches": sum(each.times for each in found) / case.frames,
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
        "compile_s": seconds,
    }
    if target.startswith("v5e"):
        bundles = scheduled(folder)
        row["cycles"] = sum(each.times * each.cycles for each in found) / case.frames
        row["bundles"] = (
            sum(each.times * bundles.get(each.name, 0) for each in found) / case.frames
        )
    return row


def build(case: Case, target: str, impl: str, mode: str) -> Any:
    """Compile one loss of a case for one chip."""
    if impl in _recursion.GUESTS:
        with preferring(impl):
            return _build(case, target, ours(None, case.blank_id), mode)
    return _build(case, target, LOSSES[impl](case.blank_id), mode)


@contextlib.contextmanager
def preferring(guest: str) -> Iterator[None]:
    """Have programs take a guest where they run; by name it would have to run here."""
    before = _recursion.PREFERRED
    _recursion.PREFERRED = guest
    jax.clear_caches()
    try:
        yield
    finally:
        _recursion.PREFERRED = before
        jax.clear_caches()


def _build(case: Case, target: str, loss: Loss, mode: str) -> Any:
    mesh = targets.mesh_of(target, chips=1)
    sizes = case.batch, case.frames, case.classes
    shapes: list[tuple[tuple[int, ...], Any]] = [
        (sizes, jnp.float32),
        ((case.batch, case.labels), jnp.int32),
        ((case.batch,), jnp.int32),
        ((case.batch,), jnp.int32),
    ]
    function = in_mode(loss, mode)
    return targets.compile_for(
        mesh, function, *((shape, dtype, PartitionSpec()) for shape, dtype in shapes)
    )


def scheduled(folder: pathlib.Path) -> dict[str, int]:
    """Read how many bundles the compiler scheduled for each operation."""
    found = {}
    for path in folder.glob("*-schedule-analysis_final_bundles.txt"):
        name = re.sub(r"^\d+-|-\d+-schedule-analysis_final_bundles$", "", path.stem)
        total = _BUNDLES.search(path.read_text())
        if total:
            found[name] = int(total[1])
    return found


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay the rows out for reading."""
    out = Table("target", "mode", "impl")
    for heading in ("launches/frame", "MB", "cycles/frame", "bundles/frame"):
        out.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        out.add_row(
            row["target"],
            row["mode"],
            row["impl"],
            rate(row["launches"]),
            f"{row['temporaries'] / 1e6:.1f}",
            f"{row['cycles']:,.0f}" if "cycles" in row else "",
            f"{row['bundles']:,.0f}" if "bundles" in row else "",
        )
    return out


def rate(launches: float) -> str:
    """Write launches per frame: a kernel of all frames has a few in thousands."""
    return f"{launches:.1f}" if launches > 0.1 else f"{launches:.3f}"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.kernels")))
