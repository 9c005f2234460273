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
from jax_ctc._recursion.blocked import sides
from jax_ctc._recursion.blocked.chunks import (
    Plan,
    Replay,
    forward_chunks,
    log_prefixes,
    make_plan,
    sweep,
)
from jax_ctc._recursion.blocked.step import (
    Emission,
    State,
    advance,
    careful,
    careless,
    initial,
    retreat,
)


class Ends(NamedTuple):
    """What is known where each side has come to: the middle, or of one side the end."""

    log_value: Float[Array, " B"]
    scale: Int[Array, "1 B 1"]
    betas: State  # [sides, B, U+1], of each side's last frame
    replay: Replay  # of all sides, back to where they started


class Product(NamedTuple):
    """alpha * beta of one frame or of many; divided by their sum, posteriors."""

    blank: Float[Array, "... B U+1"]
    label: Float[Array, "... B U+1"]


def forward(problem: Problem, *, normalise: bool, **how: Any) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    plan = make_plan(problem, normalise=normalise, **how)
    return to_the_ends(problem, plan, sides.start(problem, plan)).log_value


def prefixes(problem: Problem, *, normalise: bool) -> Float[Array, "B S"]:
    """Return log p of the first n labels alone, for every n from 0 to U."""
    plan = make_plan(problem, normalise=normalise)
    step, start = alpha_step(problem.can_skip), careful(initial(problem))
    end, total, _ = forward_chunks(problem, plan, step, start)
    return log_prefixes(problem, end, total)


def forward_backward(
    problem: Problem, *, normalise: bool, **how: Any
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    plan = make_plan(problem, normalise=normalise, **how)
    ends = to_the_ends(problem, plan, sides.start(problem, plan))
    return ends.log_value, gradient_of(problem, plan, ends)


def posteriors(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Float[Array, "T B U"], Float[Array, "T B U+1"]]:
    """Return log p(labels), and the posteriors of the labels and of the blanks.

    0 in dead utterances; padded frames hold what the end of the path would.
    """
    plan = make_plan(problem, normalise=normalise)
    ends = to_the_ends(problem, plan, sides.start(problem, plan))

    def visit(
        betas: State, number: Any, emission: Emission, alphas: State
    ) -> tuple[State, Product]:
        del number
        return posteriors_of(problem, betas, emission, alphas, ends.scale, plan)

    _, product = ends.replay(visit, ends.betas)
    [(blank, label)] = sides.as_they_lie(*product)
    frames = problem.scores.shape[1]
    return ends.log_value, label[:frames, :, :-1], blank[:frames]


def to_the_ends(problem: Problem, plan: Plan, start: State) -> Ends:
    """Step through all frames, from both ends if the plan has two sides."""
    step = alpha_step(sides.can_skip(problem, plan))
    alphas, total, replay = forward_chunks(problem, plan, step, start, sides.read)
    return Ends(*sides.meet(problem, plan, alphas, total), replay)


def alpha_step(can_skip: Bool[Array, "... B U"]) -> Any:
    """Return the step that advances alpha, and keeps it."""

    def step(alpha: State, emission: Emission) -> tuple[State, State]:
        alpha = advance(can_skip, alpha, emission)
        return alpha, careless(alpha)

    return step


def gradient_of(problem: Problem, plan: Plan, ends: Ends) -> Float[Array, "B T V"]:
    """Return the gradient of all frames, each side's from its last to its first."""
    scores, is_alive = problem.scores, jnp.isfinite(ends.log_value)

    def write(
        carry: tuple, number: Any, emission: Emission, alphas: State
    ) -> tuple[tuple, None]:
        betas, gradient = carry
        betas, posterior = posteriors_of(
            problem, betas, emission, alphas, ends.scale, plan
        )
        rows = zip(
            sides.starts_of(plan, number), sides.as_they_lie(*posterior), strict=True
        )
        for side, (start, (blank, label)) in enumerate(rows):
            gradient = write_gradient(
                problem,
                gradient,
                start,
                by_id(problem, label, blank),
                is_alive,
                normalise=plan.normalise,
                keeps_left=side == 1 and not sides.is_even(problem, plan),
                by_product=plan.by_product,
            )
        return (betas, gradient), None

    carry = ends.betas, to_bits(jnp.zeros_like(scores))
    (_, gradient), _ = ends.replay(write, carry)
    return from_bits(gradient, scores.dtype)


def posteriors_of(
    problem: Problem,
    betas: State,
    emission: Emission,
    alphas: State,
    scale: Int[Array, "1 B 1"],
    plan: Plan,
) -> tuple[State, Product]:
    """Return the betas before each side's chunk, and the posteriors of its frames.

    Multiplied while beta is at hand, beta of a chunk is never stored.
    """
    can_skip = sides.can_skip(problem, plan)

    def step(betas: State, frame: tuple[Emission, State]) -> tuple[State, Product]:
        emission, alphas = frame
        now = product(alphas, careless(betas), scale)
        return retreat(can_skip, betas, emission), now

    betas, products = sweep(step, betas, (emission, alphas), plan, reverse=True)
    return betas, normalised(products)


def product(alpha: State, beta: State, scale: Int[Array, "... B 1"]) -> Product:
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
