"""All frames of a batch, some hundred at a time: read, walked through, written.

XLA reads a chunk's scores and lays them out, a kernel walks through its frames, and on
the way back XLA writes its gradient. Kept of alpha: a column for every block of frames.
The last chunk's rows reach back over frames of its neighbour, which it only holds; on
the way back the neighbour writes over them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._lattice import emissions
from jax_ctc._lattice.emissions import Source
from jax_ctc._lattice.frames import from_bits, to_bits
from jax_ctc._lattice.normaliser import Normaliser
from jax_ctc._lattice.problem import Problem
from jax_ctc._mesh.varying import steady_scan, vary_alike
from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import ZERO, Extended
from jax_ctc._numbers.masks import is_inside, positions
from jax_ctc._numbers.two_floats import sum_frames
from jax_ctc._recursion.blocked.chunks import Total, log_z
from jax_ctc._recursion.blocked.step import State, final, initial
from jax_ctc._recursion.tpu import kernels, scores
from jax_ctc._recursion.tpu.kernels import Cut, Frames
from jax_ctc._recursion.tpu.slots import (
    collect,
    collect_sums,
    lay_out,
    spread,
    spread_numbers,
)

_BLOCK = 32  # frames of one step of a kernel
_CHUNK = 256  # frames of one call of it, at most
_CHUNK_BYTES = 2**23  # of the scores of a chunk, in float32


class Plan(NamedTuple):
    """How T frames are cut: static."""

    cut: Cut
    chunk: int  # frames of one call, K: whole blocks
    rows: int  # of the scores, for one call: K, or T if that is less
    num_chunks: int
    normalise: bool


def make_plan(problem: Problem, *, normalise: bool, **how: Any) -> Plan:
    """Cut T frames into chunks of about one size, at most so many frames or bytes."""
    batch, num_frames, num_classes = problem.scores.shape
    most = min(_CHUNK, _CHUNK_BYTES // (4 * batch * num_classes))
    most = max(most - most % kernels.TURN, kernels.TURN)
    block = min(_BLOCK, most, _up(num_frames, kernels.TURN))
    chunk = _up(-(-num_frames // -(-num_frames // most)), block)
    cut = Cut(
        lay_out(batch, problem.can_skip.shape[1]),
        block,
        is_ragged=num_frames > chunk and num_frames % chunk > 0,
        **how,
    )
    num_chunks = -(-num_frames // chunk)
    return Plan(cut, chunk, min(chunk, num_frames), num_chunks, normalise)


def _up(size: int, to: int) -> int:
    return -(-size // to) * to


def forward(problem: Problem, *, normalise: bool, **how: Any) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    plan = make_plan(problem, normalise=normalise, **how)
    return _alpha(emissions.source(problem), plan, has_marks=False)[0]


def forward_backward(
    problem: Problem, *, normalise: bool, **how: Any
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    plan = make_plan(problem, normalise=normalise, **how)
    source, slots = emissions.source(problem), plan.cut.slots
    log_value, scale, marks = _alpha(source, plan, has_marks=True)
    is_alive = jnp.isfinite(log_value)
    scale = spread_numbers(scale.T, slots, -ZERO)  # no utterance, no products

    def body(carry: tuple, xs: tuple) -> tuple[tuple, None]:
        (beta, gradient), (start, marks) = carry, xs
        frames, _ = _read(source, start, plan)
        met, beta = kernels.backward(frames, marks, scale, beta, plan.cut)
        gradient = scores.write(
            source,
            gradient,
            _first_row(source, start, plan),
            _posterior(met, problem, plan),
            is_alive,
            normalise=plan.normalise,
        )
        return (beta, gradient), None

    beta = _pack(final(problem), plan)
    gradient = to_bits(jnp.zeros_like(problem.scores))
    (_, gradient), _ = steady_scan(
        body, (beta, gradient), (_starts(plan), marks), reverse=True
    )
    return log_value, from_bits(gradient, problem.scores.dtype)


def _alpha(
    source: Source, plan: Plan, *, has_marks: bool
) -> tuple[Float[Array, " B"], Int[Array, "B 1"], Any]:
    """Return log p(labels), the scale of alpha * beta, and each chunk's marks."""
    problem, found = source

    def body(alpha: Extended, start: Any) -> tuple[Extended, tuple]:
        frames, shift = _read(source, start, plan)
        alpha, marks = kernels.forward(frames, alpha, plan.cut, has_marks=has_marks)
        return alpha, (shift, marks)

    # Rounding is kept account of here alone: log p is what is left of it in the end.
    start = extended.careful(_pack(initial(problem), plan))
    end, (shifts, marks) = steady_scan(body, start, _starts(plan))
    high, low = sum_frames(shifts.reshape(-1, shifts.shape[-1]))
    is_live = is_inside(problem.logit_lengths, problem.scores.shape[1])
    total = Total(high, low, emissions.is_bad(found, is_live))
    return *log_z(problem, _unpack(end, problem, plan), total), marks


