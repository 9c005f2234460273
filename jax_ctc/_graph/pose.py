"""A graph and a batch of scores as they came: checked, made clean, and flat.

Static mistakes raise. What only the device knows becomes bits of `Status`, and is taken
out of the arrays before any arithmetic: a `where` on a result would still send 0 * NaN
through the side not taken.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._checks.arrays import check_floats, check_lengths, check_scores
from jax_ctc._checks.given import ArrayLike
from jax_ctc._checks.host import as_array
from jax_ctc._checks.labels import bit, is_within, narrow
from jax_ctc._checks.status import Status
from jax_ctc._graph.records import Graph
from jax_ctc._lattice import normaliser
from jax_ctc._lattice.emissions import is_bad
from jax_ctc._lattice.pose import or_full
from jax_ctc._mesh.varying import vary_alike
from jax_ctc._numbers.masks import is_inside
from jax_ctc._numbers.precision import accumulator
from jax_ctc._numbers.sizes import Size


class GraphBatch(NamedTuple):
    """Inputs whose static properties agree; leading axes as they came."""

    scores: Any  # [..., T, V] float
    graph: Graph  # with these leading axes, or with none
    logit_lengths: Any  # [...] integer, or None

    @property
    def is_shared(self) -> bool:
        """Tell whether all utterances have the same graph."""
        return self.graph.source.ndim == 1


class GraphProblem(NamedTuple):
    """One utterance; a batch has a leading axis B (the graph not if it is shared)."""

    scores: Float[Array, "T V"]
    graph: Graph  # of a flagged utterance, one without start
    is_read: Bool[Array, " T"]  # live, and of an utterance that is not flagged


def prepare_graph(
    log_probs: ArrayLike, graph: Any, logit_lengths: ArrayLike | None
) -> GraphBatch:
    """Return the batch, or raise."""
    scores = check_scores(log_probs, name="log_probs")
    leading = scores.shape[:-2]
    lengths = check_lengths(
        logit_lengths, leading, name="logit_lengths", of="log_probs"
    )
    return GraphBatch(scores, check_graph(graph, leading, scores.shape[-2]), lengths)


def check_graph(graph: Any, leading: tuple[Size, ...], num_frames: Size) -> Graph:
    """Return the graph as arrays whose shapes agree, or raise."""
    if not isinstance(graph, Graph):
        raise TypeError(
            "`graph` must be a jax_ctc.Graph, such as `ctc_graph(labels)` returns; got"
            f" {type(graph).__name__}"
        )
    arcs = {}
    for name in ("source", "target", "emits"):
        array = as_array(getattr(graph, name), f"graph.{name}")
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise TypeError(
                f"`graph.{name}` must be [..., A] integers, one for each arc; got"
                f" {array.dtype} of shape {array.shape}"
            )
        arcs[name] = array
    shapes = [array.shape for array in arcs.values()]
    shape = shapes[0]
    if not shape or shapes != [shape] * 3:
        raise ValueError(
            "`graph.source`, `graph.target` and `graph.emits` must all be [..., A], one"
            f" number for each arc; got {', '.join(map(str, shapes))}"
        )
    if shape[:-1] not in ((), leading):
        raise ValueError(
            f"`graph` must have the leading axes of `log_probs`, {leading}, or none, to"
            f" be shared by all utterances; got `graph.source` of shape {shape}"
        )
    nats = {
        name: check_floats(
            getattr(graph, name), name=f"graph.{name}", what="logarithms of weights"
        )
        for name in ("log_weight", "start", "end")
    }
    varied = (*shape[:-1], num_frames, shape[-1])
    if nats["log_weight"].shape not in (shape, varied):
        raise ValueError(
            f"`graph.log_weight` must be [..., A] = {shape} or [..., T, A] = {varied};"
            f" got shape {nats['log_weight'].shape}"
        )
    states = nats["start"].shape
    if states[:-1] != shape[:-1] or not states or nats["end"].shape != states:
        raise ValueError(
            "`graph.start` and `graph.end` must both be [..., S], one number for each"
            f" state, with the leading axes of the arcs, {shape[:-1]}; got {states} and"
            f" {nats['end'].shape}"
        )
    if states[-1] == 0 or shape[-1] == 0:
        raise ValueError(
            "`graph` must have at least one state and one arc (it may be closed); got"
            f" `graph.start` of shape {states} and `graph.source` of shape {shape}"
        )
    return Graph(**arcs, **nats)


def over_utterances(
    function: Callable[..., Any], batch: GraphBatch
) -> tuple[Any, Int[Array, " B"]]:
    """Return function(problem) of each utterance, stacked, and the statuses so far."""
    *leading, num_frames, num_classes = batch.scores.shape
    num_utterances = math.prod(leading)
    lengths = or_full(batch.logit_lengths, leading, num_frames)
    leaves, tree = jax.tree.flatten(batch.graph)
    scores, lengths, *leaves = vary_alike(
        jnp.asarray(batch.scores), lengths, *map(jnp.asarray, leaves)
    )
    scores = scores.reshape(num_utterances, num_frames, num_classes)
    lengths = narrow(lengths).reshape(num_utterances)
    if not batch.is_shared:
        leaves = [x.reshape(num_utterances, *x.shape[len(leading) :]) for x in leaves]
    graph = jax.tree.unflatten(tree, leaves)
    is_live = is_inside(lengths, num_frames)
    is_nan = is_bad(normaliser.of_all(scores), is_live)

    def utterance(
        scores: jax.Array, graph: Graph, length: jax.Array, is_nan: jax.Array
    ) -> tuple[Any, jax.Array]:
        problem, status = _clean(scores, graph, length, is_nan)
        return function(problem), status

    of_graph = None if batch.is_shared else 0
    return jax.vmap(utterance, (0, of_graph, 0, 0))(scores, graph, lengths, is_nan)


def _clean(
    scores: Float[Array, "T V"],
    graph: Graph,
    length: Int[Array, ""],
    is_nan: Bool[Array, ""],
) -> tuple[GraphProblem, Int[Array, ""]]:
    """Return the problem without what must not be computed with, and what that was."""
    num_frames, num_classes = scores.shape
    dtype = accumulator(scores.dtype)
    is_live = is_inside(length, num_frames)  # [T]
    ids = {
        "source": (narrow(graph.source), graph.start.shape[0]),
        "target": (narrow(graph.target), graph.start.shape[0]),
        "emits": (narrow(graph.emits), num_classes),
    }
    is_outside = jnp.zeros_like(ids["emits"][0], bool)  # [A]
    for numbers, size in ids.values():
        is_outside = is_outside | (numbers < 0) | (numbers >= size)
    weights = {
        name: getattr(graph, name).astype(dtype)
        for name in ("log_weight", "start", "end")
    }
    in_frames = weights["log_weight"].reshape(-1, is_outside.shape[0])
    if graph.log_weight.ndim == 2:  # padded frames may hold anything
        in_frames = jnp.where(is_live[:, None], in_frames, -jnp.inf)
    is_closed = jnp.all(in_frames == -jnp.inf, axis=0)  # [A]
    for numbers in (in_frames, weights["start"], weights["end"]):
        is_nan = is_nan | ~jnp.all(numbers < jnp.inf)
    status = (
        bit(Status.BAD_LENGTH, ~is_within(length, num_frames))
        | bit(Status.NONFINITE_LOGITS, is_nan)
        | bit(Status.BAD_GRAPH, jnp.any(is_outside & ~is_closed))
    )
    is_kept = ~is_outside & ~is_closed
    cleaned = Graph(
        **{name: jnp.where(is_kept, x, 0) for name, (x, _) in ids.items()},
        **{
            name: jnp.where(numbers < jnp.inf, numbers, -jnp.inf)
            for name, numbers in weights.items()
        },
    )
    return GraphProblem(scores, cleaned, is_live & (status == 0)), status
