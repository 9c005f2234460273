"""The sum over all paths, and its gradient."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._recursion.blocked.chunks import (
    Kept,
    Plan,
    Replay,
    forward_chunks,
    log_z,
    make_plan,
)
from jax_ctc._recursion.blocked.product import (
    empty_product,
    keep_alpha,
    normaliser,
    products_of,
)
from jax_ctc._recursion.blocked.step import Emission, State, final, initial, zeros
from jax_ctc._types import Emissions, Lattice


def forward(lattice: Lattice, emissions: Emissions) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    plan, zero = make_plan(lattice, emissions), zeros(emissions)
    end, total, _ = forward_chunks(
        emissions, plan, keep_alpha(lattice), initial(lattice, zero), zero
    )
    return log_z(lattice, end, total)[0]


def forward_backward(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    plan, zero = make_plan(lattice, emissions), zeros(emissions)
    end, total, replay = forward_chunks(
        emissions, plan, keep_alpha(lattice), initial(lattice, zero), zero
    )
    log_value, scale = log_z(lattice, end, total)
    beta = final(lattice, zero)
    gradient = write_gradient(
        lattice, emissions, plan, replay, beta, scale, jnp.isfinite(log_value)
    )
    return log_value, gradient


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
        carry: tuple, start: Any, emission: Emission, alphas: Kept
    ) -> tuple[tuple, None]:
        beta, gradient, product = carry
        beta, product = products_of(
            lattice, beta, emission, alphas, scale, plan, into=product
        )
        of_blank, total = normaliser(product)
        gradient = emissions.write_gradient(
            gradient,
            start,
            of_blank / total,
            product.label / total[..., None],
            is_alive,
        )
        return (beta, gradient, product), None

    product = empty_product(lattice, zeros(emissions), plan)
    carry = (beta, emissions.empty_gradient(is_alive), product)
    (_, gradient, _), _ = replay(write, carry)
    return emissions.finish_gradient(gradient)
