"""Time in chunks: how T frames are cut, read, swept over and summed up."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_ctc._lattice import emissions
from jax_ctc._lattice.emissions import LogEmissions
from jax_ctc._lattice.problem import Problem
from jax_ctc._mesh.varying import steady_scan
from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import LOG_CUTOFF, ZERO, Extended
from jax_ctc._numbers.masks import positions
from jax_ctc._numbers.sizes import USUAL_FRAMES, USUAL_LABELS, Size, is_open, usual
from jax_ctc._numbers.two_floats import sum_frames, two_sum
from jax_ctc._recursion.blocked.step import (
    Emission,
    State,
    at_end,
    held,
    pad_last,
    ways_into,
    zeros,
)

RENORM_FRAMES = 24  # at most
_LEAST_CHUNK = 6
_KEEP_BYTES = 4 * 2**20


class Plan(NamedTuple):
    """How T frames are cut and read: static."""

    renorm: int  # frames between two renormalisations, R
    chunk: int  # frames of a chunk, K
    num_chunks: Size  # of one side
    sides: int  # 1: from the left; 2: from both ends at once
    normalise: bool
    is_stretch: bool = False  # more frames lie on other devices; of one side
    unroll: int = 1  # frames in one turn of the innermost loop
    is_wide: bool = False  # a blank's emission is laid out for every n
    by_product: bool = False  # no scatter adds up what the states of a class have


class Total(NamedTuple):
    """The sum of the frames' shifts in two floats, and whether a frame was bad."""

    high: Float[Array, " B"]
    low: Float[Array, " B"]
    is_bad: jax.Array


# How two ways to end become one number: `extended.plus` or `extended.maximum`.
Join: TypeAlias = Callable[..., Extended]
# read(problem, plan, number, total) -> emission, total: one chunk, its shifts added.
Read: TypeAlias = Callable[[Problem, Plan, Any, Total], tuple[Emission, Total]]
# step(carry, emission) -> carry, kept: one frame, and what is kept of it.
Step: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]
# visit(carry, number, emission, kept) -> carry, out: one chunk, all arrays [K, ...].
Visit: TypeAlias = Callable[[Any, Any, Emission, Any], tuple[Any, Any]]
# replay(visit, carry) -> carry, outs: every chunk, the last first, outs [C * K, ...].
Replay: TypeAlias = Callable[[Visit, Any], tuple[Any, Any]]


