"""The production recursion: extended range, blocked over time, explicit backward.

    alpha: probability of all ways to reach a state, this frame's emission included
    beta:  probability of all ways to go on from a state, this frame's excluded
    posterior_t(s) = alpha_t(s) * beta_t(s) / sum_s' alpha_t(s') * beta_t(s')

Memory. Forward keeps the state at each chunk boundary only; backward recomputes alpha
one chunk of K frames at a time and writes that chunk's gradient in place. With K near
sqrt(T) both grow with sqrt(T). A problem whose alpha fits _KEEP_BYTES is one chunk.

Range. Exponents follow an integer max-plus recursion of their own, and significands
ride on it: the largest term enters whole and emissions have significands in [1, 2), so
a significand only grows, at most 6-fold a frame (three terms, times two). Renormalising
every R <= 24 frames, alpha and beta at the same frames, bounds a product of the two by
4 * 6**24 < 2**65, far inside float32.

References:
    A. Graves et al., "Connectionist temporal classification", ICML 2006, section 4.1.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc import _extended as extended
from jax_ctc._extended import LOG_CUTOFF, ZERO, Extended
from jax_ctc._mask import is_at, positions
from jax_ctc._types import Emissions, Lattice, accumulator

_RENORM_FRAMES = 24  # at most
_KEEP_BYTES = 4 * 2**20


class State(NamedTuple):
    """One frame's column of alpha or beta."""

    blank: Extended  # [B, U+1]
    label: Extended  # [B, U]


class Emission(NamedTuple):
    """One frame's (or, stacked, one chunk's) emission probabilities over its best."""

    blank: Extended  # [..., B, 1]
    label: Extended  # [..., B, U]


class Plan(NamedTuple):
    """How T frames are cut: chunks of `chunk` frames, renormalised every `renorm`."""

    renorm: int
    chunk: int
    num_chunks: int


class Total(NamedTuple):
    """The sum of the frames' shifts in two floats, and whether a frame was bad."""

    high: Float[Array, " B"]
    low: Float[Array, " B"]
    is_bad: jax.Array


def decline(dtype: jnp.dtype, platform: str) -> str | None:
    """Say why these scores cannot be handled there, or None."""
    if dtype == jnp.float64 and platform == "tpu":
        return "float64 needs 64-bit bitcasts, which TPUs lack; 'scan' does without"
    return None


def forward(lattice: Lattice, emissions: Emissions) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    plan = make_plan(lattice, emissions)
    end, total, _, _ = _forward_chunks(lattice, emissions, plan)
    return _log_z(lattice, end, total)


