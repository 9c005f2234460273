"""Time in chunks: how T frames are cut, read, swept over and summed up."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_ctc._lattice.protocol import Emissions
from jax_ctc._lattice.topology import Lattice
from jax_ctc._mesh.varying import steady_scan
from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import LOG_CUTOFF, ZERO, Extended
from jax_ctc._numbers.masks import positions
from jax_ctc._numbers.two_floats import sum_frames, two_sum
from jax_ctc._recursion.blocked.step import Emission, State, final, held

RENORM_FRAMES = 24  # at most
_LEAST_CHUNK = 8
_KEEP_BYTES = 4 * 2**20


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


# How two ways to end become one number: `extended.plus` or `extended.maximum`.
Join: TypeAlias = Callable[..., Extended]
# step(carry, emission) -> carry, kept: one frame, and what is kept of it.
Step: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]
# visit(carry, start, emission, kept) -> carry, out: one chunk, all arrays [K, ...].
Visit: TypeAlias = Callable[[Any, Any, Emission, Any], tuple[Any, Any]]
# replay(visit, carry) -> carry, outs: every chunk from the right, outs [>= T, ...].
Replay: TypeAlias = Callable[[Visit, Any], tuple[Any, Any]]


def make_plan(lattice: Lattice, emissions: Emissions) -> Plan:
    """Cut T frames so that boundaries and one chunk take the least memory together.

    T / K boundaries of `state` bytes and one chunk of K times `frame` bytes: K near
    sqrt(T * state / frame), in whole blocks once it is longer than a block.
    """
    num_frames = emissions.num_frames
    batch, num_labels = lattice.can_skip.shape
    states = batch * (2 * num_labels + 1)
    state = 8 * states
    # Of alpha, the product and the emission; no utterances need no bytes.
    frame = max((8 + 4 + 4) * states + emissions.bytes_per_frame, 1)
    chunk = num_frames
    if num_frames * (state + emissions.bytes_per_frame) > _KEEP_BYTES:
        least = math.isqrt(num_frames * state // frame) + 1
        chunk = min(max(least, _LEAST_CHUNK), num_frames)
        if chunk > RENORM_FRAMES:
            chunk -= chunk % RENORM_FRAMES
    blocks = -(-chunk // RENORM_FRAMES)
    renorm = -(-chunk // blocks)
    return Plan(renorm, renorm * blocks, -(-num_frames // (renorm * blocks)))


def forward_chunks(
    emissions: Emissions,
    plan: Plan,
    step: Step,
    start: Any,
    zero: Float[Array, " B"],
) -> tuple[Any, Total, Replay]:
    """Step through all frames; return the end, and how to replay them from the right.

    Only the carry at each chunk's left end is stored, and a replay computes what
    `step` keeps anew, one chunk at a time.
    """

    def forget(carry: Any, emission: Emission) -> tuple[Any, None]:
        return step(carry, emission)[0], None

    def body(carry: tuple, start: Any) -> tuple:
        state, total = carry
        emission, total = read(emissions, start, plan, total)
        return (sweep(forget, state, emission, plan)[0], total), state

    ignored = Total(zero, zero, zero != 0)
    if plan.num_chunks == 1:
        emission, total = read(emissions, 0, plan, ignored)
        end, kept = sweep(step, start, emission, plan)
        return end, total, lambda visit, carry: visit(carry, 0, emission, kept)

    starts = positions(plan.num_chunks) * plan.chunk
    (end, total), boundaries = steady_scan(body, (start, ignored), starts)

    def replay(visit: Visit, carry: Any) -> tuple[Any, Any]:
        def body(carry: Any, chunk: tuple) -> tuple[Any, Any]:
            start, boundary = chunk
            emission, _ = read(emissions, start, plan, ignored)
            _, kept = sweep(step, boundary, emission, plan)
            return visit(carry, start, emission, kept)

        carry, outs = steady_scan(body, carry, (starts, boundaries), reverse=True)
        return carry, _joined(outs)

    return end, total, replay


def backward_chunks(
    emissions: Emissions, plan: Plan, step: Step, end: Any, zero: Float[Array, " B"]
) -> Any:
    """Step through all frames from the right; return the carry before the first."""
    ignored = Total(zero, zero, zero != 0)

    def body(carry: Any, start: Any) -> tuple[Any, None]:
        emission, _ = read(emissions, start, plan, ignored)
        return sweep(step, carry, emission, plan, reverse=True)[0], None

    starts = positions(plan.num_chunks) * plan.chunk
    return steady_scan(body, end, starts, reverse=True)[0]


def read(
    emissions: Emissions, start: Any, plan: Plan, total: Total
) -> tuple[Emission, Total]:
    """Read a chunk in extended range, and add its shifts to the running total."""
    log = emissions.read(start, plan.chunk)
    shift = sum_frames(log.log_shift)
    high, error = two_sum(total.high, shift[0])
    total = Total(high, total.low + (error + shift[1]), total.is_bad | log.is_bad)
    emission = Emission(extended.from_log(log.blank), extended.from_log(log.label))
    if emissions.time_axes:
        emission = held(emission, start + positions(plan.chunk) >= emissions.num_frames)
    return emission, total


def sweep(
    step: Step, carry: Any, xs: Any, plan: Plan, *, reverse: bool = False
) -> tuple[Any, Any]:
    """Scan over a chunk, renormalising the carry before every R frames."""

    def block(carry: Any, xs: Any) -> tuple[Any, Any]:
        return steady_scan(step, _renormalised(carry), xs, reverse=reverse)

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(plan.chunk // plan.renorm, plan.renorm, *x.shape[1:])

    carry, kept = steady_scan(block, carry, jax.tree.map(split, xs), reverse=reverse)
    return carry, _joined(kept)


def log_z(
    lattice: Lattice, end: State, total: Total, join: Join = extended.plus
) -> tuple[Float[Array, " B"], Int[Array, "B 1"]]:
    """Read Z = blank[N] + label[N-1] by a masked maximum; return log Z and its scale.

    With the shifts added back. The scale is Z's exponent without them, which is what
    alpha * beta sums to in every frame; where Z is 0, so large that all products are 0.
    """
    z = extended.renormalise(join(*ends(lattice, end)))
    log_value = extended.to_log(z) + (total.high + total.low)
    log_value = jnp.where(log_value < LOG_CUTOFF, -jnp.inf, log_value)
    log_value = jnp.where(total.is_bad, jnp.nan, log_value)
    scale = jnp.where(jnp.isfinite(log_value), z.exponent, -ZERO)
    return log_value, scale[:, None]


def ends(lattice: Lattice, end: State) -> tuple[Extended, Extended]:
    """Return blank[N] and label[N-1] of each utterance; 0 where there is no such."""
    blank, label = (
        Extended(
            jnp.max(jnp.where(mark.exponent == 0, row.significand, 0), -1, initial=0),
            jnp.max(
                extended.select(mark.exponent == 0, row).exponent, -1, initial=ZERO
            ),
        )
        for row, mark in zip(
            end,
            final(lattice, jnp.zeros_like(end.blank.significand[:, 0])),
            strict=True,
        )
    )
    return blank, label


def _joined(rows: Any) -> Any:
    """Return [C, K, ...] as [C * K, ...]."""
    return jax.tree.map(
        lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), rows
    )


def _renormalised(carry: Any) -> Any:
    """Renormalise the extended-range numbers in a carry; leave the rest."""
    return jax.tree.map(
        lambda x: extended.renormalise(x) if isinstance(x, Extended) else x,
        carry,
        is_leaf=lambda x: isinstance(x, Extended),
    )
