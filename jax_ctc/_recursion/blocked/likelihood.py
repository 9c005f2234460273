"""The sum over all paths, and its gradient."""

import functools
from typing import Any

import jax
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
from jax_ctc._recursion.blocked.layout import Layout
from jax_ctc._recursion.blocked.product import (
    empty_products,
    keep_alpha,
    normaliser,
    product,
    products_of,
)
from jax_ctc._recursion.blocked.step import State, final, initial, zeros
from jax_ctc._types import Emissions, Lattice


def forward(
    lattice: Lattice, emissions: Emissions, *, layout: Layout
) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    plan = make_plan(lattice, emissions, layout)
    return _forward(lattice, emissions, plan=plan)


def forward_backward(
    lattice: Lattice, emissions: Emissions, *, layout: Layout
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    plan = make_plan(lattice, emissions, layout)
    return _forward_backward(lattice, emissions, plan=plan)


# Under `jit` so that one shape is traced once, however many programs it is part of.
@functools.partial(jax.jit, static_argnames="plan")
def _forward(
    lattice: Lattice, emissions: Emissions, *, plan: Plan
) -> Float[Array, " B"]:
    return _alpha(lattice, emissions, plan)[0]


@functools.partial(jax.jit, static_argnames="plan")
def _forward_backward(
    lattice: Lattice, emissions: Emissions, *, plan: Plan
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    log_value, scale, replay = _alpha(lattice, emissions, plan)
    beta = plan.layout.pack(final(lattice, zeros(emissions)))
    gradient = write_gradient(
        lattice, emissions, plan, replay, beta, scale, jnp.isfinite(log_value)
    )
    return log_value, gradient


def _alpha(
    lattice: Lattice, emissions: Emissions, plan: Plan
) -> tuple[Float[Array, " B"], Int[Array, "B 1"], Replay]:
    """Return log p(labels), its scale, and how to replay alpha from the right."""
    zero, layout = zeros(emissions), plan.layout
    start = layout.pack(initial(lattice, zero))
    end, total, replay = forward_chunks(
        emissions, plan, keep_alpha(lattice, layout), start, zero
    )
    return *log_z(lattice, State(*layout.unpack(end)), total), replay


def write_gradient(
    lattice: Lattice,
    emissions: Emissions,
    plan: Plan,
    replay: Replay,
    beta: Any,
    scale: Int[Array, "B 1"],
    is_alive: Bool[Array, " B"],
) -> Float[Array, "B T V"]:
    """Return the gradient of all frames, given beta after the last of them."""

    # From the right: a ragged last chunk reaches back over its left neighbour's
    # frames, and the neighbour then overwrites them.
    def write(
        carry: tuple, start: Any, emission: Any, alphas: Kept
    ) -> tuple[tuple, None]:
        beta, gradient, columns = carry
        beta, columns = products_of(
            lattice, beta, emission, alphas, scale, plan, into=columns
        )
        occupancy = product(columns, plan)
        of_blank, total = normaliser(occupancy)
        gradient = emissions.write_gradient(
            gradient,
            start,
            of_blank / total,
            occupancy.label / total[..., None],
            is_alive,
        )
        return (beta, gradient, columns), None

    columns = empty_products(lattice, zeros(emissions), plan)
    carry = (beta, emissions.empty_gradient(is_alive), columns)
    (_, gradient, _), _ = replay(write, carry)
    return emissions.finish_gradient(gradient)
