"""CTC in float64 NumPy, twice over: by listing paths, and by the textbook recursion.

Nothing here comes from the package, nor from JAX: the two methods share no code with
what they check, nor with one another.
"""

import itertools

import numpy as np


def collapse(path, blank_id=0):
    """Merge repeats, then drop blanks: the labels that a path stands for."""
    return tuple(k for k, _ in itertools.groupby(path) if k != blank_id)


def paths_of(labels, num_frames, num_classes, blank_id=0):
    """List every path, of all V**T, that collapses to the labels."""
    every = itertools.product(range(num_classes), repeat=num_frames)
    target = tuple(int(label) for label in labels)
    return [path for path in every if collapse(path, blank_id) == target]


def loss_by_enumeration(log_probs, labels, blank_id=0):
    """Return -log of the sum of the paths' probabilities; [T, V] and [U] to a float."""
    log_probs = np.asarray(log_probs, np.float64)
    paths = paths_of(labels, *log_probs.shape, blank_id)
    scores = [
        sum(frame[k] for frame, k in zip(log_probs, p, strict=True)) for p in paths
    ]
    return -np.logaddexp.reduce(scores) if scores else np.inf


def posterior_by_enumeration(log_probs, labels, blank_id=0):
    """Return the probability, given the labels, of each class in each frame: [T, V]."""
    log_probs = np.asarray(log_probs, np.float64)
    num_frames, num_classes = log_probs.shape
    posterior = np.zeros((num_frames, num_classes))
    for path in paths_of(labels, num_frames, num_classes, blank_id):
        frames = np.arange(num_frames)
        posterior[frames, list(path)] += np.exp(log_probs[frames, list(path)].sum())
    return posterior / posterior.sum(-1, keepdims=True).clip(min=1e-300)


def log_softmax(logits):
    """Return log softmax over the last axis, in float64."""
    logits = np.asarray(logits, np.float64)
    peak = logits.max(-1, keepdims=True)
    return logits - peak - np.log(np.exp(logits - peak).sum(-1, keepdims=True))


def loss_and_gradient(scores, labels, blank_id=0, normalise=True):
    """Alpha-beta over the interleaved states blank, label, blank, ..., blank.

    [T, V] scores and [U] labels to the loss, and its [T, V] gradient with respect to
    the scores: softmax - posterior for logits, -posterior for log-probabilities.
    """
    scores = np.asarray(scores, np.float64)
    log_probs = log_softmax(scores) if normalise else scores
    num_frames, num_classes = scores.shape
    states = np.full(2 * len(labels) + 1, blank_id)
    states[1::2] = labels
    skips = np.zeros(len(states), bool)
    skips[2:] = (states[2:] != blank_id) & (states[2:] != states[:-2])
    if num_frames == 0:
        loss = 0.0 if len(labels) == 0 else np.inf
        return loss, np.zeros_like(scores)

    alphas, log_z = _alphas(log_probs, states, skips)
    if log_z == -np.inf:
        return np.inf, np.zeros_like(scores)
    gradient = np.exp(log_probs) if normalise else np.zeros_like(scores)
    beta = _end(len(states))
    for t in range(num_frames - 1, -1, -1):
        weight = alphas[t] + beta
        weight = np.exp(weight - weight.max())
        weight = weight / weight.sum()
        gradient[t] -= np.bincount(states, weight, minlength=num_classes)
        ahead = beta + log_probs[t, states]
        beta = _log_sum(
            ahead, _shift(ahead, -1), _shift(np.where(skips, ahead, -np.inf), -2)
        )
        beta = beta - beta.max()
    return -log_z, gradient


def batch_loss_and_gradient(
    scores, labels, logit_lengths=None, label_lengths=None, blank_id=0, normalise=True
):
    """Loop over utterances, [B, T, V] to [B] and [B, T, V]; gradient 0 on padding."""
    scores = np.asarray(scores, np.float64)
    losses, gradient = np.zeros(len(scores)), np.zeros_like(scores)
    for b in range(len(scores)):
        frames = scores.shape[1] if logit_lengths is None else logit_lengths[b]
        count = labels.shape[1] if label_lengths is None else label_lengths[b]
        losses[b], gradient[b, :frames] = loss_and_gradient(
            scores[b, :frames], labels[b, :count], blank_id, normalise
        )
    return losses, gradient


def _alphas(log_probs, states, skips):
    """Return [T, S] log alphas, each frame shifted to maximum 0, and log Z."""
    alphas = np.empty((len(log_probs), len(states)))
    alpha, total = np.full(len(states), -np.inf), 0.0
    alpha[0] = 0.0
    for t, frame in enumerate(log_probs):
        if t == 0:
            alpha[1:2] = 0.0  # a path may start with the first label
        else:
            skipped = np.where(skips, _shift(alpha, 2), -np.inf)
            alpha = _log_sum(alpha, _shift(alpha, 1), skipped)
        alpha = alpha + frame[states]
        peak = alpha.max()
        if peak == -np.inf:
            return alphas, -np.inf
        alpha, total = alpha - peak, total + peak
        alphas[t] = alpha
    return alphas, total + np.logaddexp.reduce(alpha[-2:])


def _end(num_states):
    """Return log beta after the last frame: the last blank and the last label."""
    beta = np.full(num_states, -np.inf)
    beta[-2:] = 0.0
    return beta


def _shift(row, places):
    """Move a row of states to the right (or left), filling with log 0."""
    moved = np.full_like(row, -np.inf)
    if places > 0:
        moved[places:] = row[:-places]
    else:
        moved[:places] = row[-places:]
    return moved


def _log_sum(*rows):
    """Return log(sum(exp(rows))), -inf where all are."""
    peak = np.maximum.reduce(rows)
    peak = np.where(peak == -np.inf, 0.0, peak)
    with np.errstate(divide="ignore"):
        return np.log(sum(np.exp(row - peak) for row in rows)) + peak
