"""alpha * beta: how probable each state is in each frame, given the labels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
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
from jax_ctc._recursion.blocked.layout import TWO_ROWS, Layout
from jax_ctc._recursion.blocked.step import State, followers, retreat
from jax_ctc._types import Lattice


class Product(NamedTuple):
    """One frame's alpha * beta; over a chunk, of all its frames."""

    blank: Float[Array, "... B U+1"]
    label: Float[Array, "... B U"]


def keep_alpha(lattice: Lattice, layout: Layout = TWO_ROWS) -> Step:
    """Return the step that advances alpha and keeps what it was before."""
    advance = layout.advance(lattice)
    return keep_before(lambda alpha, emission: (advance(alpha, emission), None))


def move_beta(lattice: Lattice) -> Step:
    """Return the step that takes beta to the frame before and keeps nothing."""
    may_follow = followers(lattice)
    return lambda beta, emission: (retreat(may_follow, beta, emission), None)


def products_of(
    lattice: Lattice,
    beta: Any,
    emission: Any,
    alphas: Kept,
    scale: Int[Array, "B 1"],
    plan: Plan,
    into: Any = None,
) -> tuple[Any, Any]:
    """Return beta before the chunk, and alpha * beta of each of its frames.

    Both as the plan lays out a column; `product` tells rows apart. The loop carries
    emission * beta, so that states add up their neighbours as they are:

        alpha_t * beta_t = alpha_t * (p_t * beta_t) / p_t

    Multiplied while beta is at hand, beta of a chunk is never stored.
    """
    layout = plan.layout
    retreat = layout.retreat(lattice)

    def step(emitted: Any, frame: Int[Array, ""]) -> tuple[Any, Any]:
        here = _at(emission, frame)
        column = jax.tree.map(
            lambda a, b, p: multiply(a, b, scale, p),
            after(alphas, frame),
            emitted,
            layout.bare(here),
            is_leaf=_is_extended,
        )
        beta = retreat(emitted, here)
        # Before the chunk's first frame comes another chunk.
        before = _at(emission, jnp.maximum(frame - 1, 0))
        return layout.emit(beta, _where_or_one(frame > 0, before)), column

    emitted = layout.emit(beta, _at(emission, plan.chunk - 1))
    frames = positions(plan.chunk)
    return sweep(step, emitted, frames, plan, reverse=True, into=into)


def _at(rows: Any, frame: Int[Array, ""] | int) -> Any:
    return jax.tree.map(
        lambda x: lax.dynamic_index_in_dim(x, frame, keepdims=False), rows
    )


def _where_or_one(condition: jax.Array, emission: Any) -> Any:
    """Return the emission where the condition holds, else 1."""

    def choose(number: Any) -> Any:
        if not _is_extended(number):
            return number
        return Extended(
            jnp.where(condition, number.significand, 1),
            jnp.where(condition, number.exponent, 0),
        )

    return jax.tree.map(choose, emission, is_leaf=_is_extended)


def _is_extended(x: Any) -> bool:
    return isinstance(x, Extended)


def empty_products(lattice: Lattice, zero: Float[Array, " B"], plan: Plan) -> Any:
    """Return what `products_of` may write into."""
    batch, num_labels = lattice.can_skip.shape
    rows: Any = (
        jnp.zeros((plan.chunk, batch, width), zero.dtype)
        for width in (num_labels + 1, num_labels)
    )
    return plan.layout.pack(State(*rows))


def product(columns: Any, plan: Plan) -> Product:
    """Return the products of a chunk by row."""
    return Product(*plan.layout.unpack(columns))


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
    alpha: Extended,
    beta: Extended,
    scale: Int[Array, "B 1"],
    over: Extended | None = None,
) -> Float[Array, "B n"]:
    """Return alpha * beta / over / 2**scale, at most about 2 in an utterance alive.

    `over`, at most 1, is a factor of alpha and of beta: 0 only where both are.
    """
    significand = alpha.significand * beta.significand
    exponent = alpha.exponent + beta.exponent  # two ZEROs are all that int32 holds
    if over is not None:
        significand = significand / over.significand
        exponent = exponent - over.exponent
    exponent = jnp.maximum(exponent, ZERO) - scale
    return significand * extended.power_of_two(exponent, significand.dtype)
