"""alpha * beta: how probable each state is in each frame, given the labels."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_ctc._lattice.topology import Lattice
from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import ZERO, Extended
from jax_ctc._recursion.blocked.chunks import Plan, Step, sweep
from jax_ctc._recursion.blocked.step import Emission, State, advance, followers, retreat


class Product(NamedTuple):
    """One frame's alpha * beta; over a chunk, of all its frames."""

    blank: Float[Array, "... B U+1"]
    label: Float[Array, "... B U"]


def keep_alpha(lattice: Lattice) -> Step:
    """Return the step that advances alpha, and keeps it."""

    def step(alpha: State, emission: Emission) -> tuple[State, State]:
        alpha = advance(lattice, alpha, emission)
        return alpha, alpha

    return step


def move_beta(lattice: Lattice) -> Step:
    """Return the step that takes beta to the frame before and keeps nothing."""
    may_follow = followers(lattice)
    return lambda beta, emission: (retreat(may_follow, beta, emission), None)


def products_of(
    lattice: Lattice,
    beta: State,
    emission: Emission,
    alphas: State,
    scale: Int[Array, "B 1"],
    plan: Plan,
) -> tuple[State, Product]:
    """Return beta before the chunk, and alpha * beta of each of its frames.

    Multiplied while beta is at hand, beta of a chunk is never stored.
    """
    may_follow = followers(lattice)

    def step(beta: State, frame: tuple[Emission, State]) -> tuple[State, Product]:
        emission, alpha = frame
        product = Product(
            *(multiply(a, b, scale) for a, b in zip(alpha, beta, strict=True))
        )
        return retreat(may_follow, beta, emission), product

    return sweep(step, beta, (emission, alphas), plan, reverse=True)


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
    """Return alpha * beta / 2**scale, at most about 2 in an utterance alive."""
    significand = alpha.significand * beta.significand
    exponent = alpha.exponent + beta.exponent  # two ZEROs are all that int32 holds
    exponent = jnp.maximum(exponent, ZERO) - scale
    return significand * extended.power_of_two(exponent, significand.dtype)