def _starts(plan: Plan) -> Int[Array, " C"]:
    return positions(plan.num_chunks) * plan.chunk


def _first_row(source: Source, start: Int[Array, ""], plan: Plan) -> Int[Array, ""]:
    """Return the first of the rows that hold a chunk; the last chunk's reach back."""
    return jnp.minimum(start, source.problem.scores.shape[1] - plan.rows)


def _read(
    source: Source, start: Int[Array, ""], plan: Plan
) -> tuple[Frames, Float[Array, "K B"]]:
    """Return a chunk as a kernel takes it, and what its frames' scores were shifted by.

    Frames of the neighbour are shifted by 0 here, and held by the kernel.
    """
    problem, found = source
    slots, first = plan.cut.slots, _first_row(source, start, plan)
    picked = scores.pick(problem.scores, first, plan.rows, problem.ids)
    here = Normaliser(
        *(lax.dynamic_slice_in_dim(x, first, plan.rows, axis=1) for x in found)
    )
    rows = first + positions(plan.rows)
    log = emissions.lay_out(
        picked[:, :, -1:],
        picked[:, :, :-1],
        here if plan.normalise else None,
        rows[None, :] < problem.logit_lengths[:, None],
    )
    more = (0, plan.chunk - plan.rows)  # as padded frames: sure to be blank
    blank = jnp.pad(log.blank[:, :, 0], (more, (0, 0)))
    label = jnp.pad(log.label, (more, (0, 0), (0, 0)), constant_values=-jnp.inf)
    first, _ = vary_alike((start - first)[None], label)
    can_skip = problem.can_skip.astype(jnp.int32)[None]
    frames = Frames(
        blank=spread_numbers(blank, slots, 0),
        label=spread(label, slots, -jnp.inf),
        can_skip=spread(can_skip, slots, 0)[:, 0],
        first=first,
    )
    return frames, jnp.where(rows[:, None] >= start, log.log_shift, 0)


def _posterior(met: kernels.Met, problem: Problem, plan: Plan) -> Float[Array, "B K S"]:
    """Return the posteriors of the labels, and of all blanks together, of a chunk.

    Each frame is divided by its own sum (see `blocked`'s `normalised`).
    """
    (batch, labels), slots = problem.can_skip.shape, plan.cut.slots
    label, blank, total = (x[:, : plan.rows] for x in met)
    label = collect(label, slots, batch, labels)  # [K, B, U]
    blank, total = (collect_sums(x, slots, batch) for x in (blank, total))  # [K, B]
    total = jnp.where(total > 0, total, 1)
    met = jnp.concatenate([label, blank[:, :, None]], axis=2) / total[:, :, None]
    return jnp.moveaxis(met, 1, 0)


def _pack(state: State, plan: Plan) -> Extended:
    """Lay out a column of the lattice: parts [tiles, 2, registers, 8, 128]."""

    def pack(zero: int, blank: jax.Array, label: jax.Array) -> jax.Array:
        label = jnp.pad(label, ((0, 0), (0, 1)), constant_values=zero)
        return spread(jnp.stack([blank, label]), plan.cut.slots, zero)

    blank, label = state
    return Extended(
        pack(1, blank.significand, label.significand),
        pack(ZERO, blank.exponent, label.exponent),
    )


def _unpack(column: Extended, problem: Problem, plan: Plan) -> State:
    """Undo `_pack`, whatever is lost included."""
    batch, labels = problem.can_skip.shape

    def unpack(x: jax.Array, _: int) -> jax.Array:
        return collect(x, plan.cut.slots, batch, labels + 1)

    both = extended.map_parts(unpack, column)  # [2, B, U+1]
    return State(
        extended.map_parts(lambda x, _: x[0], both),
        extended.map_parts(lambda x, _: x[1, :, :-1], both),
    )
