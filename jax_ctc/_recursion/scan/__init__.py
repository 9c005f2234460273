"""The specification: the textbook recursion in log space, one `lax.scan` over time.

    alpha'(s) = log_emission(s) + logsumexp(alpha(predecessors of s))

It is written to be read, and to be differentiated by JAX itself, to any order; every
other implementation is held to it. Each frame is normalised by its maximum, whose sum
is kept in two floats: without that, log-probabilities near -1e5 lose their fraction.

References:
    A. Graves et al., "Connectionist temporal classification", ICML 2006, section 4.1.
"""

import jax.numpy as jnp

from jax_ctc._recursion.scan.entropy import entropy, entropy_backward
from jax_ctc._recursion.scan.likelihood import (
    forward,
    forward_backward,
    posteriors,
    prefixes,
)
from jax_ctc._recursion.scan.paths import best_path, sample_paths

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
    """Say why these scores cannot be handled there: they always can."""
    del dtype, platform
