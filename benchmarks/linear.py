"""The last layer and its loss, with logits and without: time, memory, error.

    python -m benchmarks.linear --classes 8192 --width 256
    python -m benchmarks.linear --target "v5e x 1" "H100 x 1"

One step is the mean loss of features @ kernel + bias and its gradients with respect to
all three. Time is the fastest of the rounds, which contenders take in turns; MB are the
temporaries that XLA plans beside arguments and results; an error is the largest of an
entry of a gradient against float64, over that gradient's largest entry, of the first 64
frames of two utterances. With --rounds 0 nothing runs. With --target neither: the step
is compiled for a chip that is not here, and peak is all that it holds at once. A
picture of the temporaries goes beside --out.
"""

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax.sharding import PartitionSpec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import jax_ctc
from benchmarks import targets
from benchmarks.about import about
from benchmarks.contenders import Program
from benchmarks.measure import interleave
from benchmarks.memory import available, shortage
from benchmarks.names import unknown
from jax_ctc._lattice import projected


class Arguments(NamedTuple):
    """Of every contender."""

    features: Any  # [B, T, D]
    kernel: Any  # [D, V]
    bias: Any  # [V]
    labels: Any  # [B, U]


def linear(features: Any, kernel: Any, bias: Any, labels: Any) -> jax.Array:
    """Without logits."""
    return jax_ctc.linear_ctc_loss(features, kernel, bias, labels)


def plain(features: Any, kernel: Any, bias: Any, labels: Any) -> jax.Array:
    """`ctc_loss` of logits."""
    return jax_ctc.ctc_loss(_logits(features, kernel, bias), labels)


def with_optax(features: Any, kernel: Any, bias: Any, labels: Any) -> jax.Array:
    """`optax.ctc_loss` of logits."""
    logits = _logits(features, kernel, bias)
    none = jnp.zeros(logits.shape[:2]), jnp.zeros(labels.shape)
    return optax.ctc_loss(logits, none[0], labels, none[1])


def _logits(features: Any, kernel: Any, bias: Any) -> jax.Array:
    return jnp.einsum("btd,dv->btv", features, kernel, precision="highest") + bias


_NAMES = {
    "plain": "layer, then ctc_loss",
    "linear": "linear_ctc_loss",
    "optax": "layer, then optax.ctc_loss",
}
# By name; times are told as a multiple of the first one's.
LOSSES: dict[str, Callable[..., jax.Array]] = {
    "plain": plain,
    "linear": linear,
    "optax": with_optax,
}


@dataclasses.dataclass
class Options:
    """What to measure, and how often."""

    classes: tuple[int, ...] = (1024, 8192, 32768, 131072)
    width: tuple[int, ...] = (256, 1024)
    """Features of a frame."""
    batch: int = 8
    frames: int = 512
    labels: int = 60
    impl: tuple[str, ...] = tuple(LOSSES)
    rounds: int = 3
    target: tuple[str, ...] = ()
    """Compile for these, and run nothing: v5e x 1, H100 x 1."""
    out: pathlib.Path = pathlib.Path("out/linear.jsonl")
    """The record; an old one is overwritten."""


def main(options: Options) -> int:
    """Measure everything asked for; 2 if something asked for does not exist."""
    chips = [name for name in targets.TARGETS if name.endswith("x 1")]
    fault = unknown("--impl", options.impl, list(LOSSES)) or unknown(
        "--target", options.target, chips
    )
    fault = fault or next(filter(None, map(targets.missing, options.target)), None)
    if fault:
        print(fault, file=sys.stderr)
        return 2
    points = [(v, d) for d in options.width for v in options.classes]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows, where = [], about()
    with (
        options.out.open("w") as file,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        for classes, width in progress.track(points):
            look = compile_only if options.target else measure
            for row in look(options, classes, width):
                rows.append(row)
                file.write(json.dumps(row | where) + "\n")
                file.flush()
    Console(width=None if sys.stdout.isatty() else 120).print(table(rows))
    for path in (options.out, *plot(rows, options.out)):
        print(path)
    return 0


def arguments(batch: int, frames: int, width: int, classes: int, u: int) -> Arguments:
    """Return a layer as it is initialised, and what it is given."""
    rng = np.random.default_rng(0)
    normal = [
        rng.standard_normal(shape, np.float32)
        for shape in ((batch, frames, width), (width, classes), (classes,))
    ]
    labels = rng.integers(1, classes, (batch, u)).astype(np.int32)
    return Arguments(normal[0], normal[1] / np.float32(width**0.5), normal[2], labels)


def step(name: str) -> Callable[..., Any]:
    """Return the mean loss of a contender with all gradients."""

    def mean(*arguments: Any) -> jax.Array:
        return jnp.mean(LOSSES[name](*arguments))

    return jax.value_and_grad(mean, argnums=(0, 1, 2))


def measure(options: Options, classes: int, width: int) -> list[dict[str, Any]]:
    """Return one row per contender that fits into memory."""
    given = arguments(options.batch, options.frames, width, classes, options.labels)
    arrays = tuple(map(jnp.asarray, given))
    rows, programs, truth = [], {}, None
    for name in options.impl:
        start = time.perf_counter()
        compiled = jax.jit(step(name)).lower(*arrays).compile()
        memory: Any = compiled.memory_analysis()
        needs = memory.temp_size_in_bytes + memory.output_size_in_bytes
        row = {
            "impl": name,
            "classes": classes,
            "width": width,
            "sizes": [options.batch, options.frames, options.labels],
            "compile_s": time.perf_counter() - start,
            "temporaries": memory.temp_size_in_bytes,
        }
        rows.append(row)
        program = Program(
            run=lambda compiled=compiled: jax.block_until_ready(compiled(*arrays)),
            lower_s=None,
            compile_s=None,
            temporaries=memory.temp_size_in_bytes,
            needs=needs,
        )
        note = shortage(program, available())
        if not options.rounds:
            continue
        if note:
            row["note"] = note
        else:
            programs[name] = program
            truth = exact_gradients(given) if truth is None else truth
            row["error"] = gradient_error(name, given, truth)
    seconds = interleave(programs, options.rounds) if programs else {}
    for row in rows:
        row["seconds"] = seconds.get(row["impl"])
    return rows


def exact_gradients(given: Arguments) -> list[np.ndarray]:
    """Return the gradients of some frames of two utterances, in float64."""
    few = _few(given)
    with jax.enable_x64(True):
        wide = [jnp.asarray(x, jnp.float64) for x in few[:3]]
        return [np.asarray(x) for x in jax.jit(step("plain"))(*wide, few.labels)[1]]


def gradient_error(name: str, given: Arguments, truth: list[np.ndarray]) -> float:
    """Return the largest error of any gradient, relative to its largest entry."""
    found = jax.jit(step(name))(*_few(given))[1]
    return max(
        float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max())
        for a, b in zip(found, truth, strict=True)
    )


