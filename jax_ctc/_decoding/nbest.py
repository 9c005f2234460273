"""The lattice over the n-best: what each hypothesis is worth, and where its labels are.

All hypotheses of an utterance read the same scores: there is no copy of them for each,
and no lattice longer than the labels asked for.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc import _recursion
from jax_ctc._alignment.paths import live_frames, log_probs_along, tokens_of
from jax_ctc._alignment.viterbi import describe
from jax_ctc._lattice.problem import Problem, build


class Nbest(NamedTuple):
    """N label sequences for the same scores."""

    scores: Float[Array, "B T V"]
    logit_lengths: Int[Array, " B"]  # within 0..T
    labels: Int[Array, "B N L"]
    lengths: Int[Array, "B N"]
    is_ok: Bool[Array, "B N"]  # False: there is none


class Times(NamedTuple):
    """Where each label is on its sequence's best path."""

    start: Int[Array, "B *N L"]  # -1: there is no label
    end: Int[Array, "B *N L"]
    confidence: Float[Array, "B *N L"]  # mean probability over the frames; 0: no label


def log_prob(nbest: Nbest, *, blank_id: int, normalise: bool) -> Float[Array, "B N"]:
    """Return log p(labels) over all paths, as the loss has it; -inf unless `is_ok`.

    One sequence is a problem as any other. To several a kernel would not do: it takes
    scores of their own for each.
    """

    def one(problem: Problem) -> Float[Array, " B"]:
        if nbest.labels.shape[1] == 1:
            return _recursion.forward(None, problem, normalise=normalise)
        every = _recursion.read(None, "prefixes", problem, normalise=normalise)
        whole = jnp.maximum(problem.num_labels, 0)[:, None]
        return jnp.take_along_axis(every, whole, axis=1)[:, 0]

    found = _of_each(nbest, blank_id, one)
    return jnp.where(nbest.is_ok, found, -jnp.inf)


def times(nbest: Nbest, *, blank_id: int, normalise: bool) -> Times:
    """Return where the labels are on the best path, exactly as `ctc_align` does.

    As in `log_prob`, several sequences are no kernel's work.
    """
    num_frames = nbest.scores.shape[1]
    implementation = None if nbest.labels.shape[1] == 1 else "blocked"

    def one(problem: Problem) -> Times:
        log_value, states = _recursion.read(
            implementation, "best_path", problem, normalise=normalise
        )
        states = states[:num_frames].T  # [B, T]
        is_live = live_frames(problem, log_value, num_frames)
        tokens = tokens_of(states[:, None], problem, is_live)  # [B, 1, T]
        log_probs = log_probs_along(
            problem.scores, tokens, is_live, normalise=normalise
        )
        found = describe(problem, log_value, states, tokens, log_probs, is_live)
        confidence = jnp.where(found.start >= 0, found.score, 0)
        return Times(found.start, found.end, confidence)

    return _of_each(nbest, blank_id, one)


def _of_each(nbest: Nbest, blank_id: int, reading: Callable[[Problem], Any]) -> Any:
    """Read the lattice of every sequence, all of them from the same scores."""
    num_classes = nbest.scores.shape[2]

    def one(
        labels: Int[Array, "B L"], lengths: Int[Array, " B"], is_ok: Bool[Array, " B"]
    ) -> Any:
        problem = build(
            nbest.scores,
            labels,
            nbest.logit_lengths,
            lengths,
            is_ok,
            blank_id=blank_id,
            num_classes=num_classes,
        )
        return reading(problem)

    sequences = nbest.labels, nbest.lengths, nbest.is_ok
    if nbest.labels.shape[1] == 1:
        found = one(*(x[:, 0] for x in sequences))
        return jax.tree.map(lambda x: x[:, None], found)
    return jax.vmap(one, in_axes=1, out_axes=1)(*sequences)
