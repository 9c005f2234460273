"""Every path through a graph, one by one, in float64 NumPy."""

import numpy as np


def paths_of(graph, num_frames):
    """Yield the arcs and the states of each path of that many arcs."""
    num_arcs, num_states = len(graph.source), len(graph.start)

    def extend(arcs, states):
        if len(arcs) == num_frames:
            yield arcs, states
            return
        for arc in range(num_arcs):
            if graph.source[arc] == states[-1]:
                yield from extend([*arcs, arc], [*states, graph.target[arc]])

    for state in range(num_states):
        yield from extend([], [state])


def by_enumeration(scores, graph, num_frames):
    """Return -log Z, the largest log weight and its arcs, and posteriors.

    Of classes [T, V], of arcs [T, A], of starts and ends [S].
    """
    num_arcs = len(graph.source)
    weights = np.broadcast_to(graph.log_weight, (len(scores), num_arcs))
    found = []
    for arcs, states in paths_of(graph, num_frames):
        frames = np.arange(num_frames)
        log_weight = graph.start[states[0]] + graph.end[states[-1]]
        if num_frames:
            log_weight = log_weight + weights[frames, arcs].sum()
            log_weight = log_weight + scores[frames, graph.emits[arcs]].sum()
        found.append((log_weight, arcs, states))
    log_weights = np.array([log_weight for log_weight, *_ in found])
    log_z = np.logaddexp.reduce(log_weights)
    posteriors = {
        "scores": np.zeros(scores.shape),
        "log_weight": np.zeros(weights.shape),
        "start": np.zeros(len(graph.start)),
        "end": np.zeros(len(graph.start)),
    }
    if log_z > -np.inf:
        for log_weight, arcs, states in found:
            share = np.exp(log_weight - log_z)
            posteriors["start"][states[0]] += share
            posteriors["end"][states[-1]] += share
            for frame, arc in enumerate(arcs):
                posteriors["scores"][frame, graph.emits[arc]] += share
                posteriors["log_weight"][frame, arc] += share
    best = int(np.argmax(log_weights))
    return -log_z, log_weights[best], found[best][1], posteriors
