"""What an implementation owes: `blocked` and `scan` everything, a guest two functions.

A guest is a kernel for one kind of machine. It is given arrays and nothing that it
would have to call back, and declines by what is known of a problem when it is traced.
Whatever it does not do (posteriors, best path, samples, entropy, sharded classes or
frames, wildcards, second derivatives) stays with `blocked` and `scan`, which it
inherits.
"""

import dataclasses
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers.sizes import Size


class Traits(NamedTuple):
    """What is known of a problem, and of where it runs, when it is traced."""

    platform: str  # "cpu", "cuda", "rocm" or "tpu"
    dtype: jnp.dtype  # of the scores
    batch: Size  # B
    num_frames: Size  # T
    num_labels: Size  # U
    num_classes: int  # V
    normalise: bool
    time_axes: tuple[str, ...] = ()  # mesh axes whose devices have a stretch of T each
    has_gaps: bool = False  # gaps between labels have classes of their own (wildcards)


@runtime_checkable
class Guest(Protocol):
    """A kernel: a module with these functions and names.

    `forward` and `forward_backward` agree with `scan` in every value, flag and zero:
    log p is -inf where impossible and NaN where a live frame is bad, and there, and on
    padded frames, the gradient is exactly 0.

    It may have a third, `best_path(problem, *, normalise)`, which returns the largest
    log p of a path [B] and that path's states [B, T]: 2n for blank[n], 2n + 1 for
    label[n]. Of equally probable ways into a state, staying goes first, then the
    nearest.
    """

    @property
    def PLATFORM(self) -> str:
        """The one it is for."""
        ...

    @property
    def HAS_RUN_ON(self) -> str | None:
        """The machine of its committed record; None: it runs by name only."""
        ...

    def decline(self, traits: Traits) -> str | None:
        """Say in a sentence why it cannot do this here, or None."""
        ...

    def forward(self, problem: Problem, *, normalise: bool) -> Float[Array, " B"]:
        """Return log p(labels) in nats."""
        ...

    def forward_backward(
        self, problem: Problem, *, normalise: bool
    ) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
        """Return log p(labels) and d(-log p) / d scores, in the dtype of the scores."""
        ...


@dataclasses.dataclass(frozen=True)
class Implementation:
    """What `implementations()` says of one of them.

    Attributes:
        name: as `implementation=` takes it.
        platform: the kind of device it is for; None for all of them.
        has_run_on: the machine that its committed record was made on; None if it has
            only been compiled, and so is taken by name alone.
        declines: why it takes no float32 batch here; None if it does.
        is_default: whether it is what a float32 batch here gets unasked.
    """

    name: str
    platform: str | None
    has_run_on: str | None
    declines: str | None
    is_default: bool
