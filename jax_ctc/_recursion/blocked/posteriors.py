"""The probability of every state in every frame, given the labels."""

from typing import Any

from jaxtyping import Array, Float

from jax_ctc._lattice.protocol import Emissions
from jax_ctc._lattice.topology import Lattice
from jax_ctc._recursion.blocked.chunks import forward_chunks, log_z, make_plan
from jax_ctc._recursion.blocked.product import (
    Product,
    keep_alpha,
    normaliser,
    products_of,
)
from jax_ctc._recursion.blocked.step import Emission, State, final, initial, zeros


def posteriors(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "T B U"], Float[Array, "T B U+1"]]:
    """Return log p(labels), and the posteriors of the labels and of the blanks.

    0 in dead utterances; padded frames hold what the end of the path would.
    """
    plan, zero = make_plan(lattice, emissions), zeros(emissions)
    end, total, replay = forward_chunks(
        emissions, plan, keep_alpha(lattice), initial(lattice, zero), zero
    )
    log_value, scale = log_z(lattice, end, total)

    def visit(
        beta: State, start: Any, emission: Emission, alphas: State
    ) -> tuple[State, Product]:
        del start
        beta, rows = products_of(lattice, beta, emission, alphas, scale, plan)
        _, total = normaliser(rows)
        return beta, Product(*(row / total[..., None] for row in rows))

    _, (blank, label) = replay(visit, final(lattice, zero))
    frames = emissions.num_frames
    return log_value, label[:frames], blank[:frames]
