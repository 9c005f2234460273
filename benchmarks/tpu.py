"""What a frame costs on a TPU, kernels and gathers included, by its compiler's account.

    python -m benchmarks.tpu --impl tpu blocked optax --case char

Cycles per frame of one chip; every operation counts as often as the program starts it:

* XLA's operations by the compiler's own estimate of cycles;
* those that it has no estimate for (gathers, scatters, some copies) by the bundles that
  it scheduled for them: a bundle is a cycle at least, but what is inside of a loop is
  counted once, so this is a lower bound;
* Pallas kernels by their bundles, loops counted as often as they turn.

Waiting for memory is in none of them but the first. It is what compilers say, and no
speed: nothing here has run.
"""

import dataclasses
import json
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import hlo, kernels, targets
from benchmarks.about import about
from benchmarks.contenders import MODES
from benchmarks.names import unknown
from jax_ctc._lattice.problem import Problem
from jax_ctc._recursion.tpu.kernels import TURN
from jax_ctc._recursion.tpu.walk import make_plan
from tests.cases import Case, named, tagged

CASES = ("char", *(case.name for case in tagged("tpu")))
# The name that a kernel is given, and how JAX calls what it is wrapped in.
_KERNEL = re.compile(r"ctc_(alpha|beta)\b")
_BUNDLE = re.compile(r"\s+(?:0x[0-9a-f]+|\d+)\s+([A-Z]{2})?\s*:\s*((?:> ?)*)\{")


@dataclasses.dataclass
class Options:
    """What to compile, and for what."""

    case: tuple[str, ...] = CASES
    target: tuple[str, ...] = ("v5e x 1",)
    impl: tuple[str, ...] = ("tpu", "blocked", "optax")
    mode: tuple[str, ...] = MODES
    out: pathlib.Path = pathlib.Path("out/tpu.jsonl")


class Region(NamedTuple):
    """Bundles between two ends of loops, and how many loops they are in."""

    depth: int
    bundles: int


def main(options: Options) -> int:
    """Compile everything asked for; 2 if something cannot be."""
    fault = find_fault(options)
    if fault:
        print(fault, file=sys.stderr)
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows, where = [], about()
    with tempfile.TemporaryDirectory() as folder, options.out.open("w") as file:
        kernels.dump_schedules(pathlib.Path(folder))
        for case in options.case:
            for target in options.target:
                for mode in options.mode:
                    for impl in options.impl:
                        job = named(case), target, impl, mode
                        rows.append(measure(*job, pathlib.Path(folder)))
                        file.write(json.dumps(rows[-1] | where) + "\n")
                        file.flush()
    Console(width=None if sys.stdout.isatty() else 120).print(table(rows))
    print(f"{len(rows)} rows in {options.out}")
    return 0


def find_fault(options: Options) -> str | None:
    """Name the first option that cannot be meant, or compiled for."""
    chips = [t for t in targets.TARGETS if t.startswith("v") and t.endswith("x 1")]
    known = {
        "--case": (options.case, list(CASES)),
        "--target": (options.target, chips),
        "--impl": (options.impl, ["tpu", "blocked", "scan", "optax"]),
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


def measure(
    case: Case, target: str, impl: str, mode: str, folder: pathlib.Path
) -> dict[str, Any]:
    """Compile one program and read its figures."""
    for old in folder.iterdir():
        old.unlink()
    start = time.process_time()
    compiled = kernels.build(case, target, impl, mode)
    seconds = time.process_time() - start
    found = hlo.launches(compiled.as_text())
    bundles = kernels.scheduled(folder)
    ours = [each for each in found if _KERNEL.search(each.name)]
    others = [each for each in found if not _KERNEL.search(each.name)]
    silent = [each for each in others if not each.cycles]
    cycles = {
        "estimated": sum(each.times * each.cycles for each in others),
        "unestimated": sum(each.times * bundles.get(each.name, 0) for each in silent),
        "kernels": sum(
            each.times * in_kernel(case, each.name, folder) for each in ours
        ),
    }
    sizes = case.batch, case.frames, case.classes, case.labels
    return {
        "case": case.name,
        "sizes": sizes,
        "target": target,
        "mode": mode,
        "impl": impl,
        "cycles": sum(cycles.values()) / case.frames,
        **{name: value / case.frames for name, value in cycles.items()},
        "launches": sum(each.times for each in found) / case.frames,
        "temporaries": compiled.memory_analysis().temp_size_in_bytes,
        "compile_s": seconds,
    }


def in_kernel(case: Case, name: str, folder: pathlib.Path) -> int:
    """Return the bundles of one call of a kernel, its loops as often as they turn.

    The first loop goes through the steps of its grid, those inside through turns.
    """
    shape = jax.ShapeDtypeStruct
    batch, labels = case.batch, case.labels
    plan = make_plan(
        Problem(
            scores=shape((batch, case.frames, case.classes), jnp.float32),  # type: ignore
            ids=shape((batch, labels + 1), jnp.int32),  # type: ignore
            can_skip=shape((batch, labels), bool),  # type: ignore
            num_labels=shape((batch,), jnp.int32),  # type: ignore
            logit_lengths=shape((batch,), jnp.int32),  # type: ignore
        ),
        normalise=True,
    )
    steps = plan.cut.slots.tiles * plan.chunk // plan.cut.block
    times = (1, steps, steps * plan.cut.block // TURN)
    return sum(times[region.depth] * region.bundles for region in regions(name, folder))


def regions(name: str, folder: pathlib.Path) -> list[Region]:
    """Read the final schedule of an operation, cut wherever a loop begins or ends."""
    [path] = (
        path
        for path in folder.glob(f"*-{name}-*final_bundles.txt")
        if "schedule" not in path.name
    )
    found: list[Region] = []
    with path.open() as lines:
        for depth, is_start in _bundles(lines):
            if not found or is_start or depth != found[-1].depth:
                found.append(Region(depth, 0))
            found[-1] = Region(depth, found[-1].bundles + 1)
    return found


def _bundles(lines: Any) -> Iterator[tuple[int, bool]]:
    """Yield of each bundle how many loops it is in, and whether one starts there."""
    for line in lines:
        match = _BUNDLE.match(line[:80])
        if match:
            yield match[2].count(">"), match[1] == "LB"


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay the rows out for reading."""
    out = Table("B × T × V × U", "target", "mode", "impl")
    parts = ("cycles", "estimated", "unestimated", "kernels")
    for heading in (*parts, "launches", "MB", "compile, s"):
        out.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        out.add_row(
            "×".join(map(str, row["sizes"])),
            row["target"],
            row["mode"],
            row["impl"],
            *(f"{row[part]:,.0f}" for part in parts),
            f"{row['launches']:.2f}",
            f"{row['temporaries'] / 1e6:.1f}",
            f"{row['compile_s']:.0f}",
        )
    return out


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.tpu")))
