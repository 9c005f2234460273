"""Extended-range numbers: significand * 2**exponent, with an int32 exponent.

Probabilities of long utterances leave the range of float32, and logarithms that reach
-1e5 keep only two digits after the point. A significand with its own exponent has
neither fault: it never underflows, and every operation rounds once, relatively.

    value = significand * 2**exponent          significand >= 1, exponent >= ZERO
    a * b : significands multiply, exponents add
    a + b : align both to the larger exponent E, then add significands

A sum can also keep what its rounding lost, at the same exponent:

    value = (significand + lost) * 2**exponent

Where one state holds nearly everything, each frame adds to it less than it can hold,
or the same half of an ulp again and again: over a thousand frames of a model that is
sure, that is more than its whole loss.

Significands may grow between renormalisations (see `_recursion/blocked`); the
exponent alone says how large a number is, up to that growth. Exponent ZERO, and no
other, means the number 0.

References:
    D. W. Lozier and J. M. Smith, "Algorithm 567: Extended-range arithmetic and
    normalized Legendre polynomials", ACM TOMS 7 (1981).
    T. Fukushima, "Numerical computation of spherical harmonics of arbitrary degree and
    order by extending exponent of floating point numbers", J. Geodesy 86 (2012).
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._numbers.two_floats import Pair, sum_frames, two_product, two_sum

# Two ZEROs add up to -2**31, which int32 still holds.
ZERO = -(2**30)

# A sum aligns a ZERO to its neighbour with weight 2**(ZERO - e), which is 0 unless e
# is this close to ZERO. Such tiny numbers are taken for 0 at the end: -log p beyond
# LOG_CUTOFF, about 7.4e8 nats, counts as impossible, in every implementation.
_GUARD = 128
LOG_CUTOFF = (ZERO + _GUARD) * math.log(2)

# What rounding ln 2 leaves out.
_LN2_REST = {
    "float32": math.log(2) - float(np.float32(math.log(2))),
    "float64": 2.3190468138462996e-17,
}

# 2**x on [0, 1), lowest degree first.
_EXP2: list[float] = (
    np.polynomial.Chebyshev.interpolate(np.exp2, 6, domain=[0, 1])
    .convert(kind=np.polynomial.Polynomial)
    .coef.tolist()
)


class Extended(NamedTuple):
    """An array of extended-range numbers."""

    significand: Float[Array, "..."]
    exponent: Int[Array, "..."]
    lost: Float[Array, "..."] | None = None  # by rounding; None: not kept


def map_parts(function: Callable[..., jax.Array], value: Extended) -> Extended:
    """Return function(part, zero) of each part, `zero` being what it holds in a 0."""
    significand, exponent, lost = value
    return Extended(
        function(significand, 1),
        function(exponent, ZERO),
        None if lost is None else function(lost, 0),
    )


class _Layout(NamedTuple):
    """Where an IEEE format keeps its exponent."""

    integer: type
    bias: int
    shift: int


def _layout(dtype: jnp.dtype) -> _Layout:
    if dtype == jnp.float64:
        return _Layout(jnp.int64, 1023, 52)
    return _Layout(jnp.int32, 127, 23)


def in_tree(function: Callable[[Extended], Extended], tree: Any) -> Any:
    """Return a tree with the function of its extended-range numbers, and the rest."""
    return jax.tree.map(
        lambda x: function(x) if isinstance(x, Extended) else x,
        tree,
        is_leaf=lambda x: isinstance(x, Extended),
    )


def careful(value: Extended) -> Extended:
    """Return the number, whose sums from here on keep what they lose."""
    return value._replace(lost=jnp.zeros_like(value.significand))


def careless(value: Extended) -> Extended:
    """Return the number rounded once, and from here on as often as it is added to."""
    if value.lost is None:
        return value
    return Extended(value.significand + value.lost, value.exponent)


def power_of_two(exponent: Int[Array, "..."], dtype: jnp.dtype) -> Float[Array, "..."]:
    """Return 2**exponent for exponent <= 0, by writing the exponent bits; 0 if tiny."""
    integer, bias, shift = _layout(dtype)
    bits = jnp.maximum(exponent + bias, 0).astype(integer) << shift
    return lax.bitcast_convert_type(bits, dtype)


def from_log(log_value: Float[Array, "..."]) -> Extended:
    """Return exp(log_value) for log_value <= 0; the number 0 at or below the cut-off.

    y = log_value * log2(e), exponent = floor(y), significand = 2**(y - exponent).
    """
    y = log_value * math.log2(math.e)
    y = jnp.where(y > ZERO, y, ZERO)  # NaN too: its utterance is flagged
    floor = jnp.floor(y)
    return Extended(_exp2(y - floor), floor.astype(jnp.int32))


def _exp2(fraction: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return 2**fraction for fractions in [0, 1); 2**0 is exactly 1.

    In float32 a polynomial of degree 6 is off by less than rounding, and on a CPU it
    is faster than XLA's own, which has all of float32 to serve.
    """
    if fraction.dtype != jnp.float32:
        return jnp.exp2(fraction)
    value = jnp.full_like(fraction, _EXP2[-1])
    for coefficient in _EXP2[-2::-1]:
        value = value * fraction + coefficient
    return value


