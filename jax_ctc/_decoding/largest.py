"""The k largest of a row, in order: what a beam search does in every frame.

`lax.top_k` is the right way on a TPU. Compiled for GPUs it sorts, and under plain `jit`
gathers a sharded batch to do it, which a sort in its place does not. XLA's CPU sorts
all n of them, number by number, and gathers as well. There the k-th largest
is found bit by bit, those not below it are found by counting the ones in a bit mask,
and these k are put in order by comparing each with each: few operations, all of them
on whole rows.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt

from jax_ctc._decoding.platforms import by_platform
from jax_ctc._numbers.masks import positions

_WORD = 32  # bits of the numbers that masks are packed into
_STRIPES = 32  # that a row is counted in, at most: each is an operation of the program
_UNROLL = 8
_PAIRS = 16  # that are compared all at once, at most


def largest(
    values: Float[Array, "... n"], k: int
) -> tuple[Float[Array, "... {k}"], Int[Array, "... {k}"]]:
    """Return the k largest of each row from the largest down, and where they were.

    The first of equals goes first, on every platform; -0 equals 0. k is at most n.
    """
    values = jnp.where(values == 0, 0, values)
    index = by_platform(
        values,
        cpu=functools.partial(_largest_on_cpu, k=k),
        gpu=functools.partial(_largest_by_sorting, k=k),
        default=lambda values: lax.top_k(values, k)[1].astype(jnp.int32),
    )
    return at(values, index), index


def at(row: Any, index: Int[Array, "... k"]) -> Any:
    """Return row[..., index], both with the same leading axes."""
    return jnp.take_along_axis(row, index, axis=-1, mode="promise_in_bounds")


def _largest_by_sorting(values: Float[Array, "... n"], k: int) -> Int[Array, "... {k}"]:
    """Return where the k largest are, by a sort, which XLA splits by rows."""
    place = jnp.zeros_like(values, jnp.int32) + positions(values.shape[-1], values.ndim)
    _, index = lax.sort((-values, place), num_keys=1, is_stable=True)
    return index[..., :k]


def _largest_on_cpu(values: Float[Array, "... n"], k: int) -> Int[Array, "... {k}"]:
    keys, n = _ordered_keys(values), values.shape[-1]
    if k == n:
        return _inverse(_ranks(keys))
    padding = [(0, 0)] * (keys.ndim - 1) + [(0, -n % _WORD)]
    padded = jnp.pad(keys, padding, constant_values=jnp.iinfo(keys.dtype).min)
    bar = _kth_largest(padded, k)[..., None]
    index = _first_marked(padded > bar, padded == bar, k)
    # Equals are in the order of their places, which is that of the index too.
    return at(index, _inverse(_ranks(at(padded, index))))


def _ordered_keys(values: Float[Array, "... n"]) -> Int[Array, "... n"]:
    """Return integers in the order of the values."""
    integer = jnp.int64 if values.dtype.itemsize == 8 else jnp.int32
    bits = lax.bitcast_convert_type(values, integer)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(integer).max, bits)


def _kth_largest(keys: Int[Array, "... n"], k: int) -> Int[Array, "..."]:
    """Return the largest bar that k of the keys reach, found from its highest bit."""
    info = jnp.iinfo(keys.dtype)
    width = _WORD * -(-keys.shape[-1] // (_STRIPES * _WORD))

    def raise_bar(bit: Any, bar: jax.Array) -> jax.Array:
        one = jnp.asarray(1, keys.dtype)
        higher = bar ^ (one << jnp.asarray(info.bits - 1 - bit, keys.dtype))
        # Stripe by stripe, or XLA would add up one number after the other.
        counts = jnp.zeros_like(keys[..., :width], jnp.int32)
        for start in range(0, keys.shape[-1], width):
            stripe = (keys[..., start : start + width] >= higher[..., None]).astype(
                jnp.int32
            )
            counts += jnp.pad(
                stripe, [(0, 0)] * (keys.ndim - 1) + [(0, width - stripe.shape[-1])]
            )
        return jnp.where(jnp.sum(counts, axis=-1) >= k, higher, bar)

    lowest = jnp.full_like(keys[..., 0], info.min)
    return lax.fori_loop(jnp.int32(0), jnp.int32(info.bits), raise_bar, lowest)


def _first_marked(
    above: Bool[Array, "... n"], equal: Bool[Array, "... n"], k: int
) -> Int[Array, "... {k}"]:
    """Return the places of those above, and then of those equal: k, in their order."""
    words = jnp.concatenate([_packed(above), _packed(equal)], axis=-1)
    ones = lax.population_count(words).astype(jnp.int32)
    slot = positions(k, words.ndim)

    def pass_word(word: Any, carry: tuple) -> tuple:
        end, number, before = carry
        end = end + lax.dynamic_slice_in_dim(ones, word, 1, axis=-1)
        is_passed = end <= slot
        number = number + is_passed.astype(jnp.int32)
        return end, number, jnp.where(is_passed, end, before)

    num_words = words.shape[-1]
    none = jnp.zeros_like(ones[..., :1])
    start = none, *2 * (jnp.zeros_like(none + slot),)
    _, number, before = lax.fori_loop(
        0, num_words, pass_word, start, unroll=min(_UNROLL, num_words)
    )
    bit = _nth_one(at(words, number), slot - before)
    return (number % (num_words // 2)) * _WORD + bit


def _packed(mark: Bool[Array, "... n"]) -> UInt[Array, "... m"]:
    """Return 32 marks as the bits of one number."""
    *rows, n = mark.shape
    marks = mark.reshape(*rows, n // _WORD, _WORD).astype(jnp.uint32)
    bit = positions(_WORD, marks.ndim).astype(jnp.uint32)
    return jnp.sum(marks << bit, axis=-1, dtype=jnp.uint32)


def _nth_one(word: UInt[Array, "..."], n: Int[Array, "..."]) -> Int[Array, "..."]:
    """Return which bit of the word is its n-th 1, counted from 0."""
    bit = jnp.zeros_like(n)
    for width in (16, 8, 4, 2, 1):
        low = word & np.uint32((1 << width) - 1)
        ones = lax.population_count(low).astype(jnp.int32)
        is_higher = n >= ones
        n = jnp.where(is_higher, n - ones, n)
        word = jnp.where(is_higher, word >> np.uint32(width), low)
        bit += jnp.where(is_higher, width, 0)
    return bit


def _ranks(keys: Int[Array, "... n"]) -> Int[Array, "... n"]:
    """Return how many are larger than each, or equal and before it."""
    n = keys.shape[-1]
    place = positions(n, keys.ndim)

    if n <= _PAIRS:  # all at once: one operation to compile
        other, its_place = keys[..., None], positions(n)[:, None]
        is_earlier = (its_place < positions(n, 2)).reshape(place.shape[:-1] + (n, n))
        one = keys[..., None, :]
        is_before = jnp.where(is_earlier, other >= one, other > one)
        return jnp.sum(is_before, axis=-2, dtype=jnp.int32)

    def compare(other: Any, ranks: jax.Array) -> jax.Array:
        key = lax.dynamic_slice_in_dim(keys, other, 1, axis=-1)
        is_before = jnp.where(other < place, key >= keys, key > keys)
        return ranks + is_before.astype(jnp.int32)

    zeros = jnp.zeros_like(keys, jnp.int32)
    return lax.fori_loop(0, n, compare, zeros, unroll=min(_UNROLL, max(n, 1)))


def _inverse(place: Int[Array, "... n"]) -> Int[Array, "... n"]:
    """Return the inverse of permutations."""

    def row(place: Int[Array, " n"]) -> Int[Array, " n"]:
        every = positions(place.shape[0])
        return (
            jnp.zeros_like(place)
            .at[place]
            .set(every, mode="promise_in_bounds", unique_indices=True)
        )

    for _ in range(place.ndim - 1):
        row = jax.vmap(row)
    return row(place)
