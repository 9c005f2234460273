"""The production recursion: extended range, blocked over time, explicit backward.

    alpha: probability of all ways to reach a state, this frame's emission included
    beta:  probability of all ways to go on from a state, this frame's excluded
    posterior_t(s) = alpha_t(s) * beta_t(s) / sum_s' alpha_t(s') * beta_t(s')

Memory. Forward keeps the state at each chunk boundary only; whatever needs alpha of
every frame recomputes it one chunk of K frames at a time, from the right. With K near
sqrt(T) both grow with sqrt(T). A problem whose alpha is small is one chunk.

Range. Exponents follow an integer max-plus recursion of their own, and significands
ride on it: the largest term enters whole and emissions have significands in [1, 2), so
a significand only grows, at most 6-fold a frame (three terms, times two). Renormalising
every R <= 24 frames, alpha and beta at the same frames, bounds a product of the two by
4 * 6**24 < 2**65, far inside float32.

References:
    A. Graves et al., "Connectionist temporal classification", ICML 2006, section 4.1.
"""

import functools
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jax_ctc._recursion.blocked import likelihood, stretches
from jax_ctc._recursion.blocked.entropy import entropy, entropy_backward
from jax_ctc._recursion.blocked.layout import ONE_ROW, TWO_ROWS
from jax_ctc._recursion.blocked.paths import best_path, sample_paths
from jax_ctc._recursion.blocked.posteriors import posteriors
from jax_ctc._types import Emissions, Lattice

__all__ = [
    "best_path",
    "decline",
    "entropy",
    "entropy_backward",
    "forward",
    "forward_backward",
    "posteriors",
    "sample_paths",
]


def decline(dtype: jnp.dtype, platform: str) -> str | None:
    """Say why these scores cannot be handled there, or None."""
    if dtype == jnp.float64 and platform == "tpu":
        return "float64 needs 64-bit bitcasts, which TPUs lack; 'scan' does without"
    return None


def forward(lattice: Lattice, emissions: Emissions) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    if emissions.time_axes:
        return stretches.forward(lattice, emissions)
    return _by_layout(likelihood.forward, lattice, emissions)


def forward_backward(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    if emissions.time_axes:
        return stretches.forward_backward(lattice, emissions)
    return _by_layout(likelihood.forward_backward, lattice, emissions)


def _by_layout(method: Any, lattice: Lattice, emissions: Emissions) -> Any:
    """Run the method with the lattice in two rows on a CPU, woven into one elsewhere.

    A loop on a CPU takes as long as its operations; an accelerator waits for each of
    its operations to start.
    """
    two_rows, one_row = (
        functools.partial(method, layout=layout) for layout in (TWO_ROWS, ONE_ROW)
    )
    return lax.platform_dependent(lattice, emissions, cpu=two_rows, default=one_row)
