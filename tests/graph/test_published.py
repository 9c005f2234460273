"""Values that k2 and gtn publish, of CTC and of graphs that are none."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import jax_ctc
from tests.golden import GOLDEN
from tests.graph import published

ALPHABET = 6
CTC = [
    golden
    for golden in GOLDEN
    if "k2/" in golden.source or "gtn " in golden.source or "testBasic" in golden.source
]


def one_batch(goldens):
    """Stack batches: the blank first, classes of -inf, frames of NaN, labels of -1."""
    num_frames, num_classes, num_labels = 7, 6, 5
    logits, labels, frames, counts = [], [], [], []
    for golden in goldens:
        blank, (size, *shape) = golden.blank_id, golden.scores.shape
        others = [c for c in range(shape[1]) if c != blank]
        more_frames, more_classes = num_frames - shape[0], num_classes - shape[1]
        row = golden.logits[:, :, [blank, *others]]
        row = np.pad(row, ((0, 0), (0, 0), (0, more_classes)), constant_values=-np.inf)
        row = np.pad(row, ((0, 0), (0, more_frames), (0, 0)), constant_values=np.nan)
        spelt = golden.labels + (golden.labels < blank)
        width = num_labels - spelt.shape[1]
        logits.append(row)
        labels.append(np.pad(spelt, ((0, 0), (0, width)), constant_values=-1))
        for lengths, given, full in (
            (frames, golden.logit_lengths, shape[0]),
            (counts, golden.label_lengths, spelt.shape[1]),
        ):
            lengths.append(np.full(size, full) if given is None else given)
    return map(np.concatenate, (logits, labels, frames, counts))


def test_ctc():
    """K2's and gtn's CTC, and the two batches with gradients that gtn took over."""
    assert len(CTC) == 6
    logits, labels, frames, counts = one_batch(CTC)

    def total(logits):
        graph = jax_ctc.ctc_graph(labels, counts)
        log_probs = jax.nn.log_softmax(logits)
        loss = jax_ctc.ctc_loss_over_graph(log_probs, graph, frames)
        return loss.sum(), loss

    gradient, loss = jax.jit(jax.grad(total, has_aux=True))(logits)
    expected = np.concatenate([golden.loss for golden in CTC])
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
    [graves] = [golden for golden in CTC if golden.gradient is not None]
    assert CTC[0] is graves
    blank_last = np.roll(gradient[:2, :5], -1, axis=2)
    np.testing.assert_allclose(blank_last, graves.gradient[:, :5], atol=1e-5)


def chain(num_states, arcs):
    """Begin in state 0, end in the last; arcs as (source, target, class, nats)."""
    source, target, emits, log_weight = (jnp.array(x) for x in zip(*arcs, strict=True))
    states = np.arange(num_states)
    return jax_ctc.Graph(
        source=source,
        target=target,
        emits=emits,
        log_weight=log_weight.astype(jnp.float32),
        start=np.where(states == 0, 0, -np.inf).astype(np.float32),
        end=np.where(states == num_states - 1, 0, -np.inf).astype(np.float32),
    )


def every_path(transitions):
    """State 0, then one per class: any class, then any other, with transitions."""
    classes = range(len(transitions))
    first = [(0, c + 1, c) for c in classes]
    others = [(a + 1, b + 1, b) for a in classes for b in classes]
    source, target, emits = np.array(first + others).T
    ends = np.arange(len(transitions) + 1) > 0
    weights = [transitions[b, a] for a in classes for b in classes]
    return jax_ctc.Graph(
        source=source,
        target=target,
        emits=emits,
        log_weight=jnp.stack([jnp.float32(0)] * len(first) + weights),
        start=np.where(ends, -np.inf, 0).astype(np.float32),
        end=np.where(ends, 0, -np.inf).astype(np.float32),
    )


def spelt(target, most=5):
    """Each class for some frames; and of each arc to, from, and whether it is a move.

    Padded with closed arcs to that many classes.
    """
    arcs, to, origin = [(0, 1, target[0], 0.0)], [0], [0]
    for n, c in enumerate(target, start=1):
        after = target[n] if n < len(target) else None
        arcs += [(n, n, c, 0.0), (n, n + 1, after or 0, 0.0 if after else -np.inf)]
        to, origin = [*to, c, after or 0], [*origin, c, c]
    closed = 2 * (most - len(target))
    arcs += [(0, 0, 0, -np.inf)] * closed
    to, origin = to + [0] * closed, origin + [0] * closed
    is_move = np.arange(len(arcs)) > 0
    graph = chain(most + 2, arcs)
    end = np.where(np.arange(most + 2) == len(target), 0, -np.inf).astype(np.float32)
    return dataclasses.replace(graph, end=end), to, origin, is_move


def test_asg():
    """Gtn's ASG: losses, their gradients, and those of the transitions."""
    targets = published.ASG_TARGETS
    every = [spelt(target) for target in targets]
    graphs = jax.tree.map(lambda *x: np.stack(x), *(graph for graph, *_ in every))
    to, origin, moves = (
        np.array(x) for x in zip(*(rest for _, *rest in every), strict=True)
    )

    def total(scores, transitions):
        weights = graphs.log_weight + jnp.where(moves, transitions[to, origin], 0)
        graph = dataclasses.replace(graphs, log_weight=weights)
        loss = jax_ctc.ctc_loss_over_graph(scores, graph)
        loss -= jax_ctc.ctc_loss_over_graph(scores, every_path(transitions))
        return loss.sum(), loss

    zeros = jnp.zeros((ALPHABET, ALPHABET))
    gradient = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
    scores = jnp.float32(published.ASG_SCORES)
    (of_scores, of_transitions), loss = gradient(scores, zeros)
    np.testing.assert_allclose(loss, published.ASG_LOSS, atol=1e-3)
    np.testing.assert_allclose(of_scores, published.ASG_GRADIENT, atol=1e-4)
    np.testing.assert_allclose(of_transitions, published.ASG_TRANSITIONS, atol=1e-4)


