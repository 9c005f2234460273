"""A graph, and the best path through one."""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

import jax

from jax_ctc._checks.given import Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Graph:
    """States, and the arcs between them: which paths there are, and what each weighs.

    A path begins in a state, takes one arc in every frame, each from the state that the
    one before it led to, and ends in the state where the last one leads. It weighs the
    product of its start, of its arcs, of what the frames say of the classes that these
    emit, and of its end; all are given as logarithms. A arcs, S states, T frames, and
    `...` leading axes: those of the scores, or none for one graph that all utterances
    share.

    `ctc_graph` makes the graph of `ctc_loss`, whose arrays `dataclasses.replace` edits;
    or write one down. A pytree of arrays, to be passed through `jit` and `vmap`.

    Attributes:
        source: [..., A] integer, the state that each arc leaves, 0..S-1.
        target: [..., A] integer, the state that it leads to.
        emits: [..., A] integer, the class that a frame shows which takes it, 0..V-1.
        log_weight: [..., A] or, if it changes from frame to frame, [..., T, A] float,
            nats. -inf: closed. An arc that is closed in every frame pads, and its
            other numbers may be anything.
        start: [..., S] float, nats of beginning in each state; -inf: none does.
        end: [..., S] float, nats of ending in each state; -inf: none does.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> graph = jax_ctc.Graph(  # class 1 for some frames, then class 2 for some
        ...     source=jnp.array([0, 0, 1]),
        ...     target=jnp.array([0, 1, 1]),
        ...     emits=jnp.array([1, 2, 2]),
        ...     log_weight=jnp.zeros(3),
        ...     start=jnp.array([0.0, -jnp.inf]),
        ...     end=jnp.array([-jnp.inf, 0.0]),
        ... )
        >>> log_probs = jnp.full((4, 3), -jnp.log(3.0))
        >>> loss = jax_ctc.ctc_loss_over_graph(log_probs, graph)
        >>> round(float(jnp.exp(-loss) * 3**4), 4)  # 2222, 1222, 1122, 1112
        4.0
    """

    source: Any
    target: Any
    emits: Any
    log_weight: Any
    start: Any
    end: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GraphAlignment:
    """The best path through a graph.

    Attributes:
        arcs: [..., T] int32, the arc that each frame takes, padded with -1.
        states: [..., T] int32, the state that it leads to, padded with -1.
        tokens: [..., T] int32, the class that it emits, padded with -1.
        log_prob: [...] float, nats, of that one path, its start and end included.
    """

    arcs: Leaf
    states: Leaf
    tokens: Leaf
    log_prob: Leaf


# As it may be handed back: an executed annotation sees `Any`, so that the designed
# messages come first.
if TYPE_CHECKING:
    GivenGraph: TypeAlias = Graph
else:
    GivenGraph = Any
