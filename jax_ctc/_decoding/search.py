"""Prefix beam search: one frame, and all of them.

A beam holds W prefixes, the best rated first, each with the probability of its paths so
far that end in blank, and of those that end in its last label:

    stay    blank'_j  = y_blank (blank_j + label_j)
            label'_j  = y_last_j (label_j + blank_i + [last_i != last_j] label_i)
                                            where i, the parent of j, is in the beam
    extend  label'_ic = y_c (blank_i + [c != last_i] label_i)    unless ic is in it

A prefix's two numbers share its place. The W best of both kinds are the next beam; what
is kept of a frame is one number for each of them, whence it came and by which label.

References:
    A. Graves and N. Jaitly, "Towards end-to-end speech recognition with recurrent
    neural networks", ICML 2014.
    A. Hannun et al., "First-pass large vocabulary continuous speech recognition using
    bi-directional recurrent DNNs", 2014, https://arxiv.org/abs/1408.2873.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._decoding import beams, extensions
from jax_ctc._decoding.beams import Beam, add_logs, at, where
from jax_ctc._decoding.frames import Frame, look
from jax_ctc._decoding.guide import Guide
from jax_ctc._decoding.largest import largest
from jax_ctc._decoding.names import longer
from jax_ctc._decoding.parents import find_parents
from jax_ctc._decoding.pruning import Candidates, candidates
from jax_ctc._decoding.trace import pack
from jax_ctc._mesh.varying import steady_scan
from jax_ctc._numbers.masks import positions
from jax_ctc._numbers.two_floats import sum_frames, two_sum

CHUNK_FRAMES = 16  # whose classes are chosen at once


class Plan(NamedTuple):
    """Everything about a search that is known when it is traced."""

    blank_id: int
    width: int  # W
    normalise: bool  # scores are logits
    max_labels: int | None  # None: as many as there are frames
    slack: int | None  # of `pruning.candidates`
    threshold: float | None = None  # nats below the best, beyond which all is dropped


class Search(NamedTuple):
    """How far a batch has come: all that the next frames need to know."""

    beam: Beam  # leaves [B, W]
    high: Float[Array, " B"]  # what has been taken off the beam's numbers, in two
    low: Float[Array, " B"]  # floats
    is_bad: Bool[Array, " B"]


def begin(plan: Plan, guide: Guide, zero: Float[Array, " B"]) -> Search:
    """Return a search before the first frame; `zero` varies as all arguments do."""

    def utterance(zero: Float[Array, ""]) -> Beam:
        nothing = jnp.broadcast_to(zero, (plan.width,))
        return beams.of_nothing(nothing, guide.initial(nothing))

    return Search(jax.vmap(utterance)(zero), zero, zero, zero != 0)


def advance(
    plan: Plan,
    guide: Guide,
    search: Search,
    scores: Float[Array, "B T V"],
    lengths: Int[Array, " B"],
) -> tuple[Search, Int[Array, "F B W"]]:
    """Search through T frames, and padding; return what is kept of each, too.

    That is whence each prefix came, and by which label: see `trace`.
    """
    num_frames, num_classes = scores.shape[1:]
    looked_at = candidates(plan.width, num_classes - 1, plan.slack)
    one_step = jax.vmap(functools.partial(step, plan, looked_at, guide))

    def chunk(
        search: Search, start: Int[Array, ""]
    ) -> tuple[Search, Int[Array, "C B W"]]:
        frames = look(
            scores,
            lengths,
            start,
            size=CHUNK_FRAMES,
            num_labels=looked_at.num_classes,
            blank_id=plan.blank_id,
            normalise=plan.normalise,
        )
        beam, (steps, shift) = steady_scan(one_step, search.beam, frames.seen)
        high, low = search.high, search.low
        for shifts in (frames.log_shift, shift):
            more, rest = sum_frames(shifts)
            high, lost = two_sum(high, more)
            low = low + (lost + rest)
        is_bad = search.is_bad | jnp.any(frames.is_bad, axis=0)
        return Search(beam, high, low, is_bad), steps

    starts = positions(num_chunks(num_frames)) * CHUNK_FRAMES
    search, steps = steady_scan(chunk, search, starts)
    return search, steps.reshape(len(starts) * CHUNK_FRAMES, *steps.shape[2:])


def num_chunks(num_frames: int) -> int:
    """Return how many chunks hold so many frames."""
    return -(-num_frames // CHUNK_FRAMES)


def step(
    plan: Plan, looked_at: Candidates, guide: Guide, beam: Beam, frame: Frame
) -> tuple[Beam, tuple[Int[Array, " W"], Float[Array, ""]]]:
    """Take the beam of one utterance through one frame.

    Returns, too, what is kept of the frame, and what was taken off all totals.
    """
    width, num_classes = plan.width, frame.row.shape[0]
    parents = find_parents(beam.name, beam.parent, beam.last, beam.blank, beam.total)
    y_last = at(frame.row, jnp.maximum(beam.last, 0))
    y_last = jnp.where(beam.last >= 0, y_last, -jnp.inf)
    stay_blank = beam.total + frame.blank
    stay_label = add_logs(beam.label, parents.mass) + y_last
    stay = add_logs(stay_blank, stay_label)
    may_extend = _open(plan, beam)
    rivals = extensions.extend(looked_at, guide, may_extend, frame, stay, parents.place)
    rated, index = largest(rivals.rated, width)
    if plan.max_labels is not None:
        is_stay, source, _ = _read(looked_at, index)
        length = at(beam.length, source) + (~is_stay).astype(jnp.int32)
        _, order = largest(_is_open(plan, length).astype(stay.dtype), width)
        rated, index = at((rated, index), order)
    is_stay, source, column = _read(looked_at, index)

    old, stay, stay_blank, stay_label = at((beam, stay, stay_blank, stay_label), source)
    label, score = at((frame.labels, frame.best), column)
    total = extensions.longer(old.last, old.blank, old.total, label, score)
    total = jnp.where(is_stay, stay, jnp.where(rated > -jnp.inf, total, -jnp.inf))
    if guide.models:
        extra = at(rivals.extra, index)
    else:  # every label is worth the same: nothing to look up
        bonus = guide.score((), frame.labels, stay)
        extra = jnp.where(is_stay, old.extra, old.extra + bonus)
    shift = jnp.max(total)
    shift = jnp.where(shift > -jnp.inf, shift, 0)
    beam = Beam(
        blank=jnp.where(is_stay, stay_blank, -jnp.inf) - shift,
        label=jnp.where(is_stay, stay_label, total) - shift,
        total=total - shift,
        last=jnp.where(is_stay, old.last, label),
        length=old.length + (~is_stay).astype(jnp.int32),
        name=where(is_stay, old.name, longer(old.name, label)),
        parent=where(is_stay, old.parent, old.name),
        extra=extra,
        states=where(is_stay, old.states, guide.advance(old.states, label)),
    )
    kept = pack(source, jnp.where(is_stay, -1, label), num_classes)
    return _near_the_best(plan, beam), (kept, shift)


def _near_the_best(plan: Plan, beam: Beam) -> Beam:
    """Empty the places of all prefixes that are rated too far below the best."""
    if plan.threshold is None:
        return beam
    rated = beam.total + beam.extra
    is_near = rated >= jnp.max(rated) - plan.threshold
    blank, label, total = (
        jnp.where(is_near, x, -jnp.inf) for x in (beam.blank, beam.label, beam.total)
    )
    return beam._replace(blank=blank, label=label, total=total)


def _open(plan: Plan, beam: Beam) -> Beam:
    """Return the beam without the prefixes that may not be longer."""
    is_open = _is_open(plan, beam.length)
    blank, total = (jnp.where(is_open, x, -jnp.inf) for x in (beam.blank, beam.total))
    return beam._replace(blank=blank, total=total)


def _is_open(plan: Plan, length: Int[Array, " W"]) -> Bool[Array, " W"]:
    """Tell which prefixes may be longer."""
    if plan.max_labels is None:
        return jnp.ones_like(length, bool)
    return length < plan.max_labels


def _read(
    looked_at: Candidates, index: Int[Array, " W"]
) -> tuple[Bool[Array, " W"], Int[Array, " W"], Int[Array, " W"]]:
    """Tell which stay, whence each comes, and the rank of its label if it is new."""
    width = looked_at.start.shape[0]
    is_stay = index < width
    row, column = at((looked_at.row, looked_at.column), jnp.maximum(index - width, 0))
    return is_stay, jnp.where(is_stay, index, row), column