def test_viterbi_path():
    """Gtn's best path under transitions."""
    graph = every_path(published.VITERBI_TRANSITIONS)
    path = jax_ctc.ctc_align_over_graph(published.VITERBI_SCORES, graph)
    assert path.tokens.tolist() == published.VITERBI_PATH


def test_total_scores():
    """K2's totals of paths of any length, and the posterior of each arc.

    Here a path has an arc for every frame: those that are short wait at the end.
    """
    num_states, most = 6, 11
    graphs, expected = [], []
    for arcs, _, posteriors in published.TOTALS:
        last = max(target for _, target, _ in arcs)
        rows = [*((s, t, 0, w) for s, t, w in arcs), (last, last, 0, 0.0)]
        rows += [(0, 0, 0, -np.inf)] * (most - len(rows))
        end = np.where(np.arange(num_states) == last, 0, -np.inf).astype(np.float32)
        graphs.append(dataclasses.replace(chain(num_states, rows), end=end))
        expected.append(np.array(posteriors))
    graph = jax.tree.map(lambda *x: np.stack(x), *graphs)
    frames = jnp.zeros((2, num_states - 1, 1))  # as many as the longest path has arcs

    def total(log_weight):
        edited = dataclasses.replace(graph, log_weight=log_weight)
        loss = jax_ctc.ctc_loss_over_graph(frames, edited)
        return loss.sum(), loss

    gradient, loss = jax.jit(jax.grad(total, has_aux=True))(graph.log_weight)
    totals = [total for _, total, _ in published.TOTALS]
    np.testing.assert_allclose(-loss, totals, rtol=1e-6)
    for row, posteriors in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(-row[: len(posteriors)], posteriors, atol=1e-6)
