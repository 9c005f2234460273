"""The entropy of the alignment in log space, to be differentiated by JAX itself.

The recursion, its names and its source are those of `blocked/entropy.py`.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jax_ctc._lattice.emissions import read_all
from jax_ctc._lattice.problem import Problem
from jax_ctc._recursion.scan.step import (
    advance,
    at_end,
    frames_of,
    initial,
    log_sum,
    log_z,
    ways_into,
)


def entropy(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return log p(labels), and the entropy in nats of the paths that say them.

    Where log p is not finite, the entropy means nothing.
    """
    log = read_all(problem, normalise=normalise)

    def step(carry: tuple, frame: tuple) -> tuple[tuple, None]:
        alpha, of_blank, of_label = carry
        ways = ways_into(problem, alpha)
        previous = jnp.pad(of_label, ((0, 0), (1, 0)))  # [B, U+1]
        of_label = _mean_surprisal(
            ways.label, (of_label, of_blank[:, :-1], previous[:, :-1])
        )
        of_blank = _mean_surprisal(ways.blank, (of_blank, previous))
        return (advance(problem, alpha, frame), of_blank, of_label), None

    alpha = initial(problem, log)
    start = alpha, jnp.zeros_like(alpha.blank), jnp.zeros_like(alpha.label)
    (alpha, of_blank, of_label), _ = lax.scan(step, start, frames_of(log))
    previous = jnp.pad(of_label, ((0, 0), (1, 0)))
    values = _mean_surprisal(ways_into(problem, alpha).blank, (of_blank, previous))
    log_value = jnp.where(log.is_bad, jnp.nan, log_z(problem, alpha))
    return log_value, at_end(problem, values, 0)


def entropy_backward(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels), the entropy, and its gradient by autodiff."""

    def read(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_value, value = entropy(problem._replace(scores=scores), normalise=normalise)
        return jnp.where(jnp.isfinite(log_value), value, 0), log_value

    value, pull, log_value = jax.vjp(read, problem.scores, has_aux=True)
    return log_value, value, pull(jnp.ones_like(value))[0]


def _mean_surprisal(
    ways: tuple[jax.Array, ...], entropies: tuple[jax.Array, ...]
) -> Float[Array, "..."]:
    """Return sum_i w_i * (H_i - ln w_i).

    -ln w_i = ln(1 + rest_i / term_i), exact also where w_i rounds to 1. A way of
    probability 0 adds nothing, neither to the value nor to a derivative.
    """
    mean = jnp.zeros_like(ways[0])
    for i, (way, entropy) in enumerate(zip(ways, entropies, strict=True)):
        rest = log_sum(*ways[:i], *ways[i + 1 :])
        is_way = way > -jnp.inf
        is_alone = rest == -jnp.inf
        ratio = jnp.where(is_alone, 0, rest) - jnp.where(is_way, way, 0)
        surprisal = jnp.where(is_alone | ~is_way, 0, jax.nn.softplus(ratio))
        mean = mean + jnp.where(is_way, jnp.exp(-surprisal) * (entropy + surprisal), 0)
    return mean
