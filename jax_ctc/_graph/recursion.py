r"""Paths through a graph, frame by frame, in log space.

    alpha_t[s] = log-sum over arcs a into s of
                 alpha_{t-1}[source_a] + log_weight_{t,a} + score_t[emits_a]

from alpha_0 = start; log Z is the log-sum over s of alpha_T[s] + end[s]. With a maximum
in place of the log-sum it is the best path's recursion: `join` is which.

What keeps float32 exact over thousands of frames: alpha is measured from each frame's
largest, and these are added up in two floats; a state far below the largest, where one
rounding is 1e-5 nats, is two floats itself; and the largest term of a log-sum enters
whole, next to log1p of the rest. What the second floats hold is rounding, a constant to
JAX; so plain autodiff gives the derivatives, of any order, as of the formula above.

Sums over the arcs into a state are segment sums. Where at most P arcs lead into a
state they could be laid out as [S, P] and summed over rows. On a CPU that takes as long
for the lattice of CTC, where P is 3, and far longer for a lexicon, where P is the
number of words (`python -m benchmarks.graphs`). And under `jit` nobody knows P.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._graph.pose import GraphProblem
from jax_ctc._graph.records import Graph
from jax_ctc._mesh.varying import steady_scan
from jax_ctc._numbers.extended import LOG_CUTOFF
from jax_ctc._numbers.masks import positions
from jax_ctc._numbers.two_floats import two_sum


class Log(NamedTuple):
    """Nats in two floats, high + low; -inf and 0 for log 0. `low` is a constant."""

    high: Float[Array, "..."]
    low: Float[Array, "..."]


class State(NamedTuple):
    """One frame's alpha: nats below `taken`, so that its maximum is 0."""

    alpha: Log  # [S]
    taken: Log  # []: the sum of the maxima taken out so far


class Path(NamedTuple):
    """The best path; where `log_value` is -inf there is none."""

    log_value: Float[Array, ""]
    first: Int[Array, ""]  # the state that it begins in
    last: Int[Array, ""]  # the state that it ends in
    arcs: Int[Array, " T"]


Join: TypeAlias = Callable[[Log, Int[Array, " A"], int], tuple[Log, Int[Array, " S"]]]


def log_z(problem: GraphProblem) -> Float[Array, ""]:
    """Return the log of the sum over all paths; -inf where there is none."""
    end, _ = steady_scan(
        lambda state, frame: (advance(problem.graph, state, frame, log_sum)[0], None),
        initial(problem),
        frames_of(problem),
    )
    return ending(problem.graph, end, log_sum)[0]


def best_path(problem: GraphProblem) -> Path:
    """Return the path that weighs most.

    log_value is -inf where there is no path; arcs then mean nothing, nor do those of
    frames not read. Of paths that weigh the same, as computed, it is the one that ends
    in the first state, and of these the one whose last arc is the first, and so on.
    """
    end, backs = steady_scan(
        lambda state, frame: advance(problem.graph, state, frame, maximum),
        initial(problem),
        frames_of(problem),
    )
    log_value, last = ending(problem.graph, end, maximum)

    def back(
        state: Int[Array, ""], frame: tuple
    ) -> tuple[Int[Array, ""], Int[Array, ""]]:
        arcs, is_read = frame
        arc = arcs[state]
        return jnp.where(is_read, problem.graph.source[arc], state), arc

    first, arcs = steady_scan(back, last, (backs, problem.is_read), reverse=True)
    return Path(log_value, first, last, arcs)


def has_path(problem: GraphProblem) -> jax.Array:
    """Tell whether any path is open, whatever the scores say."""
    graph = problem.graph

    def step(reached: jax.Array, frame: tuple) -> tuple[jax.Array, None]:
        _, log_weight, is_read = frame
        is_open = _weights(graph, log_weight) > -jnp.inf
        through = (reached[graph.source] & is_open).astype(jnp.int32)
        into = jax.ops.segment_max(through, graph.target, reached.shape[0]) > 0
        return jnp.where(is_read, into, reached), None

    reached, _ = steady_scan(step, graph.start > -jnp.inf, frames_of(problem))
    return jnp.any(reached & (graph.end > -jnp.inf))


def frames_of(problem: GraphProblem) -> tuple:
    """Return what a scan over frames reads: scores, weights that change, liveness."""
    varied = problem.graph.log_weight if problem.graph.log_weight.ndim == 2 else None
    return problem.scores, varied, problem.is_read


def plus(a: jax.Array, b: jax.Array) -> Log:
    """Return a + b; what rounding lost is a constant, whose derivative is 0."""
    total = a + b
    is_finite = jnp.isfinite(total)  # -inf less itself would be NaN
    parts = (lax.stop_gradient(jnp.where(is_finite, x, 0)) for x in (a, b))
    return Log(total, two_sum(*parts)[1])


