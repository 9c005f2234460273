"""The sum over all paths, its gradient, and how probable each state is."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice.frames import from_bits, to_bits
from jax_ctc._lattice.occupancy import by_id, write_gradient
from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import ZERO, Extended
from jax_ctc._recursion.blocked.chunks import (
    Plan,
    Replay,
    forward_chunks,
    log_prefixes,
    log_z,
    make_plan,
    sweep,
)
from jax_ctc._recursion.blocked.step import (
    Emission,
    State,
    advance,
    careful,
    careless,
    final,
    initial,
    retreat,
)


class Product(NamedTuple):
    """alpha * beta of one frame or of many; divided by their sum, posteriors."""

    blank: Float[Array, "... B U+1"]
    label: Float[Array, "... B U+1"]


def forward(problem: Problem, *, normalise: bool, **how: Any) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    plan = make_plan(problem, normalise=normalise)._replace(**how)
    return keep_alpha(problem, plan)[0]


def prefixes(problem: Problem, *, normalise: bool) -> Float[Array, "B S"]:
    """Return log p of the first n labels alone, for every n from 0 to U."""
    plan = make_plan(problem, normalise=normalise)
    step, start = alpha_step(problem), careful(initial(problem))
    end, total, _ = forward_chunks(problem, plan, step, start)
    return log_prefixes(problem, end, total)


def forward_backward(
    problem: Problem, *, normalise: bool, **how: Any
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    plan = make_plan(problem, normalise=normalise)._replace(**how)
    log_value, scale, replay = keep_alpha(problem, plan)
    is_alive, beta = jnp.isfinite(log_value), careful(final(problem))
    return log_value, gradient_of(problem, plan, replay, beta, scale, is_alive)


def posteriors(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Float[Array, "T B U"], Float[Array, "T B U+1"]]:
    """Return log p(labels), and the posteriors of the labels and of the blanks.

    0 in dead utterances; padded frames hold what the end of the path would.
    """
    plan = make_plan(problem, normalise=normalise)
    log_value, scale, replay = keep_alpha(problem, plan)

    def visit(
        beta: State, start: Any, emission: Emission, alphas: State
    ) -> tuple[State, Product]:
        del start
        return posteriors_of(problem, beta, emission, alphas, scale, plan)

    _, (blank, label) = replay(visit, careful(final(problem)))
    frames = problem.scores.shape[1]
    return log_value, label[:frames, :, :-1], blank[:frames]


def keep_alpha(
    problem: Problem, plan: Plan
) -> tuple[Float[Array, " B"], Int[Array, "B 1"], Replay]:
    """Return log p(labels), its scale, and how to replay alpha from the right."""
    step, start = alpha_step(problem), careful(initial(problem))
    end, total, replay = forward_chunks(problem, plan, step, start)
    return *log_z(problem, end, total), replay


def alpha_step(problem: Problem) -> Any:
    """Return the step that advances alpha, and keeps it."""

    def step(alpha: State, emission: Emission) -> tuple[State, State]:
        alpha = advance(problem, alpha, emission)
        return alpha, careless(alpha)

    return step


def gradient_of(
    problem: Problem,
    plan: Plan,
    replay: Replay,
    beta: State,
    scale: Int[Array, "B 1"],
    is_alive: Bool[Array, " B"],
) -> Float[Array, "B T V"]:
    """Return the gradient of all frames, given beta after the last of them."""
    scores = problem.scores

    def write(
        carry: tuple, start: Any, emission: Emission, alphas: State
    ) -> tuple[tuple, None]:
        beta, gradient = carry
        beta, posterior = posteriors_of(problem, beta, emission, alphas, scale, plan)
        of_class = by_id(problem, posterior.label, posterior.blank)
        gradient = write_gradient(
            problem,
            gradient,
            start,
            of_class,
            is_alive,
            normalise=plan.normalise,
            by_product=plan.by_product,
        )
        return (beta, gradient), None

    (_, gradient), _ = replay(write, (beta, to_bits(jnp.zeros_like(scores))))
    return from_bits(gradient, scores.dtype)


def posteriors_of(
    problem: Problem,
    beta: State,
    emission: Emission,
    alphas: State,
    scale: Int[Array, "B 1"],
    plan: Plan,
) -> tuple[State, Product]:
    """Return beta before the chunk, and the posteriors of its frames.

    Multiplied while beta is at hand, beta of a chunk is never stored.
    """

    def step(beta: State, frame: tuple[Emission, State]) -> tuple[State, Product]:
        emission, alpha = frame
        now = product(alpha, careless(beta), scale)
        return retreat(problem, beta, emission), now

    beta, products = sweep(step, beta, (emission, alphas), plan, reverse=True)
    return beta, normalised(products)


def product(alpha: State, beta: State, scale: Int[Array, "B 1"]) -> Product:
    """Return alpha * beta / 2**scale, at most about 2 in an utterance alive."""

    def multiply(a: Extended, b: Extended) -> jax.Array:
        significand = a.significand * b.significand
        # Two ZEROs are all that int32 holds.
        exponent = jnp.maximum(a.exponent + b.exponent, ZERO) - scale
        return significand * extended.power_of_two(exponent, significand.dtype)

    return Product(*map(multiply, alpha, beta))


def normalised(products: Product) -> Product:
    """Return posteriors: each frame divided by its own sum.

    By its own, not by Z: rounding that all states of a frame share then cancels. In
    dead utterances the sum is 0, and 0 is what they keep.
    """
    total = sum(jnp.sum(row, axis=-1, keepdims=True) for row in products)
    total = jnp.where(total > 0, total, 1)
    return Product(*(row / total for row in products))
