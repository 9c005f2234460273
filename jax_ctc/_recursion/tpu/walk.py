"""All frames of a batch, some hundred at a time: read, walked through, written.

XLA reads a chunk's scores and lays them out, a kernel walks through its frames, and on
the way back XLA writes its gradient. Kept of alpha: a column for every block of frames.
The last chunk's rows reach back over frames of its neighbour, which it only holds; on
the way back the neighbour writes over them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_ctc._lattice import emissions, normaliser
from jax_ctc._lattice.normaliser import Normaliser
from jax_ctc._lattice.problem import Problem
from jax_ctc._mesh.varying import steady_scan, vary_alike
from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import ZERO, Extended
from jax_ctc._numbers.masks import positions
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
    return _alpha(problem, plan, has_gradient=False)[0]


def forward_backward(
    problem: Problem, *, normalise: bool, **how: Any
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    plan = make_plan(problem, normalise=normalise, **how)
    log_value, scale, kept = _alpha(problem, plan, has_gradient=True)
    is_alive = jnp.isfinite(log_value)
    scale = spread_numbers(scale.T, plan.cut.slots, -ZERO)  # no utterance, no products

    def body(carry: tuple, xs: tuple) -> tuple[tuple, None]:
        (beta, gradient), (start, here, marks) = carry, xs
        first = _first_row(problem, start, plan)
        frames, _ = _read(problem, start, here, plan)
        met, beta = kernels.backward(frames, marks, scale, beta, plan.cut)
        gradient = scores.write(
            problem,
            gradient,
            first,
            here if plan.normalise else None,
            _posterior(met, problem, plan),
            is_alive,
        )
        return (beta, gradient), None

    beta = extended.careful(_pack(final(problem), plan))
    carry = beta, jnp.zeros_like(problem.scores)
    (_, gradient), _ = steady_scan(body, carry, (_starts(plan), *kept), reverse=True)
    return log_value, gradient


def _alpha(
    problem: Problem, plan: Plan, *, has_gradient: bool
) -> tuple[Float[Array, " B"], Int[Array, "B 1"], tuple[Normaliser, Any]]:
    """Return log p(labels), the scale of alpha * beta, and what is kept of chunks.

    Kept are each chunk's normalisers [C, B, K] and, for a gradient, its marks.
    """

    def body(alpha: Extended, start: Any) -> tuple[Extended, tuple]:
        first = _first_row(problem, start, plan)
        here = normaliser.of(scores.rows_of(problem.scores, first, plan.rows))
        frames, shift = _read(problem, start, here, plan)
        alpha, marks = kernels.forward(frames, alpha, plan.cut, has_marks=has_gradient)
        rows = first + positions(plan.rows)
        is_live = rows[None, :] < problem.logit_lengths[:, None]
        return alpha, (shift, emissions.is_bad(here, is_live), here, marks)

    start = extended.careful(_pack(initial(problem), plan))
    end, (shifts, is_bad, *kept) = steady_scan(body, start, _starts(plan))
    high, low = sum_frames(shifts.reshape(-1, shifts.shape[-1]))
    total = Total(high, low, jnp.any(is_bad, axis=0))
    return *log_z(problem, _unpack(end, problem, plan), total), tuple(kept)


def _starts(plan: Plan) -> Int[Array, " C"]:
    return positions(plan.num_chunks) * plan.chunk


def _first_row(problem: Problem, start: Int[Array, ""], plan: Plan) -> Int[Array, ""]:
    """Return the first of the rows that hold a chunk; the last chunk's reach back."""
    return jnp.minimum(start, problem.scores.shape[1] - plan.rows)


def _read(
    problem: Problem, start: Int[Array, ""], here: Normaliser, plan: Plan
) -> tuple[Frames, Float[Array, "K B"]]:
    """Return a chunk as a kernel takes it, and what its frames' scores were shifted by.

    Frames of the neighbour are shifted by 0 here, and held by the kernel.
    """
    slots, first = plan.cut.slots, _first_row(problem, start, plan)
    picked = scores.pick(problem.scores, first, plan.rows, problem.ids)
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
    held, _ = vary_alike((start - first)[None], label)
    can_skip = problem.can_skip.astype(jnp.int32)[None]
    frames = Frames(
        blank=spread_numbers(blank, slots, 0),
        label=spread(label, slots, -jnp.inf),
        can_skip=spread(can_skip, slots, 0)[:, 0],
        first=held,
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
        extended.map_parts(lambda x, _: x[1], both),
    )
