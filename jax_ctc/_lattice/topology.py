"""Labels to lattice: which skips are legal, and where paths may end.

    blank'[n] = p_t(blank)    * (blank[n] + label[n-1])
    label'[n] = p_t(labels_n) * (label[n] + blank[n] + can_skip[n] * label[n-1])

Start: blank[0] = 1 before the first frame. End: blank[N] + label[N-1]. A label may
follow the one before it directly unless the two are equal: then a blank must part them.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jax_ctc._numbers.masks import is_inside


class Lattice(NamedTuple):
    """Where paths may go and where they may end: all that labels mean to a recursion.

    Two rows of states: `blank[n]`, n = 0..U (n labels emitted, last frame blank) and
    `label[n]`, n = 0..U-1 (n + 1 labels emitted, last frame label n).
    """

    can_skip: Bool[Array, "B U"]  # may label[n-1] step straight to label[n]?
    num_labels: Int[Array, " B"]  # end in blank[N] or label[N-1]; -1: end nowhere


def build(
    labels: Int[Array, "B U"],
    label_lengths: Int[Array, " B"],
    is_ok: Bool[Array, " B"],
) -> Lattice:
    """Return the lattice of each utterance; one without an end where not `is_ok`."""
    first = jnp.zeros_like(labels[:, :1], bool)  # no label precedes the first
    differs = jnp.concatenate([first, labels[:, 1:] != labels[:, :-1]], axis=1)
    return Lattice(
        # Past the length nothing ends; were padding to open skips there, it would show
        # in the last bits of what every state is normalised by.
        can_skip=differs & is_inside(label_lengths, labels.shape[1]),
        num_labels=jnp.where(is_ok, label_lengths, -1),
    )


def class_ids(
    labels: Int[Array, "B U"],
    label_lengths: Int[Array, " B"],
    *,
    blank_id: int,
    num_classes: int,
) -> Int[Array, "B U+1"]:
    """Return the class each lattice state emits: the labels, then the blank.

    Padded and out-of-range labels read the blank's score instead of another memory
    cell; their utterances end before them, or are flagged.
    """
    is_label = is_inside(label_lengths, labels.shape[1])
    is_class = (labels >= 0) & (labels < num_classes)
    ids = jnp.where(is_label & is_class, labels, blank_id)
    blank = jnp.zeros_like(label_lengths)[:, None] + blank_id
    return jnp.concatenate([ids, blank], axis=1)
