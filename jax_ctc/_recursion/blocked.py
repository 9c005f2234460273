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
from jaxtyping import Array, Bool, Float, Int

from jax_ctc import _extended as extended
from jax_ctc._extended import LOG_CUTOFF, ZERO, Extended
from jax_ctc._mask import is_at, positions
from jax_ctc._types import Emissions, Lattice, accumulator

_RENORM_FRAMES = 24  # at most
_LEAST_CHUNK = 8
_KEEP_BYTES = 4 * 2**20


class State(NamedTuple):
    """One frame's column of alpha or beta."""

    blank: Extended  # [B, U+1]
    label: Extended  # [B, U]


class Emission(NamedTuple):
    """One frame's (or, stacked, one chunk's) emission probabilities over its best."""

    blank: Extended  # [..., B, 1]
    label: Extended  # [..., B, U]


class Product(NamedTuple):
    """One frame's alpha * beta; over a chunk, of all its frames."""

    blank: Float[Array, "... B U+1"]
    label: Float[Array, "... B U"]


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
    log_z, _ = _log_z(lattice, end, total)
    return log_z


def forward_backward(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    plan = make_plan(lattice, emissions)
    zero = _zero(lattice, emissions)

    def write(carry: tuple, start: Any, emission: Emission, alphas: State) -> tuple:
        beta, gradient = carry
        beta, product = _products(lattice, beta, emission, alphas, scale, plan)
        blank, label = _posterior(product)
        gradient = emissions.write_gradient(gradient, start, blank, label, is_alive)
        return beta, gradient

    if plan.num_chunks == 1:  # alpha is small enough to keep: nothing runs twice
        emission, total = _read(emissions, 0, plan, Total(zero, zero, zero != 0))
        end, alphas = _alphas(lattice, _initial(lattice, zero), emission, plan)
        log_z, scale = _log_z(lattice, end, total)
        is_alive = jnp.isfinite(log_z)
        carry = _final(lattice, zero), emissions.empty_gradient()
        _, gradient = write(carry, 0, emission, alphas)
        return log_z, emissions.finish_gradient(gradient)

    end, total, starts, boundaries = _forward_chunks(lattice, emissions, plan)
    log_z, scale = _log_z(lattice, end, total)
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
    """Cut T frames: one chunk if alpha is small, else what needs the least memory.

    T / K boundaries of `state` bytes and one chunk of K times `frame` bytes are least
    together at K = sqrt(T * state / frame). Chunks are _LEAST_CHUNK frames at least,
    for the cost of starting one, and whole blocks once they are longer than a block.
    """
    num_frames = emissions.num_frames
    batch, num_labels = lattice.can_skip.shape
    states = batch * (2 * num_labels + 1)
    state = 8 * states
    frame = (8 + 4 + 4) * states + emissions.bytes_per_frame  # alpha, product, emission
    if num_frames * (state + emissions.bytes_per_frame) <= _KEEP_BYTES:
        chunk = num_frames
    else:
        least = math.isqrt(num_frames * state // frame) + 1
        chunk = min(max(least, _LEAST_CHUNK), num_frames)
        if chunk > _RENORM_FRAMES:
            chunk -= chunk % _RENORM_FRAMES
    blocks = -(-chunk // _RENORM_FRAMES)
    renorm = -(-chunk // blocks)
    chunk = renorm * blocks
    return Plan(renorm, chunk, -(-num_frames // chunk))


def _forward_chunks(
    lattice: Lattice, emissions: Emissions, plan: Plan
) -> tuple[State, Total, Int[Array, " C"], State]:
    """Run alpha over all chunks; return its end, and each chunk's start and state."""
    zero = _zero(lattice, emissions)
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


def _products(
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
    may_follow = jnp.pad(lattice.can_skip[:, 1:], ((0, 0), (0, 1)))  # of label[n+1]
    may_follow = may_follow[:, : lattice.can_skip.shape[1]]  # U may be 0

    def step(beta: State, xs: tuple) -> tuple[State, Product]:
        emission, alpha = xs
        product = Product(
            *(_multiply(a, b, scale) for a, b in zip(alpha, beta, strict=True))
        )
        return _retreat(may_follow, beta, emission), product

    return _sweep(step, beta, (emission, alphas), plan, reverse=True)


def _multiply(
    alpha: Extended, beta: Extended, scale: Int[Array, "B 1"]
) -> Float[Array, "B n"]:
    """Return alpha * beta / 2**scale, at most about 2 where the utterance is alive."""
    significand = alpha.significand * beta.significand
    # Two ZEROs less a positive scale would leave int32.
    exponent = jnp.maximum(alpha.exponent + beta.exponent, ZERO) - scale
    return significand * extended.power_of_two(exponent, significand.dtype)


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


def _retreat(may_follow: Bool[Array, "B U"], beta: State, emission: Emission) -> State:
    """Return beta of the frame before, given this frame's emission.

    With b = p_t(blank) * blank and l = p_t(labels) * label:
    blank'[n] = b[n] + l[n]
    label'[n] = l[n] + b[n+1] + may_follow[n] * l[n+1]    may_follow[n] = can_skip[n+1]
    """
    blank = extended.times(beta.blank, emission.blank)  # [B, U+1]
    label = extended.times(beta.label, emission.label)  # [B, U]
    here = _pad(label, left=False)  # [B, U+1], no label to follow the last
    skip = extended.select(may_follow, _take(here, slice(1, None)))  # [B, U]
    return State(
        extended.plus(blank, here),
        extended.plus(label, _take(blank, slice(1, None)), skip),
    )


def _posterior(product: Product) -> tuple[Float[Array, "K B"], Float[Array, "K B U"]]:
    """Return each frame's posterior of blank (all n together) and of each label.

    Normalised by each frame's own sum, not by Z: rounding that all states of a frame
    share then cancels. Dead utterances divide by a guarded sum; they are masked later.
    """
    of_blank = jnp.sum(product.blank, axis=-1)
    total = of_blank + jnp.sum(product.label, axis=-1)
    total = jnp.where(total > 0, total, 1)
    return of_blank / total, product.label / total[..., None]


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


def _log_z(
    lattice: Lattice, end: State, total: Total
) -> tuple[Float[Array, " B"], Int[Array, "B 1"]]:
    """Read Z = blank[N] + label[N-1] by a masked maximum; return log Z and its scale.

    With the shifts added back. The scale is Z's exponent without them, which is what
    alpha * beta sums to in every frame; where Z is 0, so large that all products are 0.
    """
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
    z = extended.renormalise(extended.plus(*here))
    log_z = extended.to_log(z) + (total.high + total.low)
    log_z = jnp.where(log_z < LOG_CUTOFF, -jnp.inf, log_z)
    log_z = jnp.where(total.is_bad, jnp.nan, log_z)
    scale = jnp.where(jnp.isfinite(log_z), z.exponent, -ZERO)
    return log_z, scale[:, None]


def _indicator(
    place: Int[Array, " B"], num_states: int, zero: Float[Array, " B"]
) -> Extended:
    """Return 1 in the state at the place given, 0 in the others."""
    one = jnp.ones((1, num_states), zero.dtype) + zero[:, None]  # [B, n]
    return Extended(one, jnp.where(is_at(place, num_states), 0, ZERO))


def _zero(lattice: Lattice, emissions: Emissions) -> Float[Array, " B"]:
    """Return zeros made from the lattice: inside `shard_map` they vary as alpha does.

    A constant would not, and a scan may not start from a constant and then vary; nor
    would the scores do, whose classes may lie on other devices when alpha does not.
    """
    return jnp.zeros_like(lattice.num_labels, accumulator(emissions.scores.dtype))


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
