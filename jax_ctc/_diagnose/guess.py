r"""How probable are transcripts that say nothing about the utterance? By a lattice.

A batch makes labels likely or unlikely for reasons that have nothing to do with what
was said: how often blank wins, which class the last layer's bias prefers, how many
frames there are. The guess shares all of those with the transcript, and no more:

    guess[n] = sum_{y of n labels} q(y_1) ... q(y_n) p(y | scores)

q are the label frequencies of the batch. It is the mean probability of a transcript
whose labels were drawn by lot, so under the belief that labels and scores have nothing
to do with one another, p(labels) / guess is a likelihood ratio with expectation 1: it
exceeds e^x with a probability of at most e^-x. Its logarithm is what the scores *know*
of the transcript, in nats.

Equal neighbours need a blank between them, so the lattice remembers the last class,
label[n, c] beside blank[n]:

    label'[n, c] = p_t(c) * (label[n, c] + q(c) * (blank[n] + others[n-1, c]))
    blank'[n]    = p_t(blank) * (blank[n] + label[n-1])

    label[n] = sum_c label[n, c]            others[n, c] = label[n] - label[n, c]

Each row n keeps a logarithm of its own, and classes within a row are plain numbers
below it, so that a frame costs U exponentials rather than U * C.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._diagnose.quickly import OFTEN, jit_quickly
from jax_ctc._numbers.masks import positions

# More classes than this share a group, which is scored as its best member in each
# frame: that bounds the guess from above, so knowledge is understated, never invented.
GROUPS = 64


def frequencies(
    labels: np.ndarray, label_lengths: np.ndarray, num_classes: int
) -> np.ndarray:
    """Return [V], the share of each class among the labels inside the lengths."""
    inside = np.arange(labels.shape[1])[None, :] < label_lengths[:, None]
    good = inside & (labels >= 0) & (labels < num_classes)
    counts = np.bincount(labels[good], minlength=num_classes)
    return counts / max(1, counts.sum())


def log_guess(
    log_probs: np.ndarray,
    logit_lengths: np.ndarray,
    share: np.ndarray,
    num_labels: int,
    *,
    blank_id: int,
) -> np.ndarray:
    """Return [B, U+1]: log guess of n labels, n = 0..U, of each utterance.

    log_probs [B, T, V] and the label frequencies `share` [V].
    """
    groups = min(GROUPS, log_probs.shape[2])
    order = np.argsort(-share, kind="stable")[: np.count_nonzero(share)]
    best = np.full((*log_probs.shape[:2], groups), -np.inf, np.float32)
    weight = np.zeros(groups)
    for start in range(0, len(order), groups):
        members = order[start : start + groups]
        here = best[:, :, : len(members)]
        np.maximum(here, log_probs[:, :, members], out=here)
        weight[: len(members)] += share[members]
    return np.asarray(
        _guess(
            jnp.asarray(best),
            jnp.asarray(log_probs[:, :, blank_id]),
            jnp.asarray(weight, jnp.float32),
            jnp.asarray(logit_lengths, jnp.int32),
            num_labels,
        )
    )


@jit_quickly(OFTEN, static_argnums=4)
def _guess(
    label: Float[Array, "B T C"],
    blank: Float[Array, "B T"],
    weight: Float[Array, " C"],
    logit_lengths: Int[Array, " B"],
    num_labels: int,
) -> Float[Array, "B {num_labels+1}"]:
    """Run the lattice above over time."""
    utterances, _, classes = label.shape
    log_blank, log_row = _empty_rows(blank, num_labels)
    state = (
        log_blank,  # log blank[n]
        log_row,  # log of row n's largest class
        jnp.zeros((utterances, num_labels, classes), blank.dtype),  # relative to it
    )
    frames = (jnp.moveaxis(label, 1, 0), blank.T, positions(label.shape[1]))

    def advance(state: tuple, frame: tuple) -> tuple:
        emit, emit_blank, t = frame  # [B, C], [B], []
        log_blank, log_row, row = state
        log_label = log_row + jnp.log(jnp.sum(row, axis=2))  # [B, U]
        before = _after_nothing(log_row)  # row n - 1
        entering = jnp.concatenate(
            [jnp.zeros_like(row[:, :1]), row[:, :-1]], axis=1
        )  # [B, U, C]
        entering = jnp.sum(entering, axis=2, keepdims=True) - entering
        entering = jnp.maximum(entering, 0)
        peak = jnp.maximum(jnp.maximum(log_row, before), log_blank[:, :-1])
        peak = jnp.where(peak == -jnp.inf, 0, peak)  # [B, U]
        best = jnp.max(emit, axis=1, keepdims=True)  # [B, 1]
        best = jnp.where(best == -jnp.inf, 0, best)

        def lift(log_value: Float[Array, "B U"]) -> Float[Array, "B U 1"]:
            return jnp.exp(log_value - peak)[:, :, None]

        arriving = lift(log_blank[:, :-1]) + entering * lift(before)
        new = row * lift(log_row) + weight[None, None, :] * arriving
        new = new * jnp.exp(emit - best)[:, None, :]
        largest = jnp.max(new, axis=2)
        new = new / jnp.where(largest == 0, 1, largest)[:, :, None]
        # log 0 = -inf is meant: the row is empty.
        new_row = jnp.log(largest) + peak + best
        into_blank = jnp.logaddexp(log_blank, _after_nothing(log_label, keep=True))
        new_blank = into_blank + emit_blank[:, None]
        live = (t < logit_lengths)[:, None]
        return (
            jnp.where(live, new_blank, log_blank),
            jnp.where(live, new_row, log_row),
            jnp.where(live[:, :, None], new, row),
        ), None

    (log_blank, log_row, row), _ = lax.scan(advance, state, frames)
    log_label = log_row + jnp.log(jnp.sum(row, axis=2))
    return jnp.logaddexp(log_blank, _after_nothing(log_label, keep=True))


def _empty_rows(
    blank: Float[Array, "B T"], num_labels: int
) -> tuple[Float[Array, "B {num_labels+1}"], Float[Array, "B {num_labels}"]]:
    """Return log blank[n] and log label[n] before the first frame: blank[0] = 1."""
    log_blank = jnp.full_like(blank, -jnp.inf, shape=(len(blank), num_labels + 1))
    return log_blank.at[:, 0].set(0), log_blank[:, 1:]


def _after_nothing(
    log_rows: Float[Array, "B U"], *, keep: bool = False
) -> Float[Array, "B _"]:
    """Return row n - 1 at n, -inf at 0; `keep` also keeps the last, at U."""
    first = jnp.full_like(log_rows, -jnp.inf, shape=(log_rows.shape[0], 1))
    return jnp.concatenate([first, log_rows if keep else log_rows[:, :-1]], axis=1)
