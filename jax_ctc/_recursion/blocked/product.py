"""alpha * beta: how probable each state is in each frame, given the labels."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_ctc import _extended as extended
from jax_ctc._extended import ZERO, Extended
from jax_ctc._mask import positions
from jax_ctc._recursion.blocked.chunks import (
    Kept,
    Plan,
    Step,
    after,
    keep_before,
    sweep,
)
from jax_ctc._recursion.blocked.step import (
    Emission,
    State,
    advance,
    followers,
    retreat,
)
from jax_ctc._types import Lattice


class Product(NamedTuple):
    """One frame's alpha * beta; over a chunk, of all its frames."""

    blank: Float[Array, "... B U+1"]
    label: Float[Array, "... B U"]


def keep_alpha(lattice: Lattice) -> Step:
    """Return the step that advances alpha and keeps what it was before."""
    return keep_before(
        lambda alpha, emission: (advance(lattice, alpha, emission), None)
    )


def move_beta(lattice: Lattice) -> Step:
    """Return the step that takes beta to the frame before and keeps nothing."""
    may_follow = followers(lattice)

    def step(beta: State, emission: Emission) -> tuple[State, None]:
        return retreat(may_follow, beta, emission), None

    return step


def products_of(
    lattice: Lattice,
    beta: State,
    emission: Emission,
    alphas: Kept,
    scale: Int[Array, "B 1"],
    plan: Plan,
    into: Product | None = None,
) -> tuple[State, Product]:
    """Return beta before the chunk, and alpha * beta of each of its frames.

    Multiplied while beta is at hand, beta of a chunk is never stored.
    """
    may_follow = followers(lattice)

    def step(beta: State, xs: tuple) -> tuple[State, Product]:
        emission, frame = xs
        alpha = after(alphas, frame)
        product = Product(
            *(multiply(a, b, scale) for a, b in zip(alpha, beta, strict=True))
        )
        return retreat(may_follow, beta, emission), product

    xs = (emission, positions(plan.chunk))
    return sweep(step, beta, xs, plan, reverse=True, into=into)


def empty_product(lattice: Lattice, zero: Float[Array, " B"], plan: Plan) -> Product:
    """Return what `products_of` may write into."""
    batch, num_labels = lattice.can_skip.shape
    return Product(
        *(
            jnp.zeros((plan.chunk, batch, width), zero.dtype)
            for width in (num_labels + 1, num_labels)
        )
    )


def normaliser(product: Product) -> tuple[Float[Array, "K B"], Float[Array, "K B"]]:
    """Return the blanks' sum, and the sum of all states, of each frame.

    Posteriors are normalised by each frame's own sum, not by Z: rounding that all
    states of a frame share then cancels. The sum is 1 where it would be 0, in dead
    utterances, which are masked later.
    """
    of_blank = jnp.sum(product.blank, axis=-1)
    total = of_blank + jnp.sum(product.label, axis=-1)
    return of_blank, jnp.where(total > 0, total, 1)


def multiply(
    alpha: Extended, beta: Extended, scale: Int[Array, "B 1"]
) -> Float[Array, "B n"]:
    """Return alpha * beta / 2**scale, at most about 2 where the utterance is alive."""
    significand = alpha.significand * beta.significand
    # Two ZEROs less a positive scale would leave int32.
    exponent = jnp.maximum(alpha.exponent + beta.exponent, ZERO) - scale
    return significand * extended.power_of_two(exponent, significand.dtype)
