"""Alignments in float64 NumPy, twice over: by listing paths, and by recursions.

States are numbered along the labels: 2n is blank with n labels said, 2n + 1 is label n.
Nothing here comes from the package, nor from JAX.
"""

import numpy as np

from tests.oracle import paths_of


def states_of(path, labels, blank_id=0):
    """Return the lattice state of each frame of a path that collapses to the labels."""
    states, count, previous = [], 0, blank_id
    for token in path:
        if token == blank_id:
            states.append(2 * count)
        else:
            count += token != previous
            states.append(2 * count - 1)
        previous = token
    assert count == len(labels)
    return states


def weighted_paths(log_probs, labels, blank_id=0):
    """List every path that says the labels, its states and its log-probability."""
    log_probs = np.asarray(log_probs, np.float64)
    paths = paths_of(labels, *log_probs.shape, blank_id)
    frames = np.arange(len(log_probs))
    return [
        (path, states_of(path, labels, blank_id), log_probs[frames, list(path)].sum())
        for path in paths
    ]


def posteriors_by_enumeration(log_probs, labels, blank_id=0):
    """Return P(state | labels) in each frame: [T, 2U + 1]."""
    paths = weighted_paths(log_probs, labels, blank_id)
    scores = np.array([score for *_, score in paths])
    weights = np.exp(scores - np.logaddexp.reduce(scores))
    posterior = np.zeros((len(log_probs), 2 * len(labels) + 1))
    for (_, states, _), weight in zip(paths, weights, strict=True):
        posterior[np.arange(len(states)), states] += weight
    return posterior


def best_by_enumeration(log_probs, labels, blank_id=0):
    """Return the best path and its log-probability; of equals the furthest along."""
    paths = weighted_paths(log_probs, labels, blank_id)
    top = max(score for *_, score in paths)
    equals = [path for path in paths if path[2] >= top - 1e-9]
    path, _, score = max(equals, key=lambda path: path[1][::-1])
    return list(path), score


def entropy_by_enumeration(log_probs, labels, blank_id=0):
    """Return -sum P ln P over the paths that say the labels."""
    scores = np.array(
        [score for *_, score in weighted_paths(log_probs, labels, blank_id)]
    )
    log_weights = scores - np.logaddexp.reduce(scores)
    return -(np.exp(log_weights) * log_weights).sum()


class Trellis:
    """Textbook recursions over the interleaved states of one utterance."""

    def __init__(self, log_probs, labels, blank_id=0):
        """Take [T, V] log-probabilities and [U] labels."""
        self.states = np.full(2 * len(labels) + 1, blank_id)
        self.states[1::2] = labels
        self.can_skip = np.zeros(len(self.states), bool)
        self.can_skip[2:] = (self.states[2:] != blank_id) & (
            self.states[2:] != self.states[:-2]
        )
        self.emissions = np.asarray(log_probs, np.float64)[:, self.states]  # [T, S]

    def ways_into(self, row):
        """Return what each state can come from: [3, S], stay, move, skip."""
        ways = np.full((3, len(row)), -np.inf)
        ways[0], ways[1, 1:], ways[2, 2:] = row, row[:-1], row[:-2]
        ways[2, ~self.can_skip] = -np.inf
        return ways

    def start(self):
        """Return the row before the first frame: as if it had been blank."""
        row = np.full(len(self.states), -np.inf)
        row[0] = 0.0
        return row

    def end(self):
        """Return the row after the last frame."""
        row = np.full(len(self.states), -np.inf)
        row[-2:] = 0.0
        return row

    def alphas(self):
        """Return log alpha of each frame, [T, S]."""
        rows, row = [], self.start()
        for emission in self.emissions:
            row = np.logaddexp.reduce(self.ways_into(row), axis=0) + emission
            rows.append(row)
        return np.array(rows)

    def betas(self):
        """Return log beta of each frame, [T, S], its own emission excluded."""
        rows, row = [], self.end()
        for emission in self.emissions[::-1]:
            rows.append(row)
            ahead = row + emission
            ways = np.full((3, len(row)), -np.inf)
            ways[0], ways[1, :-1] = ahead, ahead[1:]
            ways[2, :-2] = np.where(self.can_skip[2:], ahead[2:], -np.inf)
            row = np.logaddexp.reduce(ways, axis=0)
        return np.array(rows[::-1])

    def log_z(self):
        """Return log p(labels)."""
        return np.logaddexp.reduce(self.alphas()[-1] + self.end())

    def posteriors(self):
        """Return [T, S]; each frame sums to 1."""
        product = self.alphas() + self.betas()
        product = np.exp(product - product.max(axis=1, keepdims=True))
        return product / product.sum(axis=1, keepdims=True)

    def entropy(self):
        """Return ln Z - E[ln p]: it cancels, but float64 has digits to spare."""
        mean = np.where(np.isfinite(self.emissions), self.emissions, 0)
        return self.log_z() - (self.posteriors() * mean).sum()

    def best(self):
        """Return the states of the best path, [T], and its log-probability."""
        row, backs = self.start(), []
        for emission in self.emissions:
            ways = self.ways_into(row)
            backs.append(ways.argmax(axis=0))  # the first of equals
            row = ways.max(axis=0) + emission
        last = len(row) - 1
        score = row[-2:].max()
        state = last if row[last] == score else last - 1
        path = []
        for back in backs[::-1]:
            path.append(state)
            state -= back[state]
        return np.array(path[::-1]), score
