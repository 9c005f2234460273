"""What a beam search should find, by listing every path."""

import itertools

import numpy as np

from tests.oracle import collapse


def labellings(log_probs, blank_id=0):
    """Return {labels: log p} of every label sequence that [T, V] scores allow."""
    log_probs = np.asarray(log_probs, np.float64)
    num_frames, num_classes = log_probs.shape
    found = {}
    for path in itertools.product(range(num_classes), repeat=num_frames):
        score = log_probs[np.arange(num_frames), list(path)].sum()
        if score > -np.inf:
            labels = collapse(path, blank_id)
            found[labels] = np.logaddexp(found.get(labels, -np.inf), score)
    return found


def read(hypotheses, index=()):
    """Return [(labels, log_prob, score)] of one utterance, those that there are."""
    labels, lengths, log_prob, score = (
        np.asarray(x)[index]
        for x in (
            hypotheses.labels,
            hypotheses.lengths,
            hypotheses.log_prob,
            hypotheses.score,
        )
    )
    found = []
    for row, length, p, s in zip(labels, lengths, log_prob, score, strict=True):
        assert (row[length:] == -1).all()
        if s > -np.inf:
            found.append((tuple(row[:length].tolist()), float(p), float(s)))
        else:
            assert length == 0
            assert p == -np.inf
    return found
