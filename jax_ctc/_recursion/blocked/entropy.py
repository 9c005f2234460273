"""The entropy of the alignment, by a recursion whose terms are all positive.

With w(s'|s) the probability that a path in s came from s',

    w(s'|s) = alpha_{t-1}(s') / sum over the ways into s
    H_t(s)  = sum_{s'} w(s'|s) * (H_{t-1}(s') - ln w(s'|s))

H_t(s) is the entropy of how state s was reached, and the end is one more state. Unlike
ln Z - E[ln p], nothing large is subtracted: the relative error stays that of a sum.

References:
    D. Hernando, V. Crespi, G. Cybenko, "Efficient computation of the hidden Markov
    model entropy for a given observation sequence", IEEE Trans. Inf. Theory 51 (2005).
"""

import functools
import operator
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_ctc import _extended as extended
from jax_ctc._extended import Extended
from jax_ctc._recursion.blocked.chunks import (
    ends,
    forward_chunks,
    log_z,
    make_plan,
)
from jax_ctc._recursion.blocked.step import (
    Emission,
    State,
    advance,
    final,
    initial,
    ways_into,
    zeros,
)
from jax_ctc._types import Emissions, Lattice


class Known(NamedTuple):
    """Alpha of a frame, and the entropy of how each of its states was reached."""

    alpha: State
    of_blank: Float[Array, "B U+1"]
    of_label: Float[Array, "B U"]


def entropy(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return log p(labels), and the entropy in nats of the paths that say them.

    Where log p is not finite, the entropy means nothing.
    """
    plan, zero = make_plan(lattice, emissions), zeros(emissions)
    alpha = initial(lattice, zero)
    start = Known(
        alpha,
        jnp.zeros_like(alpha.blank.significand),
        jnp.zeros_like(alpha.label.significand),
    )

    def step(known: Known, emission: Emission) -> tuple[Known, None]:
        return _advance(lattice, known, emission), None

    end, total, _ = forward_chunks(emissions, plan, step, start, zero)
    at_end = (mark.exponent == 0 for mark in final(lattice, zero))
    of_ends = (
        jnp.max(jnp.where(here, row, 0), axis=1, initial=0)
        for here, row in zip(at_end, end[1:], strict=True)
    )
    value = _mean_surprisal(ends(lattice, end.alpha), tuple(of_ends))
    return log_z(lattice, end.alpha, total)[0], value


def _advance(lattice: Lattice, known: Known, emission: Emission) -> Known:
    """Return alpha of the next frame, and the entropies."""
    ways = ways_into(lattice, known.alpha)
    previous = jnp.pad(known.of_label, ((0, 0), (1, 0)))  # [B, U+1]
    stay = known.of_blank[:, :-1]  # [B, U]
    return Known(
        advance(lattice, known.alpha, emission),
        _mean_surprisal(ways.blank, (known.of_blank, previous)),
        _mean_surprisal(ways.label, (known.of_label, stay, previous[:, :-1])),
    )


def _mean_surprisal(
    ways: tuple[Extended, ...], entropies: tuple[Float[Array, "..."], ...]
) -> Float[Array, "..."]:
    """Return sum_i w_i * (H_i - ln w_i).

    -ln w_i = ln(1 + rest_i / term_i), exact also where w_i rounds to 1. Below the
    smallest normal number w_i counts as 0, or the ratio would overflow.
    """
    _, terms = extended.align(*ways)
    total = functools.reduce(operator.add, terms)  # at least 1
    mean = jnp.zeros_like(total)
    for i, (term, entropy) in enumerate(zip(terms, entropies, strict=True)):
        rest = functools.reduce(operator.add, terms[:i] + terms[i + 1 :])
        weight = term / total
        is_way = weight >= jnp.finfo(total.dtype).tiny
        surprisal = jnp.log1p(rest / jnp.where(is_way, term, 1))
        mean = mean + jnp.where(is_way, weight * (entropy + surprisal), 0)
    return mean
