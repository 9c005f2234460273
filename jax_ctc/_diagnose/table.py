"""The table: one utterance's row, mapped over the batch by `vmap`, compiled once."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_ctc._alignment.entropy import alignment_entropy
from jax_ctc._alignment.posteriors import ctc_posteriors
from jax_ctc._alignment.viterbi import ctc_align
from jax_ctc._checks.labels import needed_frames
from jax_ctc._checks.status import Status
from jax_ctc._decoding.greedy import greedy_decode
from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.report import Utterance
from jax_ctc._loss.losses import ctc_loss_from_log_probs, ctc_loss_with_status


class Row(NamedTuple):
    """One utterance on the device; a batch, and NumPy, once it is through."""

    loss: Any  # [...] nats, as passed
    status: Any  # [...] int32
    blank_share: Any  # [...]
    entropy: Any  # [...] nats
    best_path_share: Any  # [...]
    decoded: Any  # [..., T] int32
    num_decoded: Any  # [...] int32


def rows(given: Given) -> Row:
    """Return the numbers of every utterance, on the host."""
    told, holes = given, given.holes
    if holes is not None:
        told = dataclasses.replace(
            given, labels=holes.labels, label_lengths=holes.label_lengths
        )
    of_batch = _rows(
        given.blank_id,
        given.inputs == "logits",
        None if holes is None else holes.wildcard_id,
        None if holes is None else holes.log_prob,
        *(told.scores, told.labels, told.logit_lengths, told.label_lengths),
    )
    return Row(*(np.asarray(column) for column in of_batch))


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
            decoded=given.spell(row.decoded[b, : row.num_decoded[b]]),
            status=names[b],
        )
        for b in range(len(row.loss))
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _rows(
    blank_id: int,
    normalise: bool,
    wildcard_id: int | None,
    log_prob: Any,
    scores: Float[Array, "B T V"],
    labels: Int[Array, "B U"],
    logit_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"],
) -> Row:
    options: dict[str, Any] = {"blank_id": blank_id}
    if wildcard_id is not None:
        options |= {"wildcard_id": wildcard_id, "wildcard_log_prob": log_prob}

    def row(*batch: jax.Array) -> Row:
        scores, _, frames, _ = batch
        loss, status = ctc_loss_with_status(*batch, **options)
        passed = loss
        if not normalise:
            passed = ctc_loss_from_log_probs(*batch, **options)
        blank = ctc_posteriors(*batch, **options).blank  # [T, U+1]
        share = jnp.sum(blank) / jnp.maximum(frames, 1).astype(blank.dtype)
        # exp(-inf + inf) of a flagged utterance is NaN; it has no best path.
        best = jnp.exp(ctc_align(*batch, **options).log_prob + loss)
        greedy = greedy_decode(scores, frames, blank_id=blank_id)
        return Row(
            loss=passed,
            status=status,
            blank_share=jnp.where(status == 0, share, 0),
            entropy=alignment_entropy(*batch, **options),
            best_path_share=jnp.where(status == 0, jnp.minimum(best, 1), 0),
            decoded=greedy.labels,
            num_decoded=greedy.lengths,
        )

    return jax.vmap(row)(scores, labels, logit_lengths, label_lengths)
