"""What may be in the next beam: prefixes that stay, and those with one more label."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_ctc._decoding.beams import Beam, at
from jax_ctc._decoding.frames import Frame
from jax_ctc._decoding.guide import Guide
from jax_ctc._decoding.pruning import Candidates


class Rivals(NamedTuple):
    """The W that stay, and then extensions in the order of `pruning.Candidates`."""

    rated: Float[Array, " n"]  # the total, and what the guide adds to it
    extra: Float[Array, " n"]  # which is this


def extend(
    looked_at: Candidates,
    guide: Guide,
    beam: Beam,
    frame: Frame,
    stay: Float[Array, " W"],
    parent: Int[Array, " W"],
) -> Rivals:
    """Extend each prefix by the frame's best labels.

    stay: the totals of the prefixes that stay; parent: the place in the beam of each
    prefix's parent, -1 where it is not there.
    """
    totals, extras = [stay], [beam.extra]
    for first, rows, columns in looked_at.blocks:
        some: Beam = jax.tree.map(lambda x, i=first, n=rows: x[i : i + n], beam)
        labels = frame.labels[:columns]
        gain = guide.score(some.states, labels, stay)
        extra = jnp.broadcast_to(some.extra[:, None] + gain, (rows, columns))
        extras.append(extra.reshape(-1))
        last, blank, total = (x[:, None] for x in (some.last, some.blank, some.total))
        total = longer(last, blank, total, labels[None], frame.best[None, :columns])
        totals.append(total.reshape(-1))
    extra = jnp.concatenate(extras)
    rated = jnp.concatenate(totals) + extra

    # What is in the beam already is not found again.
    rank = at(frame.rank, jnp.maximum(beam.last, 0))
    start, count = at((looked_at.start, looked_at.count), jnp.maximum(parent, 0))
    is_there = (parent >= 0) & (rank < count)
    place = jnp.where(is_there, stay.shape[0] + start + rank, rated.shape[0])
    return Rivals(rated.at[place].set(-jnp.inf, mode="drop"), extra)


def longer(
    last: Int[Array, "..."],
    blank: Float[Array, "..."],
    total: Float[Array, "..."],
    label: Int[Array, "..."],
    score: Float[Array, "..."],
) -> Float[Array, "..."]:
    """Return the totals of prefixes that are longer by a label.

    Their own last label again is a repeat, which follows only a blank.
    """
    return jnp.where(label == last, blank, total) + score
