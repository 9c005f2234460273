"""The smallest guest: XLA code behind the wrapper, which leaves its name in a program.

The example of CONTRIBUTING's "Adding a kernel": a module with these five names, and a
line in `GUESTS`.
"""

import jax
import jax.numpy as jnp

from jax_ctc._recursion.blocked import likelihood

PLATFORM = "cpu"
HAS_RUN_ON = "the machine of these tests"
MARK = "the_small_guest_was_here"


def decline(traits):
    """Take float32 only, and no more than 1,000 labels."""
    if traits.dtype != jnp.float32:
        return f"it takes float32, and the scores are {traits.dtype}"
    if traits.num_labels > 1000:
        return f"it takes 1,000 labels at most, and U = {traits.num_labels}"
    return None


def forward(problem, *, normalise):
    """Return log p(labels)."""
    with jax.named_scope(MARK):
        return likelihood.forward(problem, normalise=normalise)


def forward_backward(problem, *, normalise):
    """Return log p(labels), and the gradient of -log p."""
    with jax.named_scope(MARK):
        return likelihood.forward_backward(problem, normalise=normalise)
