"""The loss over a graph."""

import functools

import jax
import jax.numpy as jnp

from jax_ctc._checks.given import ArrayLike, Option
from jax_ctc._checks.labels import bit
from jax_ctc._checks.options import check_option
from jax_ctc._checks.status import Status
from jax_ctc._graph.pose import (
    GraphBatch,
    GraphProblem,
    over_utterances,
    prepare_graph,
)
from jax_ctc._graph.records import GivenGraph
from jax_ctc._graph.recursion import has_path, log_z


def ctc_loss_over_graph(
    log_probs: ArrayLike,
    graph: GivenGraph,
    logit_lengths: ArrayLike | None = None,
    *,
    infeasible: Option = "inf",
) -> jax.Array:
    r"""Negative log of the sum over the paths through a graph, in nats.

    `...` any leading batch axes (none is fine), T frames, V classes, A arcs, S states.

        loss = -log sum_{paths} exp(start[s_0] + end[s_T]) *
               prod_t exp(log_weight[t, a_t] + log_probs[t, emits[a_t]])

    where arc a_t leads from state s_{t-1} to s_t. With `ctc_graph(labels)` it is
    `ctc_loss_from_log_probs`, at several times the cost; the graph's arrays say what no
    argument of a loss can: weights of single arcs in single frames, several spellings,
    a lexicon. docs/graphs.md. Scores are taken as they are, so pass
    `jax.nn.log_softmax(logits)`; where a path may weigh more than 1, the loss may be
    negative.

    Args:
        log_probs: [..., T, V] float32, float64, bfloat16 or float16, nats.
        graph: a `Graph`, each array with the leading axes of log_probs, or each with
            none: then all utterances share it.
        logit_lengths: [...] integer frames, 0..T. Default: all T. A path has an arc for
            each of these frames, and none for others.
        infeasible: "inf" or "zero", the value of an utterance that has no path. Its
            gradient is exactly 0 either way. Static.

    Returns:
        [...] float32 (float64 for float64 log_probs), nats. The gradient with respect
        to log_probs is -posterior of the classes; with respect to `graph.log_weight`,
        -posterior of the arcs (of start and end: of beginning and ending there).

    Raises:
        ValueError: ranks or shapes disagree, or an option has an unknown value.
        TypeError: a dtype is wrong, or `graph` is no Graph.

    Status:
        Never raised; `ctc_loss_over_graph_with_status` returns the bits. INFEASIBLE,
        ZERO_PROBABILITY, BAD_GRAPH, BAD_LENGTH: value by `infeasible`.
        NONFINITE_LOGITS (also: an arc, start or end weighs NaN or +inf): NaN. Any bit:
        gradient exactly 0, and other utterances are what they are without it.

    Numerics:
        Log space in float32 (float64 for float64), measured from each frame's largest
        and in two floats where rounding adds up: gradient errors below 2e-5 at 4,000
        frames and 400 labels. Derivatives of every order and mode by plain autodiff.
        On a GPU segment sums add in any order, so last bits may differ between runs.

    Cost:
        O(T * (A + V)) time, and several arrays of [T, A] for a gradient. New shapes
        compile again; new numbers in the same shapes compile nothing.

    Example:
        >>> import dataclasses, jax, jax.numpy as jnp, jax_ctc
        >>> log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (5, 4)))
        >>> labels = jnp.array([2, 1])
        >>> graph = jax_ctc.ctc_graph(labels)
        >>> loss = jax_ctc.ctc_loss_over_graph(log_probs, graph)
        >>> bool(abs(loss - jax_ctc.ctc_loss_from_log_probs(log_probs, labels)) < 1e-5)
        True
        >>> enters = (graph.target % 2 == 1) & (graph.source != graph.target)
        >>> later = jnp.arange(5.0)[:, None] * jnp.where(enters, -0.5, 0)  # [T, A]
        >>> penalised = dataclasses.replace(graph, log_weight=graph.log_weight + later)
        >>> bool(jax_ctc.ctc_loss_over_graph(log_probs, penalised) > loss)
        True

    References:
        M. Mohri, F. Pereira, M. Riley, "Weighted finite-state transducers in speech
        recognition", Computer Speech and Language 16 (2002),
        https://doi.org/10.1006/csla.2001.0184.
        A. Hannun, V. Pratap, J. Kahn, W.-N. Hsu, "Differentiable weighted finite-state
        transducers", 2020, https://arxiv.org/abs/2010.01003.
    """
    choice = check_option(infeasible, ("inf", "zero"), name="infeasible")
    return _score(choice, False, prepare_graph(log_probs, graph, logit_lengths))[0]


