"""Labels that stand for anything, none included: gaps that take any frame.

A wildcard is no state of the lattice. It is taken out of the labels, and the gap that
it stood in, a blank state between labels, emits in each frame the better of two:

    p_t(gap) = max(p_t(blank), exp(wildcard_log_prob))

The better, not the wildcard alone: were silence in such a gap to cost what the wildcard
costs, labels beside it would stretch over that silence. And not their sum: what a
frame is taken for would count twice.

The problem is the one over its own classes (needed.py) with one class more:

    class | 0 .. U-1          | U         | U+1                | U+2
          | label n, its own  | the blank | what no state has  | the better of the two

so that recursions read it as they read any other, and JAX's derivative of these lines
sends to the blank what is the blank's, and to `wildcard_log_prob` the rest.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._checks.labels import is_wildcard, is_within, to_the_left
from jax_ctc._lattice.problem import Problem


class Wildcards(NamedTuple):
    """Where the wildcards of a batch are, and what they cost."""

    log_prob: Float[Array, ""]  # nats, in each frame
    is_wild: Bool[Array, "B U"]  # of the labels as the caller counts them
    in_gap: Bool[Array, "B S"]  # S = U + 1: is one before label n of those left?


class Parted(NamedTuple):
    """The labels that are left, and where the wildcards were."""

    labels: Int[Array, "B U"]
    label_lengths: Int[Array, " B"]
    wildcards: Wildcards


def part(
    labels: Int[Array, "B U"],
    label_lengths: Int[Array, " B"],
    wildcard_id: int,
    blank_id: int,
    log_prob: Float[Array, ""],
) -> Parted:
    """Take the wildcards out of the labels; a length that is none stays as it is."""
    is_wild = is_wildcard(labels, label_lengths, wildcard_id)
    count = jnp.sum(is_wild, axis=1, dtype=jnp.int32)
    is_length = is_within(label_lengths, labels.shape[1])
    # What a length that is none still counts among the labels is no wrong one.
    no_wildcard = jnp.int32(0 if blank_id else 1)
    return Parted(
        to_the_left(jnp, jnp.where(is_wild, no_wildcard, labels), is_wild),
        jnp.where(is_length, label_lengths - count, label_lengths),
        Wildcards(log_prob, is_wild, _in_gap(is_wild)),
    )


def places(is_wild: Bool[Array, "B U"]) -> Int[Array, "B U"]:
    """Return how many labels are left before each: its number, or that of its gap."""
    is_left = (~is_wild).astype(jnp.int32)
    return jnp.cumsum(is_left, axis=1, dtype=jnp.int32) - is_left


def _in_gap(is_wild: Bool[Array, "B U"]) -> Bool[Array, "B S"]:
    """Mark the gaps that have wildcards, one or several in a row."""
    num_gaps = is_wild.shape[1] + 1
    gap = jnp.where(is_wild, places(is_wild), num_gaps)

    def utterance(none: jax.Array, gap: jax.Array) -> jax.Array:
        return none.at[gap].set(True, mode="drop")

    # Made from the labels, it varies over a mesh as they do.
    none = jnp.pad(jnp.zeros_like(is_wild), ((0, 0), (0, 1)))
    return jax.vmap(utterance)(none, gap)


def over_gaps(
    small: Problem, shift: Float[Array, "B T"], wildcards: Wildcards
) -> Problem:
    """Return a problem over its own classes, whose gaps take what they may.

    shift: what of each frame's scores was taken out of them.
    """
    num_labels, better = small.can_skip.shape[1], small.scores.shape[2]
    blank = small.scores[:, :, num_labels]
    anything = wildcards.log_prob.astype(shift.dtype) - shift
    anything = jnp.where(blank >= anything, blank, anything)
    gaps = jnp.where(wildcards.in_gap, better, num_labels)
    return small._replace(
        scores=jnp.concatenate([small.scores, anything[:, :, None]], axis=2),
        ids=jnp.concatenate([small.label_ids, gaps], axis=1),
    )


def takes_anything(small: Problem) -> Bool[Array, "B T"]:
    """Tell in which frames a gap with a wildcard is more than a blank."""
    blank = small.scores[:, :, small.can_skip.shape[1]]
    return small.scores[:, :, -1] > blank


def in_wild_gap(
    states: Int[Array, "B N T"], wildcards: Wildcards
) -> Bool[Array, "B N T"]:
    """Tell which states are gaps that have a wildcard."""
    gap = (states // 2).reshape(states.shape[0], -1)
    is_there = jnp.take_along_axis(wildcards.in_gap, gap, axis=1, mode="clip")
    return is_there.reshape(states.shape) & (states % 2 == 0)
