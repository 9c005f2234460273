"""Wildcards in float64 NumPy: every path listed, and what each gap may show.

A path has a class or `ANY` in each frame. Which sequences of runs the labels allow is
written down gap by gap; nothing here comes from the package, nor from JAX.
"""

import itertools

import numpy as np

ANY = "*"


def gaps_of(labels, wildcard_id):
    """Return the labels that are left, and what each gap shows: U' and U' + 1."""
    left, gaps = [], [0]
    for label in labels:
        if label == wildcard_id:
            gaps[-1] = ANY
        else:
            left.append(int(label))
            gaps.append(0)
    return left, gaps


def weighted_paths(log_probs, labels, wildcard_id, wildcard_log_prob, blank_id=0):
    """List every path with its states, 2n for a gap and 2n + 1 for a label, and log p.

    In a gap with a wildcard a frame has the better of the blank's log p and the
    wildcard's.
    """
    log_probs = np.asarray(log_probs, np.float64)
    left, gaps = gaps_of(labels, wildcard_id)
    better = np.maximum(log_probs[:, blank_id], wildcard_log_prob)
    allowed = {}
    for shown in itertools.product([False, True], repeat=len(gaps)):
        runs, states = [], []
        for n, gap in enumerate(gaps):
            if shown[n]:
                runs.append(ANY if gap == ANY else blank_id)
                states.append(2 * n)
            if n < len(left):
                runs.append(left[n])
                states.append(2 * n + 1)
        if all(a != b for a, b in itertools.pairwise(runs)):
            allowed[tuple(runs)] = states
    found = []
    alphabet = [*range(log_probs.shape[1]), ANY]
    for path in itertools.product(alphabet, repeat=len(log_probs)):
        runs = [(k, len(list(run))) for k, run in itertools.groupby(path)]
        states = allowed.get(tuple(k for k, _ in runs))
        if states is None:
            continue
        frames = np.repeat(states, [size for _, size in runs])
        score = sum(
            better[t] if k == ANY else log_probs[t, k] for t, k in enumerate(path)
        )
        found.append((path, frames, score))
    return found


def log_sum(paths):
    """Return the log of the sum over the paths."""
    return np.logaddexp.reduce([score for *_, score in paths]) if paths else -np.inf
