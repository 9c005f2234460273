"""The sum over all paths, and its gradient."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice.protocol import Emissions
from jax_ctc._lattice.topology import Lattice
from jax_ctc._recursion.blocked.chunks import (
    Plan,
    Replay,
    forward_chunks,
    log_z,
    make_plan,
)
from jax_ctc._recursion.blocked.product import keep_alpha, normaliser, products_of
from jax_ctc._recursion.blocked.step import Emission, State, final, initial, zeros


def forward(lattice: Lattice, emissions: Emissions) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    return _alpha(lattice, emissions, make_plan(lattice, emissions))[0]


def forward_backward(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    plan = make_plan(lattice, emissions)
    log_value, scale, replay = _alpha(lattice, emissions, plan)
    beta = final(lattice, zeros(emissions))
    gradient = write_gradient(
        lattice, emissions, plan, replay, beta, scale, jnp.isfinite(log_value)
    )
    return log_value, gradient


def _alpha(
    lattice: Lattice, emissions: Emissions, plan: Plan
) -> tuple[Float[Array, " B"], Int[Array, "B 1"], Replay]:
    """Return log p(labels), its scale, and how to replay alpha from the right."""
    zero = zeros(emissions)
    end, total, replay = forward_chunks(
        emissions, plan, keep_alpha(lattice), initial(lattice, zero), zero
    )
    return *log_z(lattice, end, total), replay


def write_gradient(
    lattice: Lattice,
    emissions: Emissions,
    plan: Plan,
    replay: Replay,
    beta: State,
    scale: Int[Array, "B 1"],
    is_alive: Bool[Array, " B"],
) -> Float[Array, "B T V"]:
    """Return the gradient of all frames, given beta after the last of them."""

    # From the right: a ragged last chunk reaches back over its left neighbour's
    # frames, and the neighbour then overwrites them.
    def write(
        carry: tuple[State, jax.Array], start: Any, emission: Emission, alphas: State
    ) -> tuple[tuple[State, jax.Array], None]:
        beta, gradient = carry
        beta, product = products_of(lattice, beta, emission, alphas, scale, plan)
        of_blank, total = normaliser(product)
        blank, label = of_blank / total, product.label / total[..., None]
        gradient = emissions.write_gradient(gradient, start, blank, label, is_alive)
        return (beta, gradient), None

    (_, gradient), _ = replay(write, (beta, jnp.zeros_like(emissions.scores)))
    return gradient