def make_plan(
    problem: Problem,
    *,
    normalise: bool,
    sides: int = 1,
    least_chunk: int = _LEAST_CHUNK,
    **how: Any,
) -> Plan:
    """Cut T frames so that boundaries and one chunk take the least memory together.

    T / K boundaries of `state` bytes and on each side one chunk of K times `frame`
    bytes: K near sqrt(T * state / frame / sides), in whole runs of R frames once it is
    longer than one. A problem whose alpha and scores are small is one chunk a side, and
    alpha is kept.

    least_chunk: frames of one, but for a problem that has fewer. how: other fields.
    """
    batch, num_frames, num_classes = problem.scores.shape
    num_labels = problem.can_skip.shape[1]
    # Large, as far as anybody can say.
    is_large = is_open(batch, num_frames, num_labels, num_classes)
    # Of one utterance; a batch has so many times as much of everything.
    states = 2 * usual(num_labels, USUAL_LABELS) + 1
    state = 8 * states
    # Classes are left open where they are the labels' own (linear_ctc_loss).
    scores = usual(num_classes, USUAL_LABELS) * max(problem.scores.dtype.itemsize, 4)
    # Of alpha, the product, the emission and scores.
    frame = (8 + 4 + 4) * states + scores
    frames = usual(num_frames, USUAL_FRAMES)
    chunk = -(-frames // sides)
    if is_large or batch * frames * (state + scores) > _KEEP_BYTES:
        least = math.isqrt(frames * state // (frame * sides)) + 1
        chunk = min(max(least, least_chunk), chunk)
        if chunk > RENORM_FRAMES:
            chunk -= chunk % RENORM_FRAMES
    runs = -(-chunk // RENORM_FRAMES)
    renorm = -(-chunk // runs)
    chunk = renorm * runs
    num_chunks = -(-num_frames // (chunk * sides))
    return Plan(renorm, chunk, num_chunks, sides, normalise, **how)


def nothing_yet(problem: Problem) -> Total:
    """Return the total of no frames."""
    zero = zeros(problem)
    return Total(zero, zero, zero != 0)


def read(
    problem: Problem, plan: Plan, number: Int[Array, ""] | int, total: Total
) -> tuple[Emission, Total]:
    """Read a chunk in extended range, and add its shifts to the running total."""
    start = number * plan.chunk
    seen = emissions.look(problem, start, plan.chunk)
    log = emissions.of(seen, normalise=plan.normalise)
    emission = emission_of(log, plan)
    if plan.is_stretch:
        is_past = start + positions(plan.chunk) >= problem.scores.shape[1]
        emission = held(emission, is_past[:, None, None])
    return emission, added(total, log)


def backward_chunks(problem: Problem, plan: Plan, step: Step, end: Any) -> Any:
    """Step through all frames from the right; return the carry before the first."""

    def body(carry: Any, number: Any) -> tuple[Any, None]:
        emission, _ = read(problem, plan, number, nothing_yet(problem))
        return sweep(step, carry, emission, plan, reverse=True)[0], None

    return steady_scan(body, end, positions(plan.num_chunks), reverse=True)[0]


def emission_of(log: LogEmissions, plan: Plan) -> Emission:
    """Return emissions in extended range; none in the place after the last label."""
    label = pad_last(log.label, 0, 1, -jnp.inf)
    blank = jnp.broadcast_to(log.blank, label.shape) if plan.is_wide else log.blank
    return Emission(extended.from_log(blank), extended.from_log(label))


def added(total: Total, log: LogEmissions) -> Total:
    """Return the total with the shifts of a chunk."""
    shift = sum_frames(log.log_shift)
    high, error = two_sum(total.high, shift[0])
    return Total(high, total.low + (error + shift[1]), total.is_bad | log.is_bad)


def forward_chunks(
    problem: Problem, plan: Plan, step: Step, start: Any, read: Read = read
) -> tuple[Any, Total, Replay]:
    """Step through all frames; return the end, and how to replay them in reverse.

    Only the carry at each chunk's start is stored; a replay computes what `step` keeps
    anew, one chunk at a time, without what sums lose. One chunk runs once.
    """
    nothing = nothing_yet(problem)

    def forget(carry: Any, emission: Emission) -> tuple[Any, None]:
        return step(carry, emission)[0], None

    def body(carry: tuple, number: Any) -> tuple:
        state, total = carry
        emission, total = read(problem, plan, number, total)
        end, _ = sweep(forget, state, emission, plan)
        return (end, total), extended.in_tree(extended.careless, state)

    if not is_open(plan.num_chunks) and plan.num_chunks == 1:
        emission, total = read(problem, plan, 0, nothing)
        end, kept = sweep(step, start, emission, plan)
        return end, total, lambda visit, carry: visit(carry, 0, emission, kept)

    numbers = positions(plan.num_chunks)
    (end, total), states = steady_scan(body, (start, nothing), numbers)

    def replay(visit: Visit, carry: Any) -> tuple[Any, Any]:
        def body(carry: Any, xs: tuple) -> tuple[Any, Any]:
            number, state = xs
            emission, _ = read(problem, plan, number, nothing)
            _, kept = sweep(step, state, emission, plan)
            return visit(carry, number, emission, kept)

        carry, outs = steady_scan(body, carry, (numbers, states), reverse=True)
        return carry, _joined(outs)

    return end, total, replay


def sweep(
    step: Step, carry: Any, xs: Any, plan: Plan, *, reverse: bool = False
) -> tuple[Any, Any]:
    """Scan over a chunk, renormalising the carry before every R frames."""

    def run(carry: Any, xs: Any) -> tuple[Any, Any]:
        carry = extended.in_tree(extended.renormalise, carry)
        return steady_scan(step, carry, xs, reverse=reverse, unroll=plan.unroll)

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(plan.chunk // plan.renorm, plan.renorm, *x.shape[1:])

    carry, kept = steady_scan(run, carry, jax.tree.map(split, xs), reverse=reverse)
    return carry, _joined(kept)


def log_z(
    problem: Problem, end: State, total: Total, join: Join = extended.plus
) -> tuple[Float[Array, " B"], Int[Array, "B 1"]]:
    """Read log Z of Z = blank[N] + label[N-1], and the scale of alpha * beta.

    The scale is Z's exponent without the shifts, which is what alpha * beta sums to in
    every frame; where Z is 0, so large that all products are 0.
    """
    z = _sums(problem, end, join)
    log_value = at_end(problem, _nats(z, total), -jnp.inf)
    return _judged(log_value, at_end(problem, z.exponent, ZERO), total)


def log_of(z: Extended, total: Total) -> tuple[Float[Array, " B"], Int[Array, "B 1"]]:
    """Return log Z and the scale of a Z [B, 1]."""
    return _judged(_nats(z, total)[:, 0], z.exponent[:, 0], total)


def _judged(
    log_value: Float[Array, " B"], exponent: Int[Array, " B"], total: Total
) -> tuple[Float[Array, " B"], Int[Array, "B 1"]]:
    log_value = jnp.where(total.is_bad, jnp.nan, log_value)
    return log_value, jnp.where(jnp.isfinite(log_value), exponent, -ZERO)[:, None]


def log_prefixes(problem: Problem, end: State, total: Total) -> Float[Array, "B S"]:
    """Read log(blank[n] + label[n-1]), of the first n labels alone, for every n."""
    log_values = _nats(_sums(problem, end, extended.plus), total)
    return jnp.where(total.is_bad[:, None], jnp.nan, log_values)


def _sums(problem: Problem, end: State, join: Join) -> Extended:
    """Return blank[n] + label[n-1]: as if one more frame followed, sure to be blank."""
    return extended.renormalise(join(*ways_into(problem.can_skip, end).blank))


def _nats(z: Extended, total: Total) -> Float[Array, "B S"]:
    """Return log z with the shifts added back, -inf beyond the cut-off."""
    high, low = extended.to_log(z)
    log_value, lost = two_sum(high, total.high[:, None])
    log_value = log_value + (lost + (low + total.low[:, None]))
    is_none = extended.is_zero(z) | (log_value < LOG_CUTOFF)
    return jnp.where(is_none, -jnp.inf, log_value)


def _joined(rows: Any) -> Any:
    """Return [C, K, ...] as [C * K, ...]."""
    return jax.tree.map(
        lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), rows
    )