def forward_backward(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    plan = make_plan(lattice, emissions)
    zero = _zero(emissions)

    def write(carry: tuple, start: Any, emission: Emission, alphas: State) -> tuple:
        beta, gradient = carry
        beta, betas = _betas(lattice, beta, emission, plan)
        blank, label = _posterior(alphas, betas)
        gradient = emissions.write_gradient(gradient, start, blank, label, is_alive)
        return beta, gradient

    if plan.num_chunks == 1:  # alpha is small enough to keep: nothing runs twice
        emission, total = _read(emissions, 0, plan, Total(zero, zero, zero != 0))
        end, alphas = _alphas(lattice, _initial(lattice, zero), emission, plan)
        log_z = _log_z(lattice, end, total)
        is_alive = jnp.isfinite(log_z)
        carry = _final(lattice, zero), emissions.empty_gradient()
        _, gradient = write(carry, 0, emission, alphas)
        return log_z, emissions.finish_gradient(gradient)

    end, total, starts, boundaries = _forward_chunks(lattice, emissions, plan)
    log_z = _log_z(lattice, end, total)
    is_alive = jnp.isfinite(log_z)

    def body(carry: tuple, chunk: tuple) -> tuple:
        start, boundary = chunk
        emission, _ = _read(emissions, start, plan, total)
        _, alphas = _alphas(lattice, boundary, emission, plan)
        return write(carry, start, emission, alphas), None

    carry = _final(lattice, zero), emissions.empty_gradient()
    # From the right: a ragged last chunk reaches back over its left neighbour's
    # frames, and the neighbour then overwrites them.
    (_, gradient), _ = lax.scan(body, carry, (starts, boundaries), reverse=True)
    return log_z, emissions.finish_gradient(gradient)


def make_plan(lattice: Lattice, emissions: Emissions) -> Plan:
    """Cut T frames: one chunk if alpha is small, else chunks of about sqrt(T)."""
    num_frames = emissions.num_frames
    batch, num_labels = lattice.can_skip.shape
    bytes_per_frame = batch * 8 * (2 * num_labels + 1) + emissions.bytes_per_frame
    keep = num_frames * bytes_per_frame <= _KEEP_BYTES
    chunk = num_frames if keep else math.isqrt(num_frames - 1) + 1
    blocks = -(-chunk // _RENORM_FRAMES)
    renorm = -(-chunk // blocks)
    chunk = renorm * blocks
    return Plan(renorm, chunk, -(-num_frames // chunk))


def _forward_chunks(
    lattice: Lattice, emissions: Emissions, plan: Plan
) -> tuple[State, Total, Int[Array, " C"], State]:
    """Run alpha over all chunks; return its end, and each chunk's start and state."""
    zero = _zero(emissions)
    starts = positions(plan.num_chunks) * plan.chunk

    def step(state: State, emission: Emission) -> tuple[State, None]:
        return _advance(lattice, state, emission), None

    def body(carry: tuple, start: Any) -> tuple:
        state, total = carry
        emission, total = _read(emissions, start, plan, total)
        end, _ = _sweep(step, state, emission, plan)
        return (end, total), state

    carry = _initial(lattice, zero), Total(zero, zero, zero != 0)
    (end, total), boundaries = lax.scan(body, carry, starts)
    return end, total, starts, boundaries


def _read(
    emissions: Emissions, start: Any, plan: Plan, total: Total
) -> tuple[Emission, Total]:
    """Read a chunk in extended range, and add its shifts to the running total."""
    log = emissions.read(start, plan.chunk)
    shift = _sum_frames(log.log_shift)
    high, error = _two_sum(total.high, shift[0])
    total = Total(high, total.low + (error + shift[1]), total.is_bad | log.is_bad)
    emission = Emission(extended.from_log(log.blank), extended.from_log(log.label))
    return emission, total


def _alphas(
    lattice: Lattice, state: State, emission: Emission, plan: Plan
) -> tuple[State, State]:
    """Return alpha after the chunk, and alpha of each of its frames."""

    def step(state: State, emission: Emission) -> tuple[State, State]:
        state = _advance(lattice, state, emission)
        return state, state

    return _sweep(step, state, emission, plan)


def _betas(
    lattice: Lattice, state: State, emission: Emission, plan: Plan
) -> tuple[State, State]:
    """Return beta before the chunk, and beta of each of its frames."""

    def step(state: State, emission: Emission) -> tuple[State, State]:
        return _retreat(lattice, state, emission), state

    return _sweep(step, state, emission, plan, reverse=True)


def _sweep(step: Any, state: State, xs: Any, plan: Plan, reverse: bool = False) -> Any:
    """Scan over a chunk, renormalising the state before every R frames."""

    def block(state: State, xs: Any) -> tuple[State, Any]:
        state = State(*(extended.renormalise(row) for row in state))
        return lax.scan(step, state, xs, reverse=reverse)

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(plan.chunk // plan.renorm, plan.renorm, *x.shape[1:])

    state, ys = lax.scan(block, state, jax.tree.map(split, xs), reverse=reverse)
    return state, jax.tree.map(lambda y: y.reshape(plan.chunk, *y.shape[2:]), ys)


def _advance(lattice: Lattice, alpha: State, emission: Emission) -> State:
    """Return alpha of the next frame, given its emission.

    blank'[n] = p_t(blank)    * (blank[n] + label[n-1])
    label'[n] = p_t(labels_n) * (label[n] + blank[n] + can_skip[n] * label[n-1])
    """
    blank, label = alpha  # [B, U+1], [B, U]
    previous = _pad(label, left=True)  # label[n-1], [B, U+1]
    stay = _take(blank, slice(None, -1))  # [B, U]
    skip = extended.select(lattice.can_skip, _take(previous, slice(None, -1)))
    return State(
        extended.times(extended.plus(blank, previous), emission.blank),
        extended.times(extended.plus(label, stay, skip), emission.label),
    )


def _retreat(lattice: Lattice, beta: State, emission: Emission) -> State:
    """Return beta of the frame before, given this frame's emission.

    With b = p_t(blank) * blank and l = p_t(labels) * label:
    blank'[n] = b[n] + l[n]
    label'[n] = l[n] + b[n+1] + can_skip[n+1] * l[n+1]
    """
    blank = extended.times(beta.blank, emission.blank)  # [B, U+1]
    label = extended.times(beta.label, emission.label)  # [B, U]
    here = _pad(label, left=False)  # [B, U+1], no label to follow the last
    skip = extended.select(lattice.can_skip, label)
    skip = _take(_pad(skip, left=False), slice(1, None))  # [B, U]
    return State(
        extended.plus(blank, here),
        extended.plus(label, _take(blank, slice(1, None)), skip),
    )


def _posterior(
    alpha: State, beta: State
) -> tuple[Float[Array, "K B"], Float[Array, "K B U"]]:
    """Return each frame's posterior of blank (all n together) and of each label.

    Normalised by each frame's own sum, not by Z: rounding that all states of a frame
    share then cancels. Dead utterances divide by a guarded sum; they are masked later.
    """
    blank, label = (
        Extended(a.significand * b.significand, a.exponent + b.exponent)
        for a, b in zip(alpha, beta, strict=True)
    )
    peak = jnp.maximum(
        jnp.max(blank.exponent, axis=-1, keepdims=True),
        jnp.max(label.exponent, axis=-1, keepdims=True, initial=2 * ZERO),
    )
    blank, label = (
        row.significand
        * extended.power_of_two(row.exponent - peak, row.significand.dtype)
        for row in (blank, label)
    )
    of_blank = jnp.sum(blank, axis=-1)
    total = of_blank + jnp.sum(label, axis=-1)
    total = jnp.where(total > 0, total, 1)
    return of_blank / total, label / total[..., None]


def _initial(lattice: Lattice, zero: Float[Array, " B"]) -> State:
    """Return alpha before the first frame: blank[0] = 1."""
    num_labels = lattice.can_skip.shape[1]
    return State(
        _indicator(jnp.zeros_like(lattice.num_labels), num_labels + 1, zero),
        _indicator(jnp.full_like(lattice.num_labels, -1), num_labels, zero),
    )


def _final(lattice: Lattice, zero: Float[Array, " B"]) -> State:
    """Return beta after the last frame: blank[N] = label[N-1] = 1."""
    num_labels = lattice.can_skip.shape[1]
    end = lattice.num_labels
    return State(
        _indicator(end, num_labels + 1, zero),
        _indicator(end - 1, num_labels, zero),
    )


def _log_z(lattice: Lattice, end: State, total: Total) -> Float[Array, " B"]:
    """Read blank[N] + label[N-1] by a masked maximum, and add the shifts back."""
    final = _final(lattice, jnp.zeros_like(total.high))
    here = (
        Extended(
            jnp.max(jnp.where(mark.exponent == 0, row.significand, 0), -1, initial=0),
            jnp.max(
                extended.select(mark.exponent == 0, row).exponent, -1, initial=ZERO
            ),
        )
        for row, mark in zip(end, final, strict=True)
    )
    log_z = extended.to_log(extended.plus(*here)) + (total.high + total.low)
    log_z = jnp.where(log_z < LOG_CUTOFF, -jnp.inf, log_z)
    return jnp.where(total.is_bad, jnp.nan, log_z)


def _indicator(
    place: Int[Array, " B"], num_states: int, zero: Float[Array, " B"]
) -> Extended:
    """Return 1 in the state at the place given, 0 in the others."""
    one = jnp.ones((1, num_states), zero.dtype) + zero[:, None]  # [B, n]
    return Extended(one, jnp.where(is_at(place, num_states), 0, ZERO))


def _zero(emissions: Emissions) -> Float[Array, " B"]:
    """Return zeros made from the scores: inside `shard_map` they vary as scores do.

    A constant would not, and a scan may not start from a constant and then vary.
    """
    scores = emissions.scores[:, 0, 0]
    return jnp.zeros_like(scores, accumulator(scores.dtype))


def _pad(row: Extended, *, left: bool) -> Extended:
    """Add one state that holds 0 at the left, or at the right."""
    low, high = int(left), int(not left)

    def pad(x: jax.Array, fill: int) -> jax.Array:
        return lax.pad(x, jnp.asarray(fill, x.dtype), ((0, 0, 0), (low, high, 0)))

    return Extended(pad(row.significand, 1), pad(row.exponent, ZERO))


def _take(row: Extended, states: slice) -> Extended:
    return Extended(row.significand[:, states], row.exponent[:, states])


def _sum_frames(
    shift: Float[Array, "K B"],
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Sum over frames in two floats, by halves; what rounding loses goes to `low`."""
    high, low = shift, jnp.zeros_like(shift)
    while high.shape[0] > 1:
        if high.shape[0] % 2:
            high, low = (jnp.pad(x, ((0, 1), (0, 0))) for x in (high, low))
        total, error = _two_sum(high[0::2], high[1::2])
        high, low = total, low[0::2] + low[1::2] + error
    return high[0], low[0]


def _two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a + b rounded, and exactly what rounding lost (Knuth, TAOCP 2, 4.2.2)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)
