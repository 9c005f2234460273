"""Where on the line each digit was read: the posterior of every label.

One utterance: T columns, U labels, V classes.
"""

import jax
import numpy as np

from jax_ctc import ctc_loss_from_log_probs


def has_equal_neighbours(labels: np.ndarray) -> bool:
    """Says whether any label of labels [U] equals the one before it."""
    return bool((labels[1:] == labels[:-1]).any())


def label_posteriors(log_probs: jax.Array, labels: np.ndarray) -> np.ndarray:
    """Returns P(column t shows label u | the line says `labels`).

    The gradient of the loss with respect to a log-probability is minus the posterior
    of that class at that column. A class that occurs twice in the line would sum both
    occurrences; so each occurrence gets a class of its own first:
    V classes -> [blank, first label, ..., last label].

    Two equal labels side by side must be separated by a blank, and as two different
    classes they would no longer have to be. Such lines are refused.

    Args:
        log_probs: [T, V] float, blank first.
        labels: [U] int, no two neighbours equal.

    Returns:
        [T, U + 1], blank first. Every row sums to 1.
    """
    if has_equal_neighbours(labels):
        raise ValueError(
            "equal neighbours need a blank between them; pick another line"
        )
    classes = np.concatenate([[0], labels])
    own_classes = np.arange(1, len(labels) + 1)  # [U]: every label is its own class
    gradient = jax.grad(ctc_loss_from_log_probs)(log_probs[:, classes], own_classes)
    return -np.asarray(gradient)