def ctc_loss_over_graph_with_status(
    log_probs: ArrayLike,
    graph: GivenGraph,
    logit_lengths: ArrayLike | None = None,
    *,
    infeasible: Option = "inf",
) -> tuple[jax.Array, jax.Array]:
    """Return the loss over a graph, in nats, and what is wrong with each utterance.

    `...` any leading batch axes, T frames, V classes. Everything about the loss is as
    in `ctc_loss_over_graph`.

    Args:
        log_probs: [..., T, V] float, nats.
        graph: a `Graph`, with the leading axes of log_probs or with none.
        logit_lengths: [...] integer frames, 0..T. Default: all T.
        infeasible: "inf" or "zero", the value of an utterance that has no path. Static.

    Returns:
        loss: [...] float32 (float64 for float64 log_probs), nats.
        status: [...] int32, bits of `Status`; 0 is fine. INFEASIBLE: no path of as many
            arcs as there are frames leads from a start to an end. ZERO_PROBABILITY:
            there are paths, but each needs a class whose score is -inf there.
            BAD_GRAPH: an open arc names a state or a class that is not there.
            BAD_LENGTH: logit_lengths is outside 0..T. NONFINITE_LOGITS: a frame inside
            the length holds NaN, +inf or only -inf, or a weight is NaN or +inf.

    Raises:
        ValueError: ranks or shapes disagree, or an option has an unknown value.
        TypeError: a dtype is wrong, or `graph` is no Graph.

    Cost:
        That of the loss, and a recursion over the arcs that asks which states can be
        reached at all.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> graph = jax_ctc.ctc_graph(jnp.array([[1, 1], [1, 2]]))  # 3 and 2 frames
        >>> log_probs = jnp.full((2, 2, 3), -jnp.log(3.0))
        >>> loss, status = jax_ctc.ctc_loss_over_graph_with_status(log_probs, graph)
        >>> (9 * jnp.exp(-loss)).round(3).tolist(), status.tolist()  # 1 of 3**2 paths
        ([0.0, 1.0], [1, 0])

    References:
        A. Hannun, V. Pratap, J. Kahn, W.-N. Hsu, "Differentiable weighted finite-state
        transducers", 2020, https://arxiv.org/abs/2010.01003.
    """
    choice = check_option(infeasible, ("inf", "zero"), name="infeasible")
    return _score(choice, True, prepare_graph(log_probs, graph, logit_lengths))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _score(
    infeasible: str, says_why: bool, batch: GraphBatch
) -> tuple[jax.Array, jax.Array]:
    """Return loss and status; without `says_why`, whether there is a path, not why."""

    def of(problem: GraphProblem) -> tuple[jax.Array, jax.Array]:
        return log_z(problem), has_path(problem) if says_why else jnp.bool_(True)

    (log_value, is_feasible), status = over_utterances(of, batch)
    is_zero = (log_value == -jnp.inf) & (status == 0)
    status = (
        status
        | bit(Status.ZERO_PROBABILITY, is_zero & is_feasible)
        | bit(Status.INFEASIBLE, is_zero & ~is_feasible)
    )
    value = jnp.inf if infeasible == "inf" else 0.0
    is_nan = (status & Status.NONFINITE_LOGITS) != 0
    # 0 - x, since a log of 0 must not become -0.
    flagged = jnp.where(is_nan, jnp.nan, value)
    loss = jnp.where(status == 0, 0 - log_value, flagged)
    leading = batch.scores.shape[:-2]
    return loss.reshape(leading), status.reshape(leading)
