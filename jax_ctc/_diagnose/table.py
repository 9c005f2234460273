r"""The table: what the lattice says of each utterance, from one gradient of the loss.

A first diagnosis is bound by compiling, so nothing is asked for that the gradient of
the loss knows already: by log-probabilities it is -posterior, of each class in each
frame. With it,

    blank share = sum_t posterior_t(blank) / T
    entropy     = log Z - sum_{t,v} posterior_t(v) log p_t(v)

for the log-probability of a path is a sum over frames; what the posteriors of a frame
lack of 1 is a wildcard's, at its price. That is a difference of numbers as large as the
loss, taken in float64 of posteriors in float32: good enough to be read.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import log_softmax

from jax_ctc._alignment.viterbi import ctc_align
from jax_ctc._checks.labels import needed_frames
from jax_ctc._checks.status import Status
from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.quickly import ONCE, jit_quickly
from jax_ctc._diagnose.report import Utterance
from jax_ctc._diagnose.structure import usable
from jax_ctc._loss.losses import ctc_loss_from_log_probs, ctc_loss_with_status


class Row(NamedTuple):
    """The numbers of each utterance, on the host."""

    loss: np.ndarray  # [B] nats, as passed
    status: np.ndarray  # [B] int32
    blank_share: np.ndarray  # [B]
    entropy: np.ndarray  # [B] nats
    best_path_share: np.ndarray  # [B]
    decoded: list[list[int]]  # the labels of each best path, of class after class


def rows(given: Given) -> Row:
    """Return the numbers of every utterance, on the host."""
    told, holes = given, given.holes
    if holes is not None:
        told = dataclasses.replace(
            given, labels=holes.labels, label_lengths=holes.label_lengths
        )
    numbers = _lattice(
        given.blank_id,
        given.inputs == "logits",
        None if holes is None else holes.wildcard_id,
        None if holes is None else holes.log_prob,
        *(told.scores, told.labels, told.logit_lengths, told.label_lengths),
    )
    passed, status, loss, best, posterior = map(np.asarray, numbers)
    wildcard = None if holes is None else holes.log_prob
    share, entropy = np.zeros(len(loss)), np.zeros(len(loss))
    for b in np.flatnonzero(status == 0):
        frames = int(given.logit_lengths[b])
        log_probs = given.scores[b, :frames].astype(np.float64)
        if given.inputs == "logits":
            log_probs = log_softmax(log_probs, axis=1)
        share[b], entropy[b] = _of_path(
            log_probs, posterior[b, :frames], passed[b], given.blank_id, wildcard
        )
    nonfinite = (status & int(Status.NONFINITE_LOGITS)) != 0
    with np.errstate(invalid="ignore"):  # inf - inf of a flagged utterance
        best = np.where(status == 0, np.minimum(np.exp(best + loss), 1), 0)
    return Row(
        passed,
        status,
        share,
        np.where(nonfinite, np.nan, entropy),
        best,
        _decoded(given),
    )


def _of_path(
    log_probs: np.ndarray,
    posterior: np.ndarray,
    loss: float | np.floating,
    blank_id: int,
    wildcard: float | None,
) -> tuple[float, float]:
    """Return the share of blanks and the entropy, as above, of one utterance [T, V]."""
    posterior = np.clip(posterior.astype(np.float64), 0, 1)
    total = posterior.sum(1, keepdims=True)
    anything = 0.0  # frames that a wildcard takes
    if wildcard is None:
        posterior = posterior / np.where(total == 0, 1, total)
    else:
        anything = float(np.clip(1 - total, 0, 1).sum())
    blanks = posterior[:, blank_id].sum() / max(1, len(posterior))
    used = posterior > 0
    mean = float((posterior[used] * log_probs[used]).sum())
    if anything:
        mean += anything * (wildcard or 0.0)
    return float(blanks), max(0.0, float(-loss - mean))


def _decoded(given: Given) -> list[list[int]]:
    """Return the best class of each frame, repeats and blanks taken out."""
    frames = given.scores.shape[1]
    good = usable(given) & (given.logit_lengths >= 0) & (given.logit_lengths <= frames)
    found = []
    for scores, length, is_good in zip(
        given.scores, given.logit_lengths, good, strict=True
    ):
        path = scores[: length if is_good else 0].argmax(1)
        is_first = np.diff(path, prepend=-1) != 0
        found.append(path[is_first & (path != given.blank_id)].tolist())
    return found


def utterances(given: Given, row: Row) -> tuple[Utterance, ...]:
    """Word the rows for the report."""
    names = [
        tuple(str(flag.name) for flag in Status if bits & int(flag))
        for bits in row.status.tolist()
    ]
    bad = (row.status & int(Status.BAD_LENGTH)) != 0
    counts = np.clip(given.label_lengths, 0, given.labels.shape[1])
    spare = given.logit_lengths - needed_frames(given.labels, counts)
    return tuple(
        Utterance(
            index=b,
            loss=float(row.loss[b]),
            loss_per_label=float(row.loss[b]) / max(1, int(counts[b])),
            loss_per_frame=float(row.loss[b]) / max(1, int(given.logit_lengths[b])),
            spare_frames=None if bad[b] else int(spare[b]),
            blank_share=float(row.blank_share[b]),
            alignment_entropy=float(row.entropy[b]),
            best_path_share=float(row.best_path_share[b]),
            labels=given.spell_transcript(b),
            decoded=given.spell(row.decoded[b]),
            status=names[b],
        )
        for b in range(len(row.loss))
    )


@jit_quickly(ONCE, static_argnums=(0, 1, 2))
def _lattice(
    blank_id: int,
    is_logits: bool,
    wildcard_id: int | None,
    log_prob: Any,
    scores: Float[Array, "B T V"],
    labels: Int[Array, "B U"],
    logit_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"],
) -> tuple[Array, Array, Array, Array, Float[Array, "B T V"]]:
    """Return the loss as passed, status, loss of logits, log p of a path, posterior."""
    options: dict[str, Any] = {"blank_id": blank_id}
    if wildcard_id is not None:
        options |= {"wildcard_id": wildcard_id, "wildcard_log_prob": log_prob}
    batch = (labels, logit_lengths, label_lengths)
    loss, status = ctc_loss_with_status(scores, *batch, **options)
    best = ctc_align(scores, *batch, **options).log_prob

    def of(log_probs: Array) -> Array:
        return ctc_loss_from_log_probs(log_probs, *batch, **options)

    log_probs = jax.nn.log_softmax(scores) if is_logits else scores
    passed, pull = jax.vjp(of, log_probs)
    [gradient] = pull(jnp.ones_like(passed))
    return passed, status, loss, best, -gradient
