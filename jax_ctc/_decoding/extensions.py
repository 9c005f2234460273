"""Prefixes that are longer by one label, and what each is worth."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._decoding.beams import Beam, at
from jax_ctc._decoding.frames import Frame
from jax_ctc._decoding.guide import Guide
from jax_ctc._decoding.pruning import Candidates
from jax_ctc._numbers.masks import positions


class Extensions(NamedTuple):
    """Those that a frame looks at, in the order of `pruning.Candidates`."""

    total: Float[Array, " M"]
    extra: Float[Array, " M"]  # what the guide adds to the total


def extend(
    looked_at: Candidates,
    guide: Guide,
    beam: Beam,
    may_extend: Bool[Array, " W"],
    frame: Frame,
    parent: Int[Array, " W"],
) -> Extensions:
    """Extend each prefix by the frame's best labels.

    parent: the place in the beam of each prefix's parent, -1 where it is not there.
    """
    prefix = jnp.where(may_extend, beam.total, -jnp.inf)
    totals, extras = [], []
    for first, rows, columns in looked_at.blocks:
        some = slice(first, first + rows)
        states = jax.tree.map(lambda x, some=some: x[some], beam.states)
        gain = guide.score(states, frame.labels[:columns], prefix)
        extra = jnp.broadcast_to(beam.extra[some, None] + gain, (rows, columns))
        extras.append(extra.reshape(-1))
        totals.append((prefix[some, None] + frame.best[None, :columns]).reshape(-1))
    total = jnp.concatenate(totals)

    # Its own last label again is a repeat, which follows only a blank. What is in the
    # beam already is not found again.
    last = jnp.maximum(beam.last, 0)
    rank = jnp.where(beam.last >= 0, at(frame.rank, last), looked_at.num_classes)
    own = positions(prefix.shape[0])
    repeat = jnp.where(may_extend, beam.blank, -jnp.inf) + at(frame.row, last)
    row = jnp.concatenate([own, jnp.maximum(parent, 0)])
    rank = jnp.concatenate([rank, jnp.where(parent >= 0, rank, looked_at.num_classes)])
    start, count = at((jnp.asarray(looked_at.start), jnp.asarray(looked_at.count)), row)
    place = jnp.where(rank < count, start + rank, total.shape[0])
    most = jnp.concatenate([repeat, jnp.full_like(repeat, -jnp.inf)])
    total = total.at[place].min(most, mode="drop")
    return Extensions(total, jnp.concatenate(extras))
