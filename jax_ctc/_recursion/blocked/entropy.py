"""The entropy of the alignment, by a recursion whose terms are all positive.

With w(s'|s) the probability that a path in s came from s',

    w(s'|s) = alpha_{t-1}(s') / sum over the ways into s
    F_t(s)  = sum_{s'} w(s'|s) * (F_{t-1}(s') - ln w(s'|s))

F_t(s) is the entropy of how state s was reached, and the end is one more state. Unlike
ln Z - E[ln p], nothing large is subtracted: the relative error stays that of a sum.

Backward, with beta in place of alpha, G_t(s) is the entropy of how s is left. A path
through s then has the mean surprisal

    E_t(s) = F_t(s) + G_t(s) - ln posterior_t(s)
    H      = sum_s posterior_t(s) * E_t(s)                       in every frame t
    dH / d log_emission_t(s) = posterior_t(s) * (E_t(s) - H)

(with q a path's posterior, dH = -sum dq ln q, and dq = q * (1[s in path] - posterior)).
H is the frame's own sum, so that what rounding adds to all its states cancels.

References:
    D. Hernando, V. Crespi, G. Cybenko, "Efficient computation of the hidden Markov
    model entropy for a given observation sequence", IEEE Trans. Inf. Theory 51 (2005).
"""

import functools
import operator
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_ctc._lattice.frames import from_bits, to_bits
from jax_ctc._lattice.occupancy import by_id, write_gradient
from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import Extended
from jax_ctc._recursion.blocked.chunks import (
    Plan,
    Replay,
    forward_chunks,
    log_z,
    make_plan,
    sweep,
)
from jax_ctc._recursion.blocked.likelihood import Product, normalised, product
from jax_ctc._recursion.blocked.step import (
    Emission,
    State,
    Ways,
    advance,
    at_end,
    final,
    initial,
    retreat,
    ways_into,
    ways_out,
)


class Entropies(NamedTuple):
    """Of how each state was reached, or is left."""

    blank: Float[Array, "... B U+1"]
    label: Float[Array, "... B U+1"]


class Known(NamedTuple):
    """Alpha (or beta) of a frame, and the entropies beside it."""

    state: State
    entropies: Entropies


