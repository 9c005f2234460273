"""Time in chunks: how T frames are cut, read, swept over and summed up."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc import _extended as extended
from jax_ctc._extended import LOG_CUTOFF, ZERO, Extended
from jax_ctc._mask import positions
from jax_ctc._recursion.blocked.layout import TWO_ROWS, Layout
from jax_ctc._recursion.blocked.step import Emission, State, final, held
from jax_ctc._two_floats import sum_frames, two_sum
from jax_ctc._types import Emissions, Lattice
from jax_ctc._varying import steady_scan

RENORM_FRAMES = 24  # at most
_LEAST_CHUNK = 8
_KEEP_BYTES = 4 * 2**20


class Plan(NamedTuple):
    """How T frames are cut: chunks of `chunk` frames, renormalised every `renorm`."""

    renorm: int
    chunk: int
    num_chunks: int
    layout: Layout = TWO_ROWS


class Total(NamedTuple):
    """The sum of the frames' shifts in two floats, and whether a frame was bad."""

    high: Float[Array, " B"]
    low: Float[Array, " B"]
    is_bad: jax.Array


class Kept(NamedTuple):
    """What `step` kept of each frame of a chunk, and the carry after the last."""

    rows: Any  # [K, ...]
    end: Any


# How two ways to end become one number: `extended.plus` or `extended.maximum`.
Join: TypeAlias = Callable[..., Extended]
# step(carry, emission) -> carry, kept: one frame, and what is kept of it.
Step: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]
# visit(carry, start, emission, kept) -> carry, out: one chunk, all arrays [K, ...].
Visit: TypeAlias = Callable[[Any, Any, Any, "Kept"], tuple[Any, Any]]
# replay(visit, carry) -> carry, outs: every chunk from the right, outs [>= T, ...].
Replay: TypeAlias = Callable[[Visit, Any], tuple[Any, Any]]


def make_plan(
    lattice: Lattice, emissions: Emissions, layout: Layout = TWO_ROWS
) -> Plan:
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
        if chunk > RENORM_FRAMES:
            chunk -= chunk % RENORM_FRAMES
    blocks = -(-chunk // RENORM_FRAMES)
    renorm = -(-chunk // blocks)
    chunk = renorm * blocks
    return Plan(renorm, chunk, -(-num_frames // chunk), layout)


def forward_chunks(
    emissions: Emissions,
    plan: Plan,
    step: Step,
    start: Any,
    zero: Float[Array, " B"],
) -> tuple[Any, Total, Replay]:
    """Step through all frames; return the end, and how to replay them from the right.

    Of many chunks only the carry at their left ends is stored, and a replay computes
    what `step` keeps anew, one chunk at a time. One chunk runs once.
    """
    total = Total(zero, zero, zero != 0)
    if plan.num_chunks == 1:
        emission, total = read(emissions, 0, plan, total)
        end, kept = sweep(step, start, emission, plan)
        kept = Kept(kept, end)
        return end, total, lambda visit, carry: visit(carry, 0, emission, kept)

    starts = positions(plan.num_chunks) * plan.chunk

    def forget(carry: Any, emission: Any) -> tuple[Any, None]:
        return step(carry, emission)[0], None

    def body(carry: tuple, start: Any) -> tuple:
        state, total = carry
        emission, total = read(emissions, start, plan, total)
        end, _ = sweep(forget, state, emission, plan)
        return (end, total), state

    (end, total), boundaries = steady_scan(body, (start, total), starts)

    def replay(visit: Visit, carry: Any) -> tuple[Any, Any]:
        def body(state: tuple, chunk: tuple) -> tuple[tuple, Any]:
            carry, rows = state
            start, boundary = chunk
            emission, _ = read(emissions, start, plan, total)
            end, rows = sweep(step, boundary, emission, plan, into=rows)
            carry, out = visit(carry, start, emission, Kept(rows, end))
            return (carry, rows), out

        first, _ = jax.eval_shape(lambda: read(emissions, 0, plan, total))
        first = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), first
        )
        state = carry, empty_rows(step, end, first, plan)
        state, outs = steady_scan(body, state, (starts, boundaries), reverse=True)
        return state[0], jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outs)

    return end, total, replay


def keep_before(step: Step) -> Step:
    """Return the step that keeps the carry as it was before the frame.

    Before, and not after: XLA on CPU copies what is there, but would compute what the
    step returns a second time to store it. `after` finds the rest.
    """
    return lambda carry, emission: (step(carry, emission)[0], carry)


def after(kept: Kept, frame: Int[Array, ""]) -> Any:
    """Return the carry after a frame of the chunk, given those before each frame."""

    def row(rows: jax.Array, end: jax.Array) -> jax.Array:
        last = rows.shape[0] - 1
        following = jnp.minimum(frame + 1, last)
        here = lax.dynamic_index_in_dim(rows, following, keepdims=False)
        return jnp.where(frame == last, end, here)

    return jax.tree.map(row, *kept)


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
) -> tuple[Any, Total]:
    """Read a chunk in extended range, and add its shifts to the running total."""
    log = emissions.read(start, plan.chunk)
    shift = sum_frames(log.log_shift)
    high, error = two_sum(total.high, shift[0])
    total = Total(high, total.low + (error + shift[1]), total.is_bad | log.is_bad)
    emission = Emission(extended.from_log(log.blank), extended.from_log(log.label))
    if emissions.time_axes:
        emission = held(emission, start + positions(plan.chunk) >= emissions.num_frames)
    return plan.layout.pack_emission(emission), total