def log_sum(
    terms: Log, target: Int[Array, " A"], num_states: int
) -> tuple[Log, Int[Array, " S"]]:
    """Return the log-sum of the terms of each target, -inf where all are; no arcs.

    | terms         | value | gradient          |
    |---------------|-------|-------------------|
    | some finite   | lse   | softmax of terms  |
    | all -inf      | -inf  | 0 for every term  |
    """
    peak, is_zero = _peaks(terms, target, num_states)
    above = terms.high - peak[target]
    is_peak = above == 0
    # exp(above + low), of the peak without its 1, next to which the rest would round.
    above = above + terms.low
    share = jnp.where(is_peak, jnp.expm1(above), jnp.exp(above))
    below = jax.ops.segment_sum(share, target, num_states)
    peaks = jax.ops.segment_sum(is_peak.astype(share.dtype), target, num_states)
    rest = jnp.where(is_zero, 0, below + (peaks - 1))
    total = plus(peak, jnp.log1p(rest))
    none = jnp.zeros_like(target, shape=(num_states,))
    return Log(jnp.where(is_zero, -jnp.inf, total.high), total.low), none


def maximum(
    terms: Log, target: Int[Array, " A"], num_states: int
) -> tuple[Log, Int[Array, " S"]]:
    """Return the largest term of each target, and the first arc that has it."""
    peak, is_zero = _peaks(terms, target, num_states)
    above = (terms.high - peak[target]) + terms.low
    most = jax.ops.segment_max(above, target, num_states)  # [S], 0 but for rounding
    num_arcs = target.shape[0]
    arcs = jnp.where(above == most[target], positions(num_arcs), num_arcs)
    first = jnp.minimum(jax.ops.segment_min(arcs, target, num_states), num_arcs - 1)
    total = plus(peak, jnp.where(is_zero, 0, most))
    return Log(jnp.where(is_zero, -jnp.inf, total.high), total.low), first


def initial(problem: GraphProblem) -> State:
    """Return alpha before the first frame."""
    start = problem.graph.start
    zero = jnp.zeros_like(start[0])
    return State(Log(start, jnp.zeros_like(start)), Log(zero, zero))


def advance(
    graph: Graph, state: State, frame: tuple, join: Join
) -> tuple[State, Int[Array, " S"]]:
    """Return the state after a frame, and the arc by which each alpha was reached."""
    scores, log_weight, is_read = frame  # [V], [A] or None, []
    scores = jnp.where(is_read, scores, 0).astype(graph.start.dtype)
    alpha, source = state.alpha, graph.source
    along = plus(_weights(graph, log_weight), scores[graph.emits])  # [A]
    high = plus(alpha.high[source], along.high)
    low = alpha.low[source] + (along.low + high.low)
    into, arcs = join(Log(high.high, low), graph.target, graph.start.shape[0])
    peak = lax.stop_gradient(jnp.max(into.high))
    peak = jnp.where(jnp.isfinite(peak), peak, 0)
    below = plus(into.high, -peak)
    taken = plus(state.taken.high, peak)
    advanced = State(
        Log(below.high, into.low + below.low),
        Log(taken.high, state.taken.low + taken.low),
    )
    # A frame past the end changes nothing: select, never blend.
    return jax.tree.map(lambda x, y: jnp.where(is_read, x, y), advanced, state), arcs


def _weights(graph: Graph, log_weight: Float[Array, " A"] | None) -> jax.Array:
    """Return what the arcs weigh in a frame."""
    return graph.log_weight if log_weight is None else log_weight


def ending(graph: Graph, state: State, join: Join) -> tuple[jax.Array, jax.Array]:
    """Return what all ends add up to, and the first of the best where join is max.

    Beyond the cut-off it counts as impossible, as in every loss here.
    """
    at_end = plus(state.alpha.high, graph.end)
    terms = Log(at_end.high, state.alpha.low + at_end.low)
    [high], [low], [first] = jax.tree.leaves(
        join(terms, jnp.zeros_like(graph.end, jnp.int32), 1)
    )
    is_zero = ~(high + state.taken.high > LOG_CUTOFF)
    total = jnp.where(is_zero, 0, high) + (low + state.taken.low) + state.taken.high
    return jnp.where(is_zero, -jnp.inf, total), first


def _peaks(
    terms: Log, target: Int[Array, " A"], num_states: int
) -> tuple[jax.Array, jax.Array]:
    """Return the largest `high` of each target, 0 instead of -inf, and where that is.

    A constant to JAX: it is subtracted and added back.
    """
    high = lax.stop_gradient(terms.high)
    peak = jax.ops.segment_max(high, target, num_states)
    is_zero = peak == -jnp.inf
    return jnp.where(is_zero, 0, peak), is_zero
