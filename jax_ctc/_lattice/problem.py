"""Labels and scores as one problem: all that a recursion is given, in arrays.

    blank'[n] = p_t(blank)    * (blank[n] + label[n-1])
    label'[n] = p_t(labels_n) * (label[n] + blank[n] + can_skip[n] * label[n-1])

Two rows of states: `blank[n]`, n = 0..U (n labels emitted, last frame blank) and
`label[n]`, n = 0..U-1 (n + 1 labels emitted, last frame label n).

Where there are wildcards, gaps between labels are not all alike: S = 2 U + 1, and after
the classes of the labels come those that blank[0], .., blank[U] emit (wildcards.py).

Start: blank[0] = 1 before the first frame. End: blank[N] + label[N-1]. A label may
follow the one before it directly unless the two are equal: then a blank must part them.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._numbers.masks import is_inside


class Problem(NamedTuple):
    """Scores of classes, and the lattice that reads them."""

    scores: Float[Array, "B T V"]
    ids: Int[Array, "B S"]  # the class of each label, then the blank: S = U + 1
    can_skip: Bool[Array, "B U"]  # may label[n-1] step straight to label[n]?
    num_labels: Int[Array, " B"]  # N: end in blank[N] or label[N-1]; -1: end nowhere
    logit_lengths: Int[Array, " B"]  # frames (of these T) that are no padding

    @property
    def label_ids(self) -> Int[Array, "B U"]:
        """The class of each label."""
        return self.ids[:, : self.can_skip.shape[1]]

    @property
    def blank_ids(self) -> Int[Array, "B G"]:
        """The class of the blank, G = 1; or of each gap between labels, G = U + 1."""
        return self.ids[:, self.can_skip.shape[1] :]

    @property
    def has_gaps(self) -> bool:
        """Tell whether each gap between labels has a class of its own."""
        return self.ids.shape[1] != self.can_skip.shape[1] + 1


def build(
    scores: Float[Array, "B T V"],
    labels: Int[Array, "B U"],
    logit_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"],
    is_ok: Bool[Array, " B"],
    *,
    blank_id: int,
    num_classes: int,
) -> Problem:
    """Return the problem of each utterance; one without an end where not `is_ok`.

    num_classes: V, or where classes lie on several devices all of theirs.
    """
    # Past the length nothing ends; were padding to open skips there, it would show in
    # the last bits of what every state is normalised by.
    is_label = is_inside(label_lengths, labels.shape[1])
    first = jnp.zeros_like(labels[:, :1], bool)  # no label precedes the first
    differs = jnp.concatenate([first, labels[:, 1:] != labels[:, :-1]], axis=1)
    # Padded and out-of-range labels read the blank's score instead of another memory
    # cell; their utterances end before them, or are flagged.
    is_class = (labels >= 0) & (labels < num_classes)
    ids = jnp.where(is_label & is_class, labels, blank_id)
    blank = jnp.zeros_like(label_lengths)[:, None] + blank_id
    return Problem(
        scores=scores,
        ids=jnp.concatenate([ids, blank], axis=1),
        can_skip=differs & is_label,
        num_labels=jnp.where(is_ok, label_lengths, -1),
        logit_lengths=logit_lengths,
    )
