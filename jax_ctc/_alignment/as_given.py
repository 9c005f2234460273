"""What is read from a lattice, by the labels as given, wildcards included.

A lattice has only the labels that are left (wildcards.py); its answers are given back
at the places that the caller knows.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._alignment.paths import PADDING, place_in
from jax_ctc._alignment.records import CTCAlignment
from jax_ctc._lattice.problem import Problem
from jax_ctc._lattice.wildcards import Wildcards, places
from jax_ctc._numbers.masks import positions


def posteriors_as_given(
    label: Float[Array, "T B U"],
    blank: Float[Array, "T B U+1"],
    takes: Bool[Array, "T B"],
    wildcards: Wildcards,
) -> tuple[Float[Array, "T B U"], Float[Array, "T B U+1"]]:
    """Return both by the labels as given, wildcards included.

    A gap with wildcards is the first of them where that is better than the blank, and
    else the blank before it.
    """
    is_wild = jnp.pad(wildcards.is_wild, ((0, 0), (0, 1)))[None]  # of no label after U
    is_first = ~jnp.pad(wildcards.is_wild, ((0, 0), (1, 0)))[None]  # in its gap
    place = places(is_wild[0])[None]
    gap = jnp.where(is_first, _at(blank, place), 0)
    is_taken = takes[:, :, None] & is_wild
    of_label = jnp.where(is_wild[:, :, :-1], 0, _at(label, place[:, :, :-1]))
    of_wildcard = jnp.where(is_taken, gap, 0)[:, :, :-1]
    return of_label + of_wildcard, jnp.where(is_taken, 0, gap)


def _at(row: Float[Array, "T B n"], place: Int[Array, "1 B m"]) -> Array:
    """Return row[t, b, place[b, m]]: one gather per utterance."""

    def utterance(row: jax.Array, place: jax.Array) -> jax.Array:
        return row.at[:, place].get(mode="clip")

    return jax.vmap(utterance, in_axes=(1, 0), out_axes=1)(row, place[0])


def alignment_as_given(
    alignment: CTCAlignment,
    problem: Problem,
    wildcards: Wildcards,
    states: Int[Array, "B T"],
    is_taken: Bool[Array, "B T"],
) -> CTCAlignment:
    """Return the alignment by the labels as given, wildcards included.

    The first wildcard of a gap spans the frames that it took; the others are empty,
    behind it. One that took none is where its gap begins.
    """
    is_wild, place = wildcards.is_wild, places(wildcards.is_wild)
    end_of_path = problem.num_labels[:, None]  # -1 where flagged
    is_label = jnp.where(is_wild, place <= end_of_path, place < end_of_path)
    is_label = is_label & jnp.isfinite(alignment.log_prob)[:, None]
    start, end = _spans_of_gaps(states, is_taken, place)
    is_first = ~jnp.pad(is_wild, ((0, 0), (1, 0)))[:, :-1]

    def of(mine: jax.Array, otherwise: jax.Array, none: int) -> jax.Array:
        kept = jnp.take_along_axis(mine, place, axis=1, mode="clip")
        return jnp.where(is_label, jnp.where(is_wild, otherwise, kept), none)

    score = of(alignment.score, jnp.zeros_like(alignment.score), 0)
    return dataclasses.replace(
        alignment,
        start=of(alignment.start, jnp.where(is_first, start, end), PADDING),
        end=of(alignment.end, end, PADDING),
        score=jnp.where(jnp.isnan(alignment.log_prob)[:, None], jnp.nan, score),
    )


def _spans_of_gaps(
    states: Int[Array, "B T"], is_taken: Bool[Array, "B T"], gap: Int[Array, "B U"]
) -> tuple[Int[Array, "B U"], Int[Array, "B U"]]:
    """Return from where to where the frames of each gap are that a wildcard took."""
    num_frames = states.shape[1]
    frame = positions(num_frames, 2)
    # The first frame taken from each on, and the end of the last before each: [B, T+1].
    after = jnp.pad(
        lax.cummin(jnp.where(is_taken, frame, num_frames), axis=1, reverse=True),
        ((0, 0), (0, 1)),
        constant_values=num_frames,
    )
    before = jnp.pad(
        lax.cummax(jnp.where(is_taken, frame + 1, 0), axis=1), ((0, 0), (1, 0))
    )

    def utterance(
        states: jax.Array, after: jax.Array, before: jax.Array, gap: jax.Array
    ) -> tuple:
        left, right = place_in(states, 2 * gap), place_in(states, 2 * gap + 1)
        start, end = after[left], before[right]
        is_empty = start >= end
        return jnp.where(is_empty, left, start), jnp.where(is_empty, left, end)

    return jax.vmap(utterance)(states, after, before, gap)
