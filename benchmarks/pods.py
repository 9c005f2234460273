"""What one chip of a pod holds and sends, compiled for chips that are not there.

    python -m benchmarks.pods --target "v5e x 8" "H100 x 8"

Value and gradient of the mean loss of real model sizes, spread over 8 chips in each way
the library knows, and left to the compiler alone. Megabytes are those of one chip, as
its compiler plans them; sent is what collectives reduce, gather or pass on per step, in
loops as often as they turn.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from jax.sharding import PartitionSpec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import jax_ctc
from benchmarks import hlo, targets
from benchmarks.names import unknown

NUM_CHIPS = 8


class Model(NamedTuple):
    """The sizes of a loss: B utterances on all chips, T frames, V classes, U labels."""

    name: str
    shape: tuple[int, int, int, int]
    dtype: Any
    layouts: tuple[str, ...]


# 50 frames a second after a convolutional encoder, 25 after four-fold subsampling; T
# padded to a multiple of 8 on each chip, but for one, which shows what that is worth.
MODELS = (
    Model("characters, 30 s", (128, 1504, 32, 400), jnp.float32, ("batch",)),
    Model("wordpieces, 30 s", (256, 752, 1024, 120), jnp.float32, ("batch",)),
    Model("T not of 8", (256, 750, 1024, 120), jnp.float32, ("batch",)),
    Model(
        "128k tokens, 30 s",
        (8, 752, 128_256, 120),
        jnp.bfloat16,
        ("batch", "classes", "classes, untold"),
    ),
    Model("wordpieces, 1 h", (1, 90_112, 1024, 12_000), jnp.float32, ("frames",)),
)

# Where the logits lie, and what the loss is told.
LAYOUTS: dict[str, tuple[PartitionSpec, dict[str, str]]] = {
    "batch": (PartitionSpec("chips"), {}),
    "classes": (PartitionSpec(None, None, "chips"), {"vocab_axis": "chips"}),
    "classes, untold": (PartitionSpec(None, None, "chips"), {}),
    "frames": (PartitionSpec(None, "chips"), {"time_axis": "chips"}),
}


@dataclasses.dataclass
class Options:
    """Which machines to compile for."""

    target: tuple[str, ...] = ("v5e x 8", "v5p x 8", "H100 x 8")


def main(options: Options) -> int:
    """Compile everything asked for; 2 if a target is unknown or cannot be compiled."""
    known = [name for name in targets.TARGETS if name.endswith(f" x {NUM_CHIPS}")]
    fault = unknown("--target", options.target, known)
    if fault:
        print(fault, file=sys.stderr)
        return 2
    for name in options.target:
        if targets.missing(name):
            print(f"--target {name}: {targets.missing(name)}", file=sys.stderr)
            return 2
    table = Table("model", "B × T × V × U", "sharded", "chips")
    for heading in ("logits, MB", "temporaries, MB", "sent, MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    jobs = [
        (model, layout, name)
        for model in MODELS
        for layout in model.layouts
        for name in options.target
    ]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for model, layout, name in progress.track(jobs):
            table.add_row(*row(model, layout, name))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return 0


def row(model: Model, layout: str, name: str) -> list[str]:
    """Compile one program and read its figures."""
    compiled = build(model, layout, name)
    memory = compiled.memory_analysis()
    found = hlo.collectives(compiled.as_text())
    num_bytes, is_all = hlo.bytes_sent(found)
    batch, frames, classes, _ = model.shape
    logits = batch * frames * classes * model.dtype.dtype.itemsize / NUM_CHIPS
    return [
        model.name,
        " × ".join(map(str, model.shape)),
        layout,
        name,
        f"{logits / 1e6:.1f}",
        f"{memory.temp_size_in_bytes / 1e6:.1f}",
        f"{'' if is_all else '≥ '}{num_bytes / 1e6:.3f}",
    ]


def build(model: Model, layout: str, name: str) -> Any:
    """Compile value and gradient of the mean over the chips of a target."""
    batch, frames, classes, labels = model.shape
    place, options = LAYOUTS[layout]
    mesh = targets.mesh_of(name, chips=NUM_CHIPS)
    function: Callable[..., Any] = mean_and_gradient
    by_utterance = PartitionSpec("chips" if layout == "batch" else None)
    if options:
        function = jax.shard_map(
            functools.partial(mean_and_gradient, **options),
            mesh=mesh,
            in_specs=(place, by_utterance),
            out_specs=(PartitionSpec(), place),
        )
    return targets.compile_for(
        mesh,
        function,
        ((batch, frames, classes), model.dtype, place),
        ((batch, labels), jnp.int32, by_utterance),
    )


def mean_and_gradient(logits: jax.Array, labels: jax.Array, **options: Any) -> Any:
    """What a training step does with the logits."""

    def mean(logits: jax.Array) -> jax.Array:
        return jax_ctc.reduce_loss(jax_ctc.ctc_loss(logits, labels, **options))

    return jax.value_and_grad(mean)(logits)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.pods")))
