"""What a recursion reads of some frames: the scores of its states, in nats."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float


class LogEmissions(NamedTuple):
    """The scores of K frames, each frame shifted so that its best needed class is 0.

    Padded frames emit blank with probability 1 and every label with probability 0:
    blank[N] + label[N-1], what the loss reads, then stays what it was, without a
    select on the state, and garbage in those frames is never looked at.
    """

    blank: Float[Array, "K B 1"]
    label: Float[Array, "K B U"]
    log_shift: Float[Array, "K B"]  # log p of a frame = its score + its log_shift
    is_bad: Bool[Array, " B"]  # a live frame holds NaN, +inf, or -inf only