def _few(given: Arguments) -> Arguments:
    return Arguments(given.features[:2, :64], *given[1:3], given.labels[:2, :12])


def compile_only(options: Options, classes: int, width: int) -> list[dict[str, Any]]:
    """Return what one chip would hold at once, of each target."""
    sizes = options.batch, options.frames
    shapes = [
        ((*sizes, width), jnp.float32),
        ((width, classes), jnp.float32),
        ((classes,), jnp.float32),
        ((options.batch, options.labels), jnp.int32),
    ]
    rows = []
    for target in options.target:
        mesh = targets.mesh_of(target, chips=1)
        for name in options.impl:
            row = {"impl": name, "classes": classes, "width": width, "target": target}
            rows.append(row)
            jax.clear_caches()  # of blocks as they are here
            try:
                with mock.patch.dict(projected._BLOCK, clear=True):
                    compiled = targets.compile_for(
                        mesh, step(name), *((s, t, PartitionSpec()) for s, t in shapes)
                    )
            except jax.errors.JaxRuntimeError as error:  # such as: it does not fit
                row["note"] = str(error).splitlines()[0][:60]
                continue
            memory: Any = compiled.memory_analysis()
            row["temporaries"] = memory.temp_size_in_bytes
            row["peak"] = (
                memory.temp_size_in_bytes
                + memory.argument_size_in_bytes
                + memory.output_size_in_bytes
                - memory.alias_size_in_bytes
            )
    return rows


def plot(rows: list[dict[str, Any]], beside: pathlib.Path) -> list[pathlib.Path]:
    """Draw temporaries over V, a panel for each width; nothing for a single V."""
    rows = [row for row in rows if "temporaries" in row and "target" not in row]
    if len({row["classes"] for row in rows}) < 2:
        return []
    import matplotlib.pyplot as plt

    widths = sorted({row["width"] for row in rows})
    figure, panels = plt.subplots(
        1, len(widths), figsize=(5 * len(widths), 4), sharey=True, squeeze=False
    )
    for panel, width in zip(panels[0], widths, strict=True):
        for name in dict.fromkeys(row["impl"] for row in rows):
            own = [r for r in rows if (r["impl"], r["width"]) == (name, width)]
            panel.plot(
                [row["classes"] for row in own],
                [row["temporaries"] / 1e6 for row in own],
                marker="o",
                label=_NAMES[name],
            )
        panel.set(xscale="log", yscale="log", xlabel="classes V", title=f"D = {width}")
        panel.grid(visible=True, alpha=0.3)
    panels[0][0].set_ylabel("temporaries, MB")
    panels[0][0].legend()
    path = beside.with_suffix(".png")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return [path]


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay the rows out for reading."""
    out = Table("V", "D", "step", "chip")
    for heading in ("time, s", "of plain", "MB", "peak, MB", "error"):
        out.add_column(heading, justify="right", no_wrap=True)
    out.add_column("note")
    fastest = {
        (row["classes"], row["width"], row["impl"]): min(row["seconds"])
        for row in rows
        if row.get("seconds")
    }
    for row in rows:
        key = row["classes"], row["width"]
        own, base = fastest.get((*key, row["impl"])), fastest.get((*key, "plain"))
        out.add_row(
            f"{row['classes']:,}",
            str(row["width"]),
            row["impl"],
            row.get("target", "here"),
            f"{own:.2f}" if own else "",
            f"{own / base:.2f}" if own and base else "",
            f"{row['temporaries'] / 1e6:,.0f}" if "temporaries" in row else "",
            f"{row['peak'] / 1e6:,.0f}" if "peak" in row else "",
            f"{row['error']:.1e}" if "error" in row else "",
            row.get("note", ""),
        )
    return out


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.linear")))
