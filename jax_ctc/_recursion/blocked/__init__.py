"""The production recursion: extended range, blocked over time, explicit backward.

    alpha: probability of all ways to reach a state, this frame's emission included
    beta:  probability of all ways to go on from a state, this frame's excluded
    posterior_t(s) = alpha_t(s) * beta_t(s) / sum_s' alpha_t(s') * beta_t(s')

Sides. Alpha goes from the left to the end, and beta back; on accelerators each comes to
the middle and goes on through the other's half, both at once (sides.py).

Memory. Forward keeps the state at each chunk boundary only; whatever needs alpha of
every frame recomputes it one chunk of K frames at a time, the last first. With K near
sqrt(T) both grow with sqrt(T).

Range. Exponents follow an integer max-plus recursion of their own, and significands
ride on it: the largest term enters whole and emissions have significands in [1, 2), so
a significand only grows, at most 6-fold a frame (three terms, times two). Renormalising
every R <= 24 frames, alpha and beta at the same frames, bounds a product of the two by
4 * 6**24 < 2**65, far inside float32.

References:
    A. Graves et al., "Connectionist temporal classification", ICML 2006, section 4.1.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_ctc._lattice.problem import Problem
from jax_ctc._recursion.blocked import likelihood, stretches
from jax_ctc._recursion.blocked.entropy import entropy, entropy_backward
from jax_ctc._recursion.blocked.likelihood import posteriors, prefixes
from jax_ctc._recursion.blocked.paths import best_path, sample_paths

__all__ = [
    "best_path",
    "decline",
    "entropy",
    "entropy_backward",
    "forward",
    "forward_backward",
    "posteriors",
    "prefixes",
    "sample_paths",
]


def decline(dtype: jnp.dtype, platform: str) -> str | None:
    """Say why these scores cannot be handled there, or None."""
    if dtype == jnp.float64 and platform == "tpu":
        return "float64 needs 64-bit bitcasts, which TPUs lack; 'scan' does without"
    return None


def forward(
    problem: Problem,
    *,
    normalise: bool,
    time_axes: tuple[str, ...] = (),
    **how: Any,
) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad.

    how: of `make_plan` (chunks.py); only last bits depend on it, and what it costs.
    """
    if time_axes:
        return stretches.forward(problem, normalise=normalise, time_axes=time_axes)
    return likelihood.forward(problem, normalise=normalise, **how)


def forward_backward(
    problem: Problem,
    *,
    normalise: bool,
    time_axes: tuple[str, ...] = (),
    **how: Any,
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    if time_axes:
        return stretches.forward_backward(
            problem, normalise=normalise, time_axes=time_axes
        )
    return likelihood.forward_backward(problem, normalise=normalise, **how)
