"""The lattice over the n-best: what each hypothesis is worth, and where its labels are.

All hypotheses of an utterance read the same scores: these are mapped over nothing, so
there is no copy of them per hypothesis, and no lattice longer than the labels asked
for.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc import _recursion
from jax_ctc._alignment.paths import live_frames, tokens_of
from jax_ctc._alignment.viterbi import describe
from jax_ctc._lattice.emissions import ClassEmissions
from jax_ctc._lattice.normaliser import Normaliser
from jax_ctc._lattice.topology import build, class_ids
from jax_ctc._loss.likelihood import Problem


class Shared(NamedTuple):
    """What the hypotheses of an utterance have in common."""

    scores: Float[Array, "B T V"]
    lengths: Int[Array, " B"]  # frames, within 0..T
    normaliser: Normaliser  # [B, T]


class Times(NamedTuple):
    """Where each label is on its hypothesis' best path."""

    start: Int[Array, "B *N L"]  # -1: there is no label
    end: Int[Array, "B *N L"]
    confidence: Float[Array, "B *N L"]  # mean probability over the frames; 0: no label


def read(
    shared: Shared,
    reading: Any,
    labels: Int[Array, "B N L"],
    lengths: Int[Array, "B N"],
    is_ok: Bool[Array, "B N"],
    *,
    blank_id: int,
    normalise: bool,
) -> Any:
    """Apply one of the readings below to the lattices of all hypotheses.

    Where not `is_ok`, there is no hypothesis, and a lattice without an end.
    """
    num_classes = shared.scores.shape[2]

    def one(
        labels: Int[Array, "B L"], lengths: Int[Array, " B"], is_ok: Bool[Array, " B"]
    ) -> Any:
        ids = class_ids(labels, lengths, blank_id=blank_id, num_classes=num_classes)
        problem = Problem(build(labels, lengths, is_ok), ids, shared.lengths)
        emissions = ClassEmissions(
            shared.scores, ids, shared.lengths, shared.normaliser, normalise
        )
        return reading(problem, emissions)

    return jax.vmap(one, in_axes=1, out_axes=1)(labels, lengths, is_ok)


def log_prob(problem: Problem, emissions: ClassEmissions) -> Float[Array, " B"]:
    """Return log p(labels) over all paths, as the loss has it; -inf without an end."""
    return _recursion.forward(None, problem.lattice, emissions)


def times(problem: Problem, emissions: ClassEmissions) -> Times:
    """Return where the labels are on the best path, exactly as `ctc_align` does."""
    num_frames = emissions.num_frames
    log_value, states = _recursion.best_path(None, problem.lattice, emissions)
    states = states[:num_frames].T  # [B, T]
    is_live = live_frames(problem, log_value, num_frames)
    tokens = tokens_of(states[:, None], problem, is_live)  # [B, 1, T]
    log_probs = jnp.where(is_live, _at(emissions, tokens[:, 0]), 0)[:, None]
    found = describe(problem, log_value, states, tokens, log_probs, is_live)
    confidence = jnp.where(found.start >= 0, found.score, 0)
    return Times(found.start, found.end, confidence)


def _at(emissions: ClassEmissions, tokens: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """Return log p of one class in each frame."""
    place = jnp.maximum(tokens, 0)[:, :, None]
    score = jnp.take_along_axis(
        emissions.scores, place, axis=2, mode="promise_in_bounds"
    )[:, :, 0]
    peak, total = emissions.normaliser
    score = score.astype(peak.dtype)
    return (score - peak) - jnp.log(total) if emissions.normalise else score
