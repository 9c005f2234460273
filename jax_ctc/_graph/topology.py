"""The lattice of CTC as a graph: labels to arcs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ctc._checks.arrays import check_labels, check_lengths
from jax_ctc._checks.given import ArrayLike, Index
from jax_ctc._checks.labels import is_within, narrow
from jax_ctc._checks.options import check_blank_id
from jax_ctc._graph.records import Graph
from jax_ctc._lattice.pose import or_full
from jax_ctc._numbers.masks import is_at, is_inside, positions
from jax_ctc._numbers.sizes import is_open

# A class that is none: whatever reads an arc that emits it flags the utterance.
_NO_CLASS = -1


def ctc_graph(
    labels: ArrayLike,
    label_lengths: ArrayLike | None = None,
    *,
    blank_id: Index = 0,
) -> Graph:
    r"""The graph whose paths collapse to the labels: that of `ctc_loss`, to be edited.

    `...` any leading batch axes, U labels, S = 2U + 1 states, A = 5U arcs (1 if U is
    0). State 2n: n labels are out, and the last frame was blank (or there was none);
    state 2n + 1: label n is out, and the last frame showed it. An arc emits the class
    of the state that it leads to, and weighs 0 where it is open:

        s -> s              the state goes on            arcs 0 .. S-1, in order
        s -> s + 1          the next label, or a blank   then 2U, in order
        2n - 1 -> 2n + 1    straight to another label    then U-1; closed if equal

    So `graph.target - graph.source` is the kind of an arc, an odd `graph.target` is
    label `graph.target // 2`, and arcs that both say enter a label there.

    Args:
        labels: [..., U] integer class ids without blanks, padded on the right.
        label_lengths: [...] integer labels, 0..U. Default: all U.
        blank_id: the blank class, 0 or more. Static.

    Returns:
        Graph: source, target, emits [..., A] int32; log_weight [..., A], start and end
        [..., S] float32, 0 or -inf. States and arcs of padded labels are closed, and
        emit the blank.

    Raises:
        ValueError: ranks or shapes disagree, or `blank_id` is negative.
        TypeError: a dtype is wrong, or `blank_id` is traced.

    Status:
        A label that is the blank, or negative, or a length outside 0..U, makes a graph
        that emits class -1, which every function of graphs reports as BAD_GRAPH.

    Example:
        >>> import dataclasses, jax.numpy as jnp, jax_ctc
        >>> graph = jax_ctc.ctc_graph(jnp.array([1, 1]))
        >>> graph.emits.tolist()
        [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
        >>> log_probs = jnp.log(jnp.array([[.1, .9], [.2, .8]]))
        >>> float(jax_ctc.ctc_loss_over_graph(log_probs, graph))  # a blank must part
        inf
        >>> opened = jnp.where(graph.target - graph.source == 2, 0, graph.log_weight)
        >>> graph = dataclasses.replace(graph, log_weight=opened)
        >>> loss = jax_ctc.ctc_loss_over_graph(log_probs, graph)
        >>> round(float(jnp.exp(-loss)), 4)
        0.72

    References:
        A. Hannun, V. Pratap, J. Kahn, W.-N. Hsu, "Differentiable weighted finite-state
        transducers", 2020, https://arxiv.org/abs/2010.01003.
    """
    checked = check_labels(labels)
    if is_open(checked.shape[-1]):
        raise ValueError(
            "`labels` must have a known number of labels U, which the states of the"
            f" graph count; got shape {checked.shape}. A program may be exported with"
            " symbolic leading axes and frames T, but not U"
        )
    lengths = check_lengths(
        label_lengths, checked.shape[:-1], name="label_lengths", of="labels"
    )
    return _build(check_blank_id(blank_id, None), checked, lengths)


@functools.partial(jax.jit, static_argnums=0)
def _build(blank_id: int, labels: Any, label_lengths: Any) -> Graph:
    *leading, num_labels = labels.shape
    label_lengths = narrow(or_full(label_lengths, leading, num_labels))  # [...]
    labels = narrow(jnp.asarray(labels))  # [..., U]
    state = np.arange(2 * num_labels + 1, dtype=np.int32)
    source = np.concatenate([state, state[:-1], state[1:-2:2]])
    target = np.concatenate([state, state[1:], state[3::2]])

    is_label = is_inside(label_lengths, num_labels)  # [..., U]
    is_good = is_within(label_lengths, num_labels)[..., None]
    named = jnp.where((labels == blank_id) | (labels < 0), _NO_CLASS, labels)
    named = jnp.where(is_label, named, blank_id)
    classes = jnp.full((*leading, len(state)), blank_id, jnp.int32)
    classes = jnp.where(is_good, classes.at[..., 1::2].set(named), _NO_CLASS)

    last = 2 * label_lengths[..., None]  # [..., 1]: the state that ends in a blank
    open_arcs = _row(target, leading) <= last
    if num_labels > 1:
        differs = jnp.ones((*leading, len(source)), bool)
        skips = (labels[..., 1:] != labels[..., :-1]) | ~is_label[..., 1:]
        differs = differs.at[..., 1 - num_labels :].set(skips)
        open_arcs = open_arcs & differs
    is_end = is_at(last[..., 0], len(state)) | is_at(last[..., 0] - 1, len(state))
    is_start = positions(len(state), len(leading) + 1) == 0
    shape = (*leading, len(source))
    return Graph(
        source=jnp.broadcast_to(_row(source, leading), shape),
        target=jnp.broadcast_to(_row(target, leading), shape),
        emits=classes[..., target],
        log_weight=_log(open_arcs | ~is_good),
        start=jnp.broadcast_to(_log(is_start), (*leading, len(state))),
        end=_log(is_end),
    )


def _row(numbers: np.ndarray, leading: list[int]) -> jax.Array:
    """Return a constant row of the rank of what has these leading axes."""
    return jnp.asarray(numbers).reshape(*(1 for _ in leading), -1)


def _log(condition: jax.Array) -> jax.Array:
    """Return 0 where the condition holds, else -inf."""
    return jnp.where(condition, jnp.float32(0), jnp.float32(-jnp.inf))
