"""The sum over all paths of frames that lie on several devices, and its gradient.

Device d has the stretch of frames d * T .. (d + 1) * T - 1. Alpha passes through the
devices from the left and beta from the right, one stretch a turn, in the same turns:
all that moves between neighbours is a column of the lattice. Then every device has the
alpha before its stretch and the beta after it, and all write their gradients at once.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_ctc._lattice.protocol import Emissions
from jax_ctc._lattice.topology import Lattice
from jax_ctc._mesh.relay import Leg, relay
from jax_ctc._numbers.two_floats import two_sum
from jax_ctc._recursion.blocked.chunks import (
    Total,
    backward_chunks,
    forward_chunks,
    log_z,
    make_plan,
)
from jax_ctc._recursion.blocked.likelihood import write_gradient
from jax_ctc._recursion.blocked.product import keep_alpha, move_beta
from jax_ctc._recursion.blocked.step import State, final, initial, zeros


def forward(lattice: Lattice, emissions: Emissions) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    [(_, (end, total))] = relay(_alpha(lattice, emissions), axes=emissions.time_axes)
    return log_z(lattice, end, total)[0]


def forward_backward(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    plan, zero = make_plan(lattice, emissions), zeros(emissions)
    ((alpha, _), (end, total)), (beta, _) = relay(
        _alpha(lattice, emissions),
        _beta(lattice, emissions),
        axes=emissions.time_axes,
    )
    log_value, scale = log_z(lattice, end, total)
    _, _, replay = forward_chunks(emissions, plan, keep_alpha(lattice), alpha, zero)
    gradient = write_gradient(
        lattice, emissions, plan, replay, beta, scale, jnp.isfinite(log_value)
    )
    return log_value, gradient


def _alpha(lattice: Lattice, emissions: Emissions) -> Leg:
    """Return the way of alpha and of what it sums up: from before the first frame."""
    plan, zero = make_plan(lattice, emissions), zeros(emissions)

    def run(state: tuple[State, Total]) -> tuple[State, Total]:
        alpha, total = state
        alpha, own, _ = forward_chunks(
            emissions, plan, keep_alpha(lattice), alpha, zero
        )
        high, lost = two_sum(total.high, own.high)
        low = total.low + (lost + own.low)
        return alpha, Total(high, low, total.is_bad | own.is_bad)

    return Leg(run, (initial(lattice, zero), Total(zero, zero, zero != 0)))


def _beta(lattice: Lattice, emissions: Emissions) -> Leg:
    """Return the way of beta: from after the last frame, to the left."""
    plan, zero = make_plan(lattice, emissions), zeros(emissions)

    def run(beta: State) -> State:
        return backward_chunks(emissions, plan, move_beta(lattice), beta, zero)

    return Leg(run, final(lattice, zero), reverse=True)