def sweep(
    step: Step,
    carry: Any,
    xs: Any,
    plan: Plan,
    *,
    reverse: bool = False,
    into: Any = None,
) -> tuple[Any, Any]:
    """Scan over a chunk, renormalising the carry before every R frames.

    Returns the carry, and what the step kept of each frame: in the rows of `into`, if
    given, which spares filling fresh ones with zeros.
    """
    if into is None:
        into = empty_rows(step, carry, jax.tree.map(lambda x: x[0], xs), plan)

    def write(state: tuple, xs: tuple) -> tuple[tuple, None]:
        carry, rows = state
        x, frame = xs
        carry, kept = step(carry, x)
        rows = jax.tree.map(
            lambda rows, row: lax.dynamic_update_index_in_dim(rows, row, frame, 0),
            rows,
            kept,
        )
        return (carry, rows), None

    def block(state: tuple, xs: Any) -> tuple[tuple, None]:
        carry, rows = state
        carry = _renormalised(carry)
        return steady_scan(
            write, (carry, rows), xs, reverse=reverse, unroll=plan.layout.unroll
        )

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(plan.chunk // plan.renorm, plan.renorm, *x.shape[1:])

    blocks = jax.tree.map(split, (xs, positions(plan.chunk)))
    return steady_scan(block, (carry, into), blocks, reverse=reverse)[0]


def _one_frame(emissions: Emissions, plan: Plan, total: Total) -> Any:
    """Return the shapes of one frame of a chunk."""
    chunk, _ = jax.eval_shape(lambda: read(emissions, 0, plan, total))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), chunk)


def empty_rows(step: Step, carry: Any, x: Any, plan: Plan) -> Any:
    """Return rows of zeros for what the step keeps of each frame."""
    _, kept = jax.eval_shape(step, carry, x)
    return jax.tree.map(
        lambda row: jnp.zeros((plan.chunk, *row.shape), row.dtype), kept
    )


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


def _renormalised(carry: Any) -> Any:
    """Renormalise the extended-range numbers in a carry; leave the rest."""
    return jax.tree.map(
        lambda x: extended.renormalise(x) if isinstance(x, Extended) else x,
        carry,
        is_leaf=lambda x: isinstance(x, Extended),
    )
