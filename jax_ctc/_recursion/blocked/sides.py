"""An utterance from both ends at once: beside alpha, alpha of its mirror image.

In the mirror, labels and frames in reverse, the lattice is the same, and alpha is what
beta is here, the frame's emission included:

    mirrored alpha_t(s) = p_t(s) * beta_t(s)

So one step serves both: in half the turns of a loop, over arrays of two sides
[2, B, ...], alpha comes to the middle from either end. There each has what the other
lacks,

    beta_{m-1}(s) = the sum of mirrored alpha_m over the ways out of s
    Z             = sum_s alpha_{m-1}(s) * beta_{m-1}(s)

and each goes on, as the other's beta, through the frames that the other came by. Where
an operation has a price of its own, however much it computes, that halves it. A plan of
one side goes from the left to the end, where beta is known.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from jax_ctc._lattice import emissions
from jax_ctc._lattice.emissions import LogEmissions, Seen
from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers import extended
from jax_ctc._numbers.sizes import is_open
from jax_ctc._recursion.blocked import chunks
from jax_ctc._recursion.blocked.chunks import (
    Plan,
    Total,
    added,
    emission_of,
    log_of,
    log_z,
)
from jax_ctc._recursion.blocked.step import (
    Emission,
    State,
    careful,
    final,
    initial,
    pad_last,
    ways_into,
)


def can_skip(problem: Problem, plan: Plan) -> Bool[Array, "sides B U"]:
    """Return can_skip of each side.

    can_skip'[n] = can_skip[U - n]: a way has the same two ends.
    """
    first, others = problem.can_skip[:, :1], problem.can_skip[:, 1:]
    mirrored = jnp.concatenate([first, jnp.flip(others, axis=1)], axis=1)
    return jnp.stack([problem.can_skip, mirrored][: plan.sides])


def start(problem: Problem, plan: Plan) -> State:
    """Return alpha before the first frame of each side."""
    ends = initial(problem), initial(problem, is_mirrored=True)
    return together(*(careful(end) for end in ends[: plan.sides]))


def together(*states: State) -> State:
    """Return the states of all sides as one."""
    return jax.tree.map(lambda *x: jnp.stack(x), *states)


def starts_of(plan: Plan, number: Int[Array, ""] | int) -> list[Int[Array, ""] | int]:
    """Return the first frame of each side's chunk, as far from its own end."""
    last = 2 * plan.num_chunks - 1
    return [number * plan.chunk, (last - number) * plan.chunk][: plan.sides]


def is_even(problem: Problem, plan: Plan) -> bool:
    """Tell whether the chunks of all sides have as many frames as there are."""
    num_frames = problem.scores.shape[1]
    covered = plan.sides * plan.num_chunks * plan.chunk
    return not is_open(num_frames) and covered == num_frames


def read(
    problem: Problem, plan: Plan, number: Int[Array, ""] | int, total: Total
) -> tuple[Emission, Total]:
    """Read a chunk of each side, [K, sides, ...], and add their shifts to the total."""
    if plan.sides == 1:
        emission, total = chunks.read(problem, plan, number, total)
        return jax.tree.map(lambda x: x[:, None], emission), total

    def of(seen: Seen) -> LogEmissions:
        return emissions.of(seen, normalise=plan.normalise)

    starts = starts_of(plan, number)
    seen = [emissions.look(problem, start, plan.chunk) for start in starts]
    log = jax.vmap(of)(jax.tree.map(lambda *x: jnp.stack(x), *seen))
    for side in range(plan.sides):
        total = added(total, jax.tree.map(lambda x, side=side: x[side], log))
    log = log._replace(blank=_fold(log.blank), label=_fold(log.label))
    return emission_of(log, plan), total


def meet(
    problem: Problem, plan: Plan, ends: State, total: Total
) -> tuple[Float[Array, " B"], Int[Array, "1 B 1"], State]:
    """Return log Z, its scale, and the beta of each side's last frame."""
    if plan.sides == 1:
        log_value, scale = log_z(problem, _here(ends), total)
        return log_value, scale[None], together(careful(final(problem)))
    ends = State(*map(extended.renormalise, ends))
    ways = ways_into(can_skip(problem, plan), ends)
    moved = State(extended.plus(*ways.blank), extended.plus(*ways.label))
    betas = State(
        extended.map_parts(lambda x, _: _mirror_blank(x[::-1]), moved.blank),
        extended.map_parts(lambda x, zero: _mirror_label(x[::-1], zero), moved.label),
    )
    z = extended.dot(_here(ends), _here(betas))
    log_value, scale = log_of(extended.renormalise(z), total)
    return log_value, scale[None], betas


def _here(state: State) -> State:
    return jax.tree.map(lambda x: x[0], state)


def as_they_lie(
    blank: Float[Array, "K sides B G"], label: Float[Array, "K sides B G"]
) -> list[tuple[Float[Array, "K B G"], Float[Array, "K B G"]]]:
    """Return the rows of each side's frames, none reversed."""
    rows = [(blank[:, 0], label[:, 0])]
    if blank.shape[1] == 2:
        there = blank[::-1, 1], label[::-1, 1]
        rows.append((_mirror_blank(there[0]), _mirror_label(there[1], 0)))
    return rows


def _fold(rows: Shaped[Array, "sides K B G"]) -> Shaped[Array, "K sides B G"]:
    """Return the rows of all sides frame by frame, the second mirrored."""
    here, *there = rows
    return jnp.stack([here, *(lax.rev(row, (0, 2)) for row in there)], axis=1)


def _mirror_blank(row: Shaped[Array, "... G"]) -> Shaped[Array, "... G"]:
    """Return blank'[n] = blank[U - n]."""
    return jnp.flip(row, axis=-1)


def _mirror_label(
    row: Shaped[Array, "... G"], zero: float | int
) -> Shaped[Array, "... G"]:
    """Return label'[n] = label[U - 1 - n]."""
    return pad_last(jnp.flip(row, axis=-1), -1, 1, zero)
