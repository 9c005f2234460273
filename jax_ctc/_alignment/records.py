"""What reading the lattice returns: posteriors, the best path, samples."""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

import jax

from jax_ctc._checks.given import Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CTCPosteriors:
    """Where each label is, given that the utterance says its labels.

    Attributes:
        log_likelihood: [...] float, nats, log p(labels | logits).
        label: [..., T, U] float, probability that frame t shows label n.
        blank: [..., T, U+1] float, that frame t is blank with n labels before it. On
            live frames `label` and `blank` sum to 1 together.
    """

    log_likelihood: Leaf
    label: Leaf
    blank: Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CTCAlignment:
    """The most probable path, and where it puts each label.

    Attributes:
        tokens: [..., T] int32, class of each frame, blanks included, padded with -1;
            `wildcard_id` where a wildcard takes it.
        log_prob: [...] float, nats, log-probability of that one path.
        start: [..., U] int32, first frame of each label, -1 where there is none.
        end: [..., U] int32, the frame after its last, -1 where there is none.
        score: [..., U] float in 0..1, mean probability of the label over its frames.
    """

    tokens: Leaf
    log_prob: Leaf
    start: Leaf
    end: Leaf
    score: Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CTCSamples:
    """Paths drawn with the probability that each has, given the labels.

    Attributes:
        tokens: [..., num_samples, T] int32, class of each frame, padded with -1.
        log_prob: [..., num_samples] float, nats, log-probability of each path; less
            the log-likelihood of the labels it is that of having drawn it.
    """

    tokens: Leaf
    log_prob: Leaf


# As they may be handed back: an executed annotation sees `Any`, so that the designed
# messages come first.
if TYPE_CHECKING:
    GivenAlignment: TypeAlias = CTCAlignment
    GivenPosteriors: TypeAlias = CTCPosteriors
else:
    GivenAlignment = GivenPosteriors = Any
