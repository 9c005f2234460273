"""What the digits of a sure model cost in plain XLA: two parts of the loss, each alone.

    python -m benchmarks.exactness --case char big_vocabulary

`loss` is the loss alone, by `blocked`. `sums` are those of the lattice, of emissions
that are ready: nothing is read and nothing normalised. `normaliser` is that of all
frames, a chunk at a time as the loss takes them, and nothing else. Both are in the
loss, so none that is made of them is faster than either. `careless` are the same as
they were before the loss kept what its sums lose, and what lies below a frame's peak.
Milliseconds, the least of the rounds, in which all take turns.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from jax import lax
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.contenders.program import Program
from benchmarks.floor import Options, says_fault
from benchmarks.measure import interleave
from jax_ctc._checks.arrays import Batch
from jax_ctc._lattice import normaliser
from jax_ctc._lattice.frames import rows_of, rows_of_chunk
from jax_ctc._lattice.pose import Spec, pose
from jax_ctc._lattice.problem import Problem
from jax_ctc._recursion import blocked
from jax_ctc._recursion.blocked import chunks, step
from jax_ctc._recursion.blocked.chunks import Plan
from jax_ctc._recursion.blocked.step import Emission, State
from tests.cases import named

PARTS = ("loss", "sums", "careless sums", "normaliser", "careless normaliser")


def main(options: Options) -> int:
    """Print a row per case; 2 if there is no such case."""
    if says_fault(options):
        return 2
    table = Table("case", *(f"{part}, ms" for part in PARTS))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name in progress.track(options.case):
            seconds = interleave(programs(name), options.rounds)
            least = (min(seconds[part]) for part in PARTS)
            table.add_row(name, *(f"{each * 1e3:.2f}" for each in least))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


def programs(name: str) -> dict[str, Program]:
    """Compile the loss of a case, and its parts."""
    *arrays, blank_id = named(name).make()
    posed = jax.jit(pose, static_argnums=0)(Spec(blank_id), Batch(*arrays))
    problem = posed.problem
    plan = chunks.make_plan(problem, normalise=True)
    emission = jax.jit(read_all, static_argnums=1)(problem, plan)

    def loss(problem: Problem) -> Any:
        return blocked.forward(problem, normalise=True)

    def careful(problem: Problem, emission: Emission) -> State:
        return sums(problem, plan, emission, step.careful(step.initial(problem)))

    def careless(problem: Problem, emission: Emission) -> State:
        return sums(problem, plan, emission, step.initial(problem))

    functions = {
        "loss": (loss, problem),
        "sums": (careful, problem, emission),
        "careless sums": (careless, problem, emission),
        "normaliser": (by_chunks(normaliser.of, plan), problem.scores),
        "careless normaliser": (by_chunks(one_sum, plan), problem.scores),
    }
    return {part: compiled(*functions[part]) for part in PARTS}


def compiled(function: Callable[..., Any], *arguments: Any) -> Program:
    """Compile a function of these arguments."""
    run = jax.jit(function).lower(*arguments).compile()
    return Program(lambda: jax.block_until_ready(run(*arguments)), None, None, None)


def read_all(problem: Problem, plan: Plan) -> Emission:
    """Return the emissions of all chunks."""
    nothing = chunks.nothing_yet(problem)
    numbers = jnp.arange(plan.num_chunks, dtype=jnp.int32)
    return lax.map(lambda n: chunks.read(problem, plan, n, nothing)[0], numbers)


def sums(problem: Problem, plan: Plan, emission: Emission, start: State) -> State:
    """Return alpha of the last frame, of emissions that have been read."""

    def frame(alpha: State, emission: Emission) -> tuple[State, None]:
        return step.advance(problem.can_skip, alpha, emission), None

    def chunk(alpha: State, emission: Emission) -> tuple[State, None]:
        return chunks.sweep(frame, alpha, emission, plan)[0], None

    return lax.scan(chunk, start, emission)[0]


def by_chunks(look: Callable[..., Any], plan: Plan) -> Callable[..., Any]:
    """Return the function that normalises all scores by `look`, a chunk at a time."""

    def function(scores: jax.Array) -> Any:
        def chunk(number: jax.Array) -> Any:
            start = number * plan.chunk
            return look(
                rows_of(scores, *rows_of_chunk(start, plan.chunk, scores.shape[1]))
            )

        return lax.map(chunk, jnp.arange(plan.num_chunks, dtype=jnp.int32))

    return function


def one_sum(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the peak of each frame, and the sum over all its classes."""
    peak = jnp.max(scores, axis=2)
    return peak, jnp.sum(jnp.exp(scores - peak[:, :, None]), axis=2)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.exactness")))
