"""What decoding returns."""

import dataclasses

import jax

from jax_ctc._checks.given import Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """What `greedy_decode` read from each utterance.

    Attributes:
        labels: [..., T] int32, the decoded labels, padded with -1 on the right.
        lengths: [...] int32, how many of them are labels.
        log_prob: [...] float, nats, log-probability of the best *path*, which is at
            most that of the label sequence (a sum over paths).
    """

    labels: Leaf
    lengths: Leaf
    log_prob: Leaf
