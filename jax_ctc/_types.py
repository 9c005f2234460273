"""The letters, the aliases and the records that every other module speaks in.

Letters, in code, docstrings and error messages alike:

    B  utterances in the batch          n  position in the label row, 0..U
    T  frames, padding included         s  one state of the lattice
    V  classes, blank included          K  frames of one chunk
    U  labels, padding included         R  frames between two renormalisations

`log_` means the natural logarithm (nats); without it a number is not a logarithm.
Public arrays are batch-major; below `_emissions` they are time-major.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    NamedTuple,
    Protocol,
    TypeAlias,
    runtime_checkable,
)

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

# What a caller may hand in. A static checker sees what is meant; an executed
# annotation sees `Any`, so that the designed messages of `_validate` come first.
if TYPE_CHECKING:
    ArrayLike: TypeAlias = jax.typing.ArrayLike | Sequence[Any]
    Option: TypeAlias = str
    Index: TypeAlias = int
    Number: TypeAlias = float
    Blocks: TypeAlias = Iterable[ArrayLike]
    Vocabulary: TypeAlias = Sequence[str] | Mapping[int, str]  # text of each class id
    Leaf: TypeAlias = jax.Array  # of a result; JAX rebuilds results from other leaves
else:
    ArrayLike = Option = Index = Number = Blocks = Vocabulary = Leaf = Any


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """Return the precision that scores of this dtype are computed in."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


class Lattice(NamedTuple):
    """Where paths may go and where they may end: all that labels mean to a recursion.

    Two rows of states: `blank[n]`, n = 0..U (n labels emitted, last frame blank) and
    `label[n]`, n = 0..U-1 (n + 1 labels emitted, last frame label n).
    """

    can_skip: Bool[Array, "B U"]  # may label[n-1] step straight to label[n]?
    num_labels: Int[Array, " B"]  # end in blank[N] or label[N-1]; -1: end nowhere


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


GradientBuffer: TypeAlias = Shaped[Array, "B T V"]


@runtime_checkable
class Emissions(Protocol):
    """What a recursion may ask of the scores; vocabulary and layout stay behind it."""

    @property
    def num_frames(self) -> int:
        """T."""
        ...

    @property
    def bytes_per_frame(self) -> int:
        """Memory of one frame's scores, in the precision they are computed in."""
        ...

    @property
    def scores(self) -> Float[Array, "B T V"]:
        """The array that derivatives are taken with respect to."""
        ...

    @property
    def logit_lengths(self) -> Int[Array, " B"]:
        """Frames that are no padding, within 0..T."""
        ...

    @property
    def time_axes(self) -> tuple[str, ...]:
        """Mesh axes whose devices have a stretch of T frames each; usually none."""
        ...

    def with_scores(self, scores: Float[Array, "B T V"]) -> "Emissions":
        """Return the same emissions, read from other scores."""
        ...

    def unnormalised(self) -> "Emissions":
        """Return the same emissions, whose gradient has no softmax in it."""
        ...

    def read(self, start: Int[Array, ""] | int, size: int) -> LogEmissions:
        """Read frames start .. start + size - 1; those at or past T are padding."""
        ...

    def read_all(self) -> LogEmissions:
        """Read every frame, in a way that JAX differentiates to any order."""
        ...

    def empty_gradient(self, is_alive: Bool[Array, " B"]) -> GradientBuffer:
        """Return the gradient before any posterior is written into it."""
        ...

    def write_gradient(
        self,
        gradient: GradientBuffer,
        start: Int[Array, ""] | int,
        blank: Float[Array, "K B"],
        label: Float[Array, "K B U"],
        is_alive: Bool[Array, " B"],
    ) -> GradientBuffer:
        """Write d loss / d scores of K frames, given their posteriors."""
        ...

    def finish_gradient(self, gradient: GradientBuffer) -> Float[Array, "B T V"]:
        """Return what was written, in the dtype of `scores`."""
        ...


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
        tokens: [..., T] int32, class of each frame, blanks included, padded with -1.
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


# The same for records that a caller hands back.
if TYPE_CHECKING:
    GivenAlignment: TypeAlias = CTCAlignment
    GivenPosteriors: TypeAlias = CTCPosteriors
else:
    GivenAlignment = GivenPosteriors = Any