def times(a: Extended, b: Extended) -> Extended:
    """Return a * b, and exactly 0 where either is 0 or the product is below ZERO.

    What a lost is kept; of b nothing may be.
    """
    return Extended(
        a.significand * b.significand,
        jnp.maximum(a.exponent + b.exponent, ZERO),
        None if a.lost is None else a.lost * b.significand,
    )


def align(
    *terms: Extended,
) -> tuple[Int[Array, "..."], tuple[Float[Array, "..."], ...]]:
    """Return the largest exponent, and each term over 2**exponent."""
    exponent = _largest_exponent(terms)
    return exponent, tuple(x.significand * _weight(x, exponent) for x in terms)


def plus(*terms: Extended) -> Extended:
    """Return the sum, aligned to the largest exponent; that term enters whole."""
    exponent, aligned = align(*terms)
    if terms[0].lost is None:
        return Extended(functools.reduce(operator.add, aligned), exponent)
    carried = [x.lost * _weight(x, exponent) for x in terms if x.lost is not None]
    total, lost = aligned[0], functools.reduce(operator.add, carried)
    for term in aligned[1:]:
        total, error = two_sum(total, term)
        lost = lost + error
    return Extended(total, exponent, lost)


def dot(a: tuple[Extended, ...], b: tuple[Extended, ...]) -> Extended:
    """Return the sum of a * b over all rows [B, S] and their places, [B, 1].

    Once an utterance, so nothing is lost: neither by products nor by sums.
    """
    products = [_product(*rows) for rows in zip(a, b, strict=True)]
    terms = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *products)
    exponent = jnp.max(terms.exponent, axis=1, keepdims=True)
    weight = _weight(terms, exponent)
    high, low = sum_frames((terms.significand * weight).T)
    low = low + jnp.sum(terms.lost * weight, axis=1)
    return Extended(high[:, None], exponent, low[:, None])


def _product(a: Extended, b: Extended) -> Extended:
    """Return a * b, with what rounding and both factors lost."""
    product, error = two_product(a.significand, b.significand)
    assert a.lost is not None
    assert b.lost is not None
    lost = error + (a.lost * b.significand + a.significand * b.lost)
    return Extended(product, jnp.maximum(a.exponent + b.exponent, ZERO), lost)


def _largest_exponent(terms: tuple[Extended, ...]) -> Int[Array, "..."]:
    return functools.reduce(jnp.maximum, (term.exponent for term in terms))


def _weight(term: Extended, exponent: Int[Array, "..."]) -> Float[Array, "..."]:
    return power_of_two(term.exponent - exponent, term.significand.dtype)


def best(*terms: Extended) -> tuple[Extended, Int[Array, "..."]]:
    """Return the largest term and its index, int8; the first of equals.

    Aligned, the largest is at least 1: the one with the largest exponent entered whole.
    """
    exponent, aligned = align(*terms)
    largest, index = aligned[0], jnp.zeros_like(exponent, jnp.int8)
    for number, term in enumerate(aligned[1:], start=1):
        index = jnp.where(term > largest, jnp.int8(number), index)
        largest = jnp.maximum(largest, term)
    return Extended(largest, exponent), index


def maximum(*terms: Extended) -> Extended:
    """Return the largest term."""
    return best(*terms)[0]


def select(condition: Bool[Array, "..."], value: Extended) -> Extended:
    """Return the value where the condition holds, else the number 0."""
    return value._replace(exponent=jnp.where(condition, value.exponent, ZERO))


def renormalise(value: Extended) -> Extended:
    """Bring significands back to [1, 2). What was 0 stays exactly 0."""
    integer, bias, shift = _layout(value.significand.dtype)
    bits = lax.bitcast_convert_type(value.significand, integer)
    growth = (bits >> shift).astype(jnp.int32) - bias
    mantissa = (bits & ((1 << shift) - 1)) | (bias << shift)
    significand = lax.bitcast_convert_type(mantissa, value.significand.dtype)
    is_zero = value.exponent <= ZERO
    lost = value.lost
    if lost is not None:
        lost = jnp.where(is_zero, 0, lost * power_of_two(-growth, lost.dtype))
    return Extended(
        jnp.where(is_zero, 1, significand),
        jnp.where(is_zero, ZERO, value.exponent + growth),
        lost,
    )


def to_log(value: Extended) -> Pair:
    """Return the natural logarithm, of a number that is renormalised, in two floats.

    exponent * ln 2 may be large, and what will be added to it, to nearly 0, as large.
    """
    dtype = value.significand.dtype
    exponent = value.exponent.astype(dtype)
    high, error = two_product(exponent, jnp.full_like(exponent, math.log(2)))
    low = error + (exponent * _LN2_REST[dtype.name] + jnp.log(value.significand))
    return high, low if value.lost is None else low + value.lost / value.significand


def is_zero(value: Extended) -> Bool[Array, "..."]:
    """Tell what is 0, or so near to it that it counts as 0."""
    return value.exponent <= ZERO + _GUARD
