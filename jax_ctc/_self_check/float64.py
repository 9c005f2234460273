"""What every implementation is compared with: the textbook recursion, NumPy, float64.

Log space, the states interleaved as blank, label, blank, ..., blank; nothing of the
library's own lattice, and nothing that a compiler for the device could get wrong.
"""

import numpy as np


def loss_and_gradient(
    logits: np.ndarray, labels: np.ndarray, blank_id: int
) -> tuple[float, np.ndarray]:
    """Return the loss of one utterance without padding, and d loss / d logits.

    [T, V] logits and [U] labels; inf and zeros where no path has a probability.
    """
    log_probs = np.asarray(logits, np.float64)
    log_probs = log_probs - log_probs.max(1, keepdims=True)
    log_probs = log_probs - np.log(np.exp(log_probs).sum(1, keepdims=True))
    states = np.full(2 * len(labels) + 1, blank_id)
    states[1::2] = labels
    can_skip = np.zeros(len(states), bool)
    can_skip[3::2] = labels[1:] != labels[:-1]
    emissions = log_probs[:, states]
    alphas = _sweep(emissions, can_skip)
    # Beta with its emission is alpha of the utterance in reverse; there a skip leaves
    # the state that it enters here.
    mirrored = np.zeros(len(states), bool)
    mirrored[2:] = can_skip[2:][::-1]
    betas = _sweep(emissions[::-1, ::-1], mirrored)[::-1, ::-1]
    last = alphas[-1, -2:] if len(states) > 1 else alphas[-1]
    loss = -np.logaddexp.reduce(last)
    if np.isposinf(loss):
        return np.inf, np.zeros_like(log_probs)
    with np.errstate(invalid="ignore"):
        log_posterior = alphas + betas - emissions
    posterior = np.exp(np.where(np.isneginf(emissions), -np.inf, log_posterior) + loss)
    gradient = np.exp(log_probs)
    for column, state in zip(posterior.T, states, strict=True):
        gradient[:, state] -= column
    return float(loss), gradient


def _sweep(emissions: np.ndarray, can_skip: np.ndarray) -> np.ndarray:
    """Return alpha of every frame, its emission included."""
    frames, size = emissions.shape
    alphas = np.full((frames, size), -np.inf)
    alphas[0, :2] = emissions[0, :2]
    for t in range(1, frames):
        before = alphas[t - 1]
        moved = np.full(size, -np.inf)
        moved[1:] = before[:-1]
        skipped = np.full(size, -np.inf)
        skipped[2:] = np.where(can_skip[2:], before[:-2], -np.inf)
        alphas[t] = emissions[t] + np.logaddexp(np.logaddexp(before, moved), skipped)
    return alphas
