"""The sum over all paths in log space; its derivatives are gradient and posteriors."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jax_ctc._lattice.log_emissions import LogEmissions
from jax_ctc._lattice.protocol import Emissions
from jax_ctc._lattice.topology import Lattice
from jax_ctc._mesh.relay import Leg, relay
from jax_ctc._mesh.varying import anywhere
from jax_ctc._recursion.scan.step import State, advance, frames_of, initial, log_z


def forward(lattice: Lattice, emissions: Emissions) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    return _sum_paths(lattice, emissions.read_all(), emissions.time_axes)


def forward_backward(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p, by reverse-mode autodiff."""
    log_value, pull = jax.vjp(
        lambda scores: forward(lattice, emissions.with_scores(scores)),
        emissions.scores,
    )
    return log_value, pull(-jnp.ones_like(log_value))[0]


def posteriors(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "T B U"], Float[Array, "T B U+1"]]:
    """Return log p(labels), and the posteriors of the labels and of the blanks.

    posterior_t(s) = d log p / d log_emission_t(s), each state with its own emission.
    """
    log = emissions.read_all()
    num_blanks = lattice.can_skip.shape[1] + 1
    blank = jnp.broadcast_to(log.blank, (*log.blank.shape[:2], num_blanks))

    def sum_paths(label: jax.Array, blank: jax.Array) -> jax.Array:
        return _sum_paths(lattice, log._replace(label=label, blank=blank))

    log_value, pull = jax.vjp(sum_paths, log.label, blank)
    return log_value, *pull(jnp.ones_like(log_value))


def _sum_paths(
    lattice: Lattice, log: LogEmissions, time_axes: tuple[str, ...] = ()
) -> Float[Array, " B"]:
    """Return log p(labels), given the emissions of all frames, or of a stretch."""

    def step(alpha: State, frame: tuple) -> tuple[State, None]:
        return advance(lattice, alpha, frame), None

    def run(alpha: State) -> State:
        return lax.scan(step, alpha, frames_of(log))[0]

    start = initial(lattice, log)
    if time_axes:  # to be differentiated, only what each turn starts from is kept
        [(_, end)] = relay(Leg(jax.checkpoint(run), start), axes=time_axes)
    else:
        end = run(start)
    is_bad = anywhere(log.is_bad, time_axes)
    return jnp.where(is_bad, jnp.nan, log_z(lattice, end))