def entropy(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return log p(labels), and the entropy in nats of the paths that say them.

    Where log p is not finite, the entropy means nothing.
    """
    return _forward(problem, make_plan(problem, normalise=normalise))[:2]


def entropy_backward(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels), the entropy, and its gradient with respect to the scores.

    The softmax has no part in it: d/d log_emission sums to 0 over a frame's states.
    """
    plan = make_plan(problem, normalise=normalise)
    log_value, value, scale, replay = _forward(problem, plan)
    is_alive = jnp.isfinite(log_value)

    def write(carry: tuple, number: Any, emission: Emission, knowns: Known) -> tuple:
        known, gradient = carry
        start = number * plan.chunk
        known, products, paths = _backward(
            problem, known, emission, knowns, scale, plan
        )
        slopes = -_slopes(problem, products, paths)
        gradient = write_gradient(
            problem, gradient, start, slopes, is_alive, normalise=False
        )
        return (known, gradient), None

    empty = to_bits(jnp.zeros_like(problem.scores))
    (_, gradient), _ = replay(write, (_certain(final(problem)), empty))
    return log_value, value, from_bits(gradient, problem.scores.dtype)


def _forward(
    problem: Problem, plan: Plan
) -> tuple[Float[Array, " B"], Float[Array, " B"], Int[Array, "B 1"], Replay]:
    """Return log p, the entropy, the scale of Z, and the replay that keeps `Known`."""

    def step(known: Known, emission: Emission) -> tuple[Known, Known]:
        known = Known(
            advance(problem.can_skip, known.state, emission),
            _mean_surprisals(
                ways_into(problem.can_skip, known.state),
                _entropies_into(known.entropies),
            ),
        )
        return known, known

    start = _certain(initial(problem))
    end, total, replay = forward_chunks(problem, plan, step, start)
    # As if one more frame followed, sure to be blank.
    into_blank, _ = _entropies_into(end.entropies)
    values = _mean_surprisal(ways_into(problem.can_skip, end.state).blank, into_blank)
    log_value, scale = log_z(problem, end.state, total)
    return log_value, at_end(problem, values, 0), scale, replay


def _backward(
    problem: Problem,
    known: Known,
    emission: Emission,
    knowns: Known,
    scale: Int[Array, "B 1"],
    plan: Plan,
) -> tuple[Known, Product, Entropies]:
    """Return beta and G before the chunk; alpha * beta and F + G of its frames."""

    def step(known: Known, xs: tuple) -> tuple[Known, tuple[Product, Entropies]]:
        emission, (alpha, reached) = xs
        beta, left = known
        paths = Entropies(*map(operator.add, reached, left))
        before = Known(
            retreat(problem.can_skip, beta, emission),
            _mean_surprisals(
                ways_out(problem.can_skip, beta, emission), _entropies_out(left)
            ),
        )
        return before, (product(alpha, beta, scale), paths)

    xs = (emission, knowns)
    known, (products, paths) = sweep(step, known, xs, plan, reverse=True)
    return known, products, paths


def _slopes(
    problem: Problem, products: Product, paths: Entropies
) -> Float[Array, "K B S"]:
    """Return posterior * (E - H) of each state that has an id."""
    posterior = jnp.concatenate(normalised(products), axis=2)
    path = jnp.concatenate(paths, axis=2)
    surprisal = path - jnp.log(jnp.where(posterior > 0, posterior, 1))
    mean = jnp.sum(posterior * surprisal, axis=2, keepdims=True)
    slope = posterior * (surprisal - mean)
    blank, label = jnp.split(slope, [products.blank.shape[2]], axis=2)
    return by_id(problem, label, blank)


def _certain(state: State) -> Known:
    """Return a start or an end: nothing is known yet, and nothing uncertain."""
    return Known(state, Entropies(*(jnp.zeros_like(row.significand) for row in state)))


def _entropies_into(of: Entropies) -> tuple[tuple, tuple]:
    """Return the entropies beside `ways_into`: stay, move, skip."""
    previous = jnp.pad(of.label, ((0, 0), (1, 0)))[:, :-1]  # of label[n-1]
    return (of.blank, previous), (of.label, of.blank, previous)


def _entropies_out(of: Entropies) -> tuple[tuple, tuple]:
    """Return the entropies beside `ways_out`: stay, move, skip."""
    blank, label = (jnp.pad(x, ((0, 0), (0, 1)))[:, 1:] for x in of)  # of n + 1
    return (of.blank, of.label), (of.label, blank, label)


def _mean_surprisals(ways: Ways, entropies: tuple[tuple, tuple]) -> Entropies:
    return Entropies(*map(_mean_surprisal, ways, entropies))


def _mean_surprisal(
    ways: tuple[Extended, ...], entropies: tuple[Float[Array, "..."], ...]
) -> Float[Array, "..."]:
    """Return sum_i w_i * (H_i - ln w_i).

    -ln w_i = ln(1 + rest_i / term_i), exact also where w_i rounds to 1. Below the
    smallest normal number w_i counts as 0, or the ratio would overflow.
    """
    _, terms = extended.align(*ways)
    total = functools.reduce(operator.add, terms)  # at least 1, or 0: no way at all
    total = jnp.where(total > 0, total, 1)
    mean = jnp.zeros_like(total)
    for i, (term, entropy) in enumerate(zip(terms, entropies, strict=True)):
        rest = functools.reduce(operator.add, terms[:i] + terms[i + 1 :])
        weight = term / total
        is_way = weight >= jnp.finfo(total.dtype).tiny
        surprisal = jnp.log1p(rest / jnp.where(is_way, term, 1))
        mean = mean + jnp.where(is_way, weight * (entropy + surprisal), 0)
    return mean
