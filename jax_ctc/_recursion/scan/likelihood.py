"""The sum over all paths in log space; its derivatives are gradient and posteriors."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jax_ctc._lattice.emissions import LogEmissions, read_all
from jax_ctc._lattice.problem import Problem
from jax_ctc._mesh.relay import Leg, relay
from jax_ctc._mesh.varying import anywhere
from jax_ctc._recursion.scan.step import (
    State,
    advance,
    frames_of,
    initial,
    log_prefixes,
    log_z,
)


def forward(
    problem: Problem, *, normalise: bool, time_axes: tuple[str, ...] = ()
) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    log = read_all(problem, normalise=normalise)
    value = log_z(problem, last_alpha(problem, log, time_axes))
    return jnp.where(anywhere(log.is_bad, time_axes), jnp.nan, value)


def forward_backward(
    problem: Problem, *, normalise: bool, time_axes: tuple[str, ...] = ()
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p, by reverse-mode autodiff."""

    def of(scores: jax.Array) -> jax.Array:
        read = problem._replace(scores=scores)
        return forward(read, normalise=normalise, time_axes=time_axes)

    log_value, pull = jax.vjp(of, problem.scores)
    return log_value, pull(-jnp.ones_like(log_value))[0]


def prefixes(problem: Problem, *, normalise: bool) -> Float[Array, "B S"]:
    """Return log p of the first n labels alone, for every n from 0 to U."""
    log = read_all(problem, normalise=normalise)
    values = log_prefixes(problem, last_alpha(problem, log))
    return jnp.where(log.is_bad[:, None], jnp.nan, values)


def posteriors(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Float[Array, "T B U"], Float[Array, "T B U+1"]]:
    """Return log p(labels), and the posteriors of the labels and of the blanks.

    posterior_t(s) = d log p / d log_emission_t(s), each state with its own emission.
    """
    log = read_all(problem, normalise=normalise)
    num_blanks = problem.can_skip.shape[1] + 1
    blank = jnp.broadcast_to(log.blank, (*log.blank.shape[:2], num_blanks))

    def of(label: jax.Array, blank: jax.Array) -> jax.Array:
        read = log._replace(label=label, blank=blank)
        value = log_z(problem, last_alpha(problem, read))
        return jnp.where(log.is_bad, jnp.nan, value)

    log_value, pull = jax.vjp(of, log.label, blank)
    return log_value, *pull(jnp.ones_like(log_value))


def last_alpha(
    problem: Problem, log: LogEmissions, time_axes: tuple[str, ...] = ()
) -> State:
    """Return alpha after all frames, those of other devices too."""

    def step(alpha: State, frame: tuple) -> tuple[State, None]:
        return advance(problem, alpha, frame), None

    def run(alpha: State) -> State:
        return lax.scan(step, alpha, frames_of(log))[0]

    start = initial(problem, log)
    if not time_axes:
        return run(start)
    # To be differentiated, only what each turn starts from is kept.
    [(_, end)] = relay(Leg(jax.checkpoint(run), start), axes=time_axes)
    return end
