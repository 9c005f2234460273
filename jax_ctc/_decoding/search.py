"""Prefix beam search: one frame, and all of them.

A beam holds W prefixes, sorted by what they are rated, each with the probability of its
paths so far that end in blank, and of those that end in its last label:

    stay    blank'_j  = y_blank (blank_j + label_j)
            label'_j  = y_last_j (label_j + blank_i + [last_i != last_j] label_i)
                                            where i, the parent of j, is in the beam
    extend  label'_ic = y_c (blank_i + [c != last_i] label_i)    unless ic is in the beam

A prefix's two numbers share its place. The W best of both kinds are the next beam; what
is kept of a frame is one number for each of them, whence it came and by which label.

References:
    A. Graves and N. Jaitly, "Towards end-to-end speech recognition with recurrent
    neural networks", ICML 2014.
    A. Hannun et al., "First-pass large vocabulary continuous speech recognition using
    bi-directional recurrent DNNs", 2014, https://arxiv.org/abs/1408.2873.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._decoding import prefixes
from jax_ctc._decoding.frames import Frames, look
from jax_ctc._decoding.guide import Guide
from jax_ctc._decoding.largest import largest
from jax_ctc._decoding.prefixes import Name
from jax_ctc._decoding.pruning import Candidates, candidates
from jax_ctc._mesh.varying import steady_scan
from jax_ctc._numbers.masks import positions
from jax_ctc._numbers.precision import accumulator
from jax_ctc._numbers.two_floats import sum_frames, two_sum

# Frames whose classes are chosen at once.
CHUNK_FRAMES = 16
# With a language model a label may rise from far down: see `pruning`.
GUIDED_SLACK = 4


class Plan(NamedTuple):
    """Everything about a search that is known when it is traced."""

    blank_id: int
    width: int  # W
    normalise: bool
    max_labels: int | None  # None: as many as there are frames
    slack: int | None = 1  # of `pruning.candidates`


class Beam(NamedTuple):
    """The prefixes of one utterance, the best rated first; dead ones at -inf."""

    blank: Float[Array, " W"]  # nats, of the paths that end in blank
    label: Float[Array, " W"]  # and of those that end in the last label
    total: Float[Array, " W"]  # of both
    last: Int[Array, " W"]  # the last label; -1: there is none
    length: Int[Array, " W"]
    name: Name
    parent: Name
    extra: Float[Array, " W"]  # what the guide adds to the total
    states: Any  # of the guide


class Search(NamedTuple):
    """How far a batch has come: all that the next frames need to know."""

    beam: Beam  # leaves [B, W]
    high: Float[Array, " B"]  # what has been taken off the beam's numbers, in two
    low: Float[Array, " B"]  # floats
    is_bad: Bool[Array, " B"]


def begin(plan: Plan, guide: Guide, zero: Float[Array, " B"]) -> Search:
    """Return a search before the first frame: the empty prefix, and W - 1 dead ones."""

    def utterance(zero: Float[Array, ""]) -> Beam:
        nothing = jnp.broadcast_to(zero, (plan.width,))
        total = jnp.where(positions(plan.width) == 0, nothing, -jnp.inf)
        none = nothing.astype(jnp.int32)
        name, parent = prefixes.empty(none)
        return Beam(
            blank=total,
            label=nothing - jnp.inf,
            total=total,
            last=none - 1,
            length=none,
            name=name,
            parent=parent,
            extra=nothing,
            states=guide.initial(nothing),
        )

    return Search(jax.vmap(utterance)(zero), zero, zero, zero != 0)


def advance(
    plan: Plan,
    guide: Guide,
    search: Search,
    scores: Float[Array, "B T V"],
    lengths: Int[Array, " B"],
) -> tuple[Search, Int[Array, "T B W"]]:
    """Search through T frames; return what was kept of each, too."""
    num_frames, num_classes = scores.shape[1:]
    size = min(CHUNK_FRAMES, num_frames)
    looked_at = candidates(plan.width, num_classes - 1, plan.slack)

    def chunk(search: Search, start: Int[Array, ""]) -> tuple:
        frames = look(
            scores,
            lengths,
            start,
            size=size,
            num_labels=looked_at.num_classes,
            blank_id=plan.blank_id,
            normalise=plan.normalise,
        )

        def frame(beam: Beam, frame: Frames) -> tuple:
            one = jax.vmap(lambda beam, frame: step(plan, looked_at, guide, beam, frame))
            return one(beam, frame)

        is_bad = search.is_bad | frames.is_bad
        frames = frames._replace(is_bad=jnp.zeros_like(frames.blank, bool))
        beam, (kept, shift) = steady_scan(frame, search.beam, frames)
        high, low = search.high, search.low
        for shifts in (frames.log_shift, shift):
            more, rest = sum_frames(shifts)
            high, lost = two_sum(high, more)
            low = low + (lost + rest)
        return Search(beam, high, low, is_bad), kept

    starts = positions(-(-num_frames // size)) * size
    search, kept = steady_scan(chunk, search, starts)
    return search, kept.reshape(-1, *kept.shape[2:])


def step(
    plan: Plan, looked_at: Candidates, guide: Guide, beam: Beam, frame: Frames
) -> tuple[Beam, tuple[Int[Array, " W"], Float[Array, ""]]]:
    """Take the beam of one utterance through one frame.

    Returns, too, what is kept of the frame, and what was taken off all totals.
    """
    width = plan.width
    last = jnp.maximum(beam.last, 0)
    y_last = jnp.where(beam.last >= 0, _at(frame.row, last), -jnp.inf)
    rank = jnp.where(beam.last >= 0, _at(frame.rank, last), looked_at.num_classes)
    parents = prefixes.find_parents(
        beam.name, beam.parent, beam.last, beam.blank, beam.total
    )
    stay_blank = beam.total + frame.blank
    stay_label = jnp.logaddexp(beam.label, parents.mass) + y_last
    stay = jnp.logaddexp(stay_blank, stay_label)

    # [M] extensions by the best labels, block by block.
    outer, gains = [], []
    for first, rows, columns in looked_at.blocks:
        row = slice(first, first + rows)
        outer.append(beam.total[row, None] + frame.best[None, :columns])
        states = jax.tree.map(lambda x, row=row: x[row], beam.states)
        gain = guide.score(states, frame.labels[:columns], beam.total)
        gains.append(jnp.broadcast_to(beam.extra[row, None] + gain, (rows, columns)))
    extend = jnp.concatenate([block.reshape(-1) for block in outer])
    extra = jnp.concatenate([block.reshape(-1) for block in gains])
    extend = _put(looked_at, extend, positions(width), rank, beam.blank + y_last)
    extend = _put(looked_at, extend, parents.place, rank, jnp.full_like(y_last, -jnp.inf))

    rated = jnp.concatenate([stay + beam.extra, extend + extra])
    _, index = largest(rated, width)
    is_stay = index < width
    candidate = jnp.maximum(index - width, 0)
    source = jnp.where(is_stay, index, _at(jnp.asarray(looked_at.row), candidate))
    column = _at(jnp.asarray(looked_at.column), candidate)
    label = jnp.where(is_stay, -1, _at(frame.labels, column))
    old = jax.tree.map(lambda x: _at(x, source), beam)
    longer = prefixes.child(old.name, label)
    total = jnp.where(is_stay, _at(stay, source), _at(extend, candidate))
    shift = jnp.max(total)
    shift = jnp.where(shift > -jnp.inf, shift, 0)
    new = Beam(
        blank=jnp.where(is_stay, _at(stay_blank, source), -jnp.inf) - shift,
        label=jnp.where(is_stay, _at(stay_label, source), total) - shift,
        total=total - shift,
        last=jnp.where(is_stay, old.last, label),
        length=old.length + (~is_stay).astype(jnp.int32),
        name=_where(is_stay, old.name, longer),
        parent=_where(is_stay, old.parent, old.name),
        extra=jnp.where(is_stay, old.extra, _at(extra, candidate)),
        states=_where(is_stay, old.states, guide.advance(old.states, jnp.maximum(label, 0))),
    )
    num_classes = frame.row.shape[0]
    return new, (source * (num_classes + 1) + label + 1, shift)


def _put(looked_at, extend, row, rank, value):
    """Write values among the candidates, at those of some rows and ranks."""
    start, count = jnp.asarray(looked_at.start), jnp.asarray(looked_at.count)
    is_one = (row >= 0) & (rank < _at(count, jnp.maximum(row, 0)))
    place = _at(start, jnp.maximum(row, 0)) + rank
    place = jnp.where(is_one, place, extend.shape[0])
    return extend.at[place].set(value, mode="drop")


def _at(row: jax.Array, index: jax.Array) -> jax.Array:
    return row.at[index].get(mode="promise_in_bounds")


def _where(condition: jax.Array, this: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), this, other)
