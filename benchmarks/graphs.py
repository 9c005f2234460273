"""What a loss over a graph costs, beside `ctc_loss`; and sums beside a gather.

    python -m benchmarks.graphs

The sums over the arcs into a state are segment sums. Where no state has more than P
arcs into it, all of them can be laid out as [S, P], and the sums are over rows; here is
that form too, for the lattice of CTC (P = 3) and for a lexicon whose first state all
words lead back to. All agree before they are timed. Times are the least of interleaved
rounds: a busy machine only ever adds.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import jax_ctc
from benchmarks.alignment import table
from benchmarks.contenders import Program
from benchmarks.measure import interleave
from jax_ctc import Graph
from jax_ctc._graph import recursion
from jax_ctc._graph.pose import GraphBatch, GraphProblem, over_utterances
from jax_ctc._graph.recursion import Log

ROUNDS = 15
MIB = 2**20
CTC = (8, 400, 64, 40), (4, 400, 1024, 50)  # B, T, V, U
LEXICON = 8, 200, 32, 50, 6  # B, T, V, words, letters of each


def in_rows(graph: Graph) -> Graph:
    """Return the same graph with P arcs into every state, in order; closed ones pad."""
    num_states = graph.start.shape[-1]

    def utterance(graph: Graph, most: int) -> Graph:
        order = np.argsort(graph.target, kind="stable")
        target = np.asarray(graph.target)[order]
        column = np.arange(len(target)) - np.searchsorted(target, target)
        place = target * most + column

        def lay(values: Any, padding: Any) -> np.ndarray:
            row = np.full(num_states * most, padding, np.asarray(values).dtype)
            row[place] = np.asarray(values)[order]
            return row

        return dataclasses.replace(
            graph,
            source=lay(graph.source, 0),
            target=np.repeat(np.arange(num_states, dtype=np.int32), most),
            emits=lay(graph.emits, 0),
            log_weight=lay(graph.log_weight, -np.inf),
        )

    if graph.source.ndim == 1:
        return utterance(graph, int(np.bincount(graph.target).max()))
    rows = [jax.tree.map(lambda x, b=b: x[b], graph) for b in range(len(graph.source))]
    most = max(int(np.bincount(row.target).max()) for row in rows)
    laid = [utterance(row, most) for row in rows]
    return jax.tree.map(lambda *x: jnp.stack(x), *laid)


def log_sum_of_rows(
    terms: Log, target: jax.Array, num_states: int
) -> tuple[Log, jax.Array]:
    """Return what `recursion.log_sum` does, of arcs that are laid out in rows."""
    high, low = (x.reshape(num_states, -1) for x in terms)
    peak = jax.lax.stop_gradient(high.max(axis=1))
    is_zero = peak == -jnp.inf
    peak = jnp.where(is_zero, 0, peak)
    above = high - peak[:, None]
    is_peak = above == 0
    above = above + low
    share = jnp.where(is_peak, jnp.expm1(above), jnp.exp(above))
    rest = share.sum(axis=1) + (is_peak.sum(axis=1) - 1).astype(share.dtype)
    total = recursion.plus(peak, jnp.log1p(jnp.where(is_zero, 0, rest)))
    none = jnp.zeros_like(target, shape=(num_states,))
    return Log(jnp.where(is_zero, -jnp.inf, total.high), total.low), none


def over_rows(log_probs: jax.Array, graph: Graph) -> jax.Array:
    """Return the loss over a graph that is laid out in rows."""

    def of(problem: GraphProblem) -> jax.Array:
        def step(state: Any, frame: Any) -> tuple[Any, None]:
            return recursion.advance(problem.graph, state, frame, log_sum_of_rows)[
                0
            ], None

        frames = recursion.frames_of(problem)
        end, _ = jax.lax.scan(step, recursion.initial(problem), frames)
        return recursion.ending(problem.graph, end, recursion.log_sum)[0]

    return -over_utterances(of, GraphBatch(log_probs, graph, None))[0]


def ctc_case(sizes: tuple[int, ...]) -> tuple[jax.Array, dict[str, Callable[..., Any]]]:
    """Return log-probabilities, and every way to the loss of some labels."""
    batch, frames, classes, count = sizes
    rng = np.random.default_rng(0)
    log_probs = jax.nn.log_softmax(jnp.float32(rng.normal(size=sizes[:3])))
    labels = rng.integers(1, classes, (batch, count))
    graph = jax_ctc.ctc_graph(labels)
    rows = in_rows(graph)
    ways = {
        "segment sums": lambda x: jax_ctc.ctc_loss_over_graph(x, graph),
        "rows of P": lambda x: over_rows(x, rows),
    }
    for name in ("scan", "blocked", None):
        ways[f"`ctc_loss`, {name or 'as it comes'}"] = lambda x, name=name: (
            jax_ctc.ctc_loss_from_log_probs(x, labels, implementation=name)
        )
    return log_probs, ways


def lexicon_case() -> tuple[jax.Array, dict[str, Callable[..., Any]]]:
    """Return log-probabilities, and both forms of the loss over words in any order."""
    batch, frames, classes, num_words, length = LEXICON
    rng = np.random.default_rng(0)
    log_probs = jax.nn.log_softmax(
        jnp.float32(rng.normal(size=(batch, frames, classes)))
    )
    arcs, num_states = [(0, 0, 0)], 1
    for _ in range(num_words):
        here = 0
        for letter in rng.integers(1, classes, length):
            arcs += [(here, num_states, letter), (num_states, num_states, letter)]
            here, num_states = num_states, num_states + 1
        arcs.append((here, 0, 0))
    source, target, emits = np.array(arcs, np.int32).T
    ends = np.where(np.arange(num_states) == 0, 0, -np.inf).astype(np.float32)
    weights = np.zeros(len(arcs), np.float32)
    graph = Graph(source, target, emits, weights, start=ends, end=ends)
    rows = in_rows(graph)
    return log_probs, {
        "segment sums": lambda x: jax_ctc.ctc_loss_over_graph(x, graph),
        "rows of P": lambda x: over_rows(x, rows),
    }


def rows_of(name: str, log_probs: jax.Array, ways: dict[str, Any]) -> Any:
    """Yield a row per way: value, value and gradient, temporaries."""
    programs, values = {}, {}
    for way, loss in ways.items():

        def total(x: jax.Array, loss: Callable[..., Any] = loss) -> jax.Array:
            return loss(x).sum()

        for mode, function in (("value", total), ("both", jax.value_and_grad(total))):
            compiled = jax.jit(function).lower(log_probs).compile()
            memory = compiled.memory_analysis()

            def run(compiled: Any = compiled) -> Any:
                return jax.block_until_ready(compiled(log_probs))

            size = memory.temp_size_in_bytes if memory else None
            programs[f"{way}, {mode}"] = Program(run, None, None, size)
            values[way, mode] = run()
    expected = values["segment sums", "both"]
    for way in ways:
        np.testing.assert_allclose(values[way, "value"], expected[0], rtol=1e-6)
        np.testing.assert_allclose(values[way, "both"][1], expected[1], atol=1e-4)
    seconds = interleave(programs, ROUNDS)
    for way in ways:
        value, both = (
            1e3 * min(seconds[f"{way}, {mode}"]) for mode in ("value", "both")
        )
        held = (programs[f"{way}, both"].temporaries or 0) / MIB
        yield name, way, f"{value:.1f} ms", f"{both:.1f} ms", f"{held:.1f} MiB"


def main() -> None:
    """Measure and print."""
    console = Console()
    headings = "case", "how", "value", "value and gradient", "temporaries"
    for sizes in CTC:
        name = "×".join(map(str, sizes))
        table(console, headings, rows_of(name, *ctc_case(sizes)))
    _, _, _, words, letters = LEXICON
    name = f"{words} words of {letters} letters"
    table(console, headings, rows_of(name, *lexicon_case()))


if __name__ == "__main__":
    main()
