"""Pallas kernels for TPUs: alpha and beta stay in registers from frame to frame.

States lie along sublanes and registers, utterances along lanes (slots.py). XLA reads
the scores of a chunk of frames and writes its gradient (walk.py); in between a kernel
walks through all its frames (kernels.py). Compiled for v4, v5e, v5p and v6e, and
interpreted on CPUs; no TPU has run them yet, so they are taken by name alone.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_ctc._lattice.problem import Problem
from jax_ctc._recursion.contract import Traits
from jax_ctc._recursion.tpu.slots import MOST_LABELS

PLATFORM = "tpu"
HAS_RUN_ON: str | None = None  # only compiled so far, and interpreted

# How kernels are compiled; an interpreter is told otherwise.
HOW: dict[str, Any] = {}


def decline(traits: Traits) -> str | None:
    """Say why these scores cannot be handled, or None."""
    if traits.dtype == jnp.float64:
        return "it computes in float32, and the scores are float64"
    if traits.num_labels > MOST_LABELS:
        return (
            f"the registers of a TPU hold {MOST_LABELS:,} labels at most, and"
            f" U = {traits.num_labels:,}"
        )
    return None


def forward(problem: Problem, *, normalise: bool) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    return _walk().forward(problem, normalise=normalise, **HOW)


def forward_backward(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    return _walk().forward_backward(problem, normalise=normalise, **HOW)


def _walk() -> Any:
    """Return the module that does it; Pallas takes a second to import."""
    from jax_ctc._recursion.tpu import walk

    return walk
