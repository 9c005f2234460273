"""How much of the loss's time is the lattice: beside the least that a gradient costs.

    python -m benchmarks.floor --case wordpiece big_vocabulary

`floor` is value and gradient of the mean log-sum-exp of the same logits: a pass that
reads them, a pass that writes a gradient of their size, and no lattice, as XLA has it.
No loss in plain XLA can be faster, for it does that too. `share` is the floor over the
loss, the median over rounds in which both take turns. `faults` are pages that nobody
had touched, which the system gives one by one: in a call of the loss, and of the floor.
"""

import dataclasses
import resource
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.contenders import CONTENDERS, missing
from benchmarks.contenders.program import Program
from benchmarks.measure import interleave
from benchmarks.names import unknown
from tests.cases import Batch, named, tagged


@dataclasses.dataclass
class Options:
    """What to measure, and how often."""

    case: tuple[str, ...] = tuple(case.name for case in tagged("bench"))
    rounds: int = 21


def main(options: Options) -> int:
    """Print a row per case; 2 if there is no such case."""
    if says_fault(options):
        return 2
    ours = next(name for name in CONTENDERS if not missing(name))
    table = Table("case", "gradient, MB", "loss, ms", "floor, ms", "share", "faults")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name in progress.track(options.case):
            batch = named(name).make()
            both = {
                "loss": CONTENDERS[ours](batch, "value_and_grad"),
                "floor": floor(batch),
            }
            seconds = interleave(both, options.rounds)
            loss, least = (np.asarray(seconds[key]) for key in both)
            table.add_row(
                name,
                f"{batch.logits.nbytes / 1e6:.1f}",
                f"{np.median(loss) * 1e3:.1f}",
                f"{np.median(least) * 1e3:.1f}",
                f"{np.median(least / loss):.2f}",
                " / ".join(str(faults(program.run)) for program in both.values()),
            )
    Console().print(table)
    return 0


def says_fault(options: Options) -> bool:
    """Print which case there is none of, if one is asked for."""
    fault = unknown("--case", options.case, [case.name for case in tagged("bench")])
    if fault:
        print(fault, file=sys.stderr)
    return fault is not None


def faults(run: Callable[[], object]) -> int:
    """Return how many pages a call is the first to touch; the fewest of three calls."""

    def one() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        run()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    return min(one() for _ in range(3))


def floor(batch: Batch) -> Program:
    """Compile what has the loss's input and output, and nothing between."""

    def mean(logits: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.logsumexp(logits, axis=2))

    logits = jnp.asarray(batch.logits)
    compiled = jax.jit(jax.value_and_grad(mean)).lower(logits).compile()
    return Program(lambda: jax.block_until_ready(compiled(logits)), None, None, None)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.floor")))
