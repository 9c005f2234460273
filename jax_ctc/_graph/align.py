"""The best path through a graph."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jax_ctc._alignment.paths import PADDING
from jax_ctc._checks.given import ArrayLike
from jax_ctc._checks.status import Status
from jax_ctc._graph.pose import (
    GraphBatch,
    GraphProblem,
    over_utterances,
    prepare_graph,
)
from jax_ctc._graph.records import GivenGraph, GraphAlignment
from jax_ctc._graph.recursion import Path, best_path
from jax_ctc._numbers.masks import positions
from jax_ctc._numbers.two_floats import sum_frames


def ctc_align_over_graph(
    log_probs: ArrayLike,
    graph: GivenGraph,
    logit_lengths: ArrayLike | None = None,
) -> GraphAlignment:
    r"""The path through a graph that weighs most: the arc of each frame.

    `...` any leading batch axes, T frames, V classes. Of the paths whose weights
    `ctc_loss_over_graph` adds up, the largest. Of paths that weigh the same, as
    computed, it is the one that ends in the first state, and of these the one whose
    last arc comes first in the graph, and so on back.

    Args:
        log_probs: [..., T, V] float32, float64, bfloat16 or float16, nats.
        graph: a `Graph`, with the leading axes of log_probs or with none.
        logit_lengths: [...] integer frames, 0..T. Default: all T.

    Returns:
        GraphAlignment: arcs, states and tokens [..., T] int32, the arc that each frame
        takes, the state it leads to and the class it emits, padded with -1; log_prob
        [...] float32 (float64 for float64 log_probs), nats, of that path. `log_prob` is
        read again along the path, and so are its derivatives, the path held fixed.

    Raises:
        ValueError: ranks or shapes disagree.
        TypeError: a dtype is wrong, or `graph` is no Graph.

    Status:
        Utterances that `ctc_loss_over_graph_with_status` flags have -1 everywhere and
        log_prob -inf, with derivative exactly 0; of NONFINITE_LOGITS it is NaN.

    Cost:
        O(T * (A + V)) time; an int32 for each state in each frame, [T, S].

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> best = jnp.array([0, 1, 1, 0, 2])  # the class that wins each frame
        >>> log_probs = jnp.log(0.05 + 0.85 * jnp.eye(3)[best])
        >>> graph = jax_ctc.ctc_graph(jnp.array([1, 2]))
        >>> path = jax_ctc.ctc_align_over_graph(log_probs, graph)
        >>> path.tokens.tolist(), path.states.tolist()
        ([0, 1, 1, 0, 2], [0, 1, 1, 2, 3])

    References:
        A. J. Viterbi, "Error bounds for convolutional codes and an asymptotically
        optimum decoding algorithm", IEEE Trans. Inf. Theory 13 (1967),
        https://doi.org/10.1109/TIT.1967.1054010.
    """
    return _align(prepare_graph(log_probs, graph, logit_lengths))


@jax.jit
def _align(batch: GraphBatch) -> GraphAlignment:
    found, status = over_utterances(_of_utterance, batch)
    is_nan = (status & Status.NONFINITE_LOGITS) != 0
    log_prob = jnp.where(status == 0, found.log_prob, -jnp.inf)
    log_prob = jnp.where(is_nan, jnp.nan, log_prob)
    leading = batch.scores.shape[:-2]
    found = GraphAlignment(found.arcs, found.states, found.tokens, log_prob)
    return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), found)


def _of_utterance(problem: GraphProblem) -> GraphAlignment:
    """Find the path, then read what it says and weighs."""
    graph = problem.graph
    path = best_path(jax.lax.stop_gradient(problem))
    is_alive = path.log_value > -jnp.inf
    is_live = problem.is_read & is_alive

    def at_live(numbers: jax.Array) -> jax.Array:
        return jnp.where(is_live, numbers, PADDING)

    log_prob = _weight_along(problem, path, is_live, is_alive)
    return GraphAlignment(
        arcs=at_live(path.arcs),
        states=at_live(graph.target[path.arcs]),
        tokens=at_live(graph.emits[path.arcs]),
        log_prob=jnp.where(is_alive, log_prob, -jnp.inf),
    )


def _weight_along(
    problem: GraphProblem,
    path: Path,
    is_live: Bool[Array, " T"],
    is_alive: Bool[Array, ""],
) -> Float[Array, ""]:
    """Add up, in two floats, what a path weighs; 0 where there is none."""
    graph = problem.graph
    frame = positions(problem.scores.shape[0])
    weight = graph.log_weight
    weight = weight[path.arcs] if weight.ndim == 1 else weight[frame, path.arcs]
    score = problem.scores[frame, graph.emits[path.arcs]].astype(weight.dtype)
    ends = jnp.stack([graph.start[path.first], graph.end[path.last]])
    terms = [jnp.where(is_live, x, 0) for x in (weight, score)]
    terms.append(jnp.where(is_alive, ends, 0))
    high, low = sum_frames(jnp.concatenate(terms)[:, None])
    return (high + jax.lax.stop_gradient(low))[0]
