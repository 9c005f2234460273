"""Single paths: the most probable one, and samples; both are read from the right."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import Extended
from jax_ctc._recursion.blocked.chunks import (
    RENORM_FRAMES,
    Plan,
    Total,
    forward_chunks,
    log_z,
    make_plan,
    read,
    sweep,
)
from jax_ctc._recursion.blocked.likelihood import alpha_step
from jax_ctc._recursion.blocked.step import (
    Emission,
    State,
    at_end,
    emit,
    initial,
    ways_into,
)
from jax_ctc._recursion.traceback import (
    draw_states,
    follow,
    last_state,
    may_go_back,
    ways_back,
)


def best_path(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Int[Array, "T B"]]:
    """Return the largest log-probability of a path, and that path's states.

    -inf where there is no path, NaN where a frame is bad; states then mean nothing.
    """
    plan = make_plan(problem, normalise=normalise)
    step, start = keep_back(problem), initial(problem)
    end, total, replay = forward_chunks(problem, plan, step, start)

    def visit(
        state: Int[Array, " B"],
        number: Any,
        emission: Emission,
        backs: Int[Array, "K B S"],
    ) -> tuple:
        del number, emission
        return follow(backs, state)

    _, states = replay(visit, best_end(problem, end))
    log_value, _ = log_z(problem, end, total, extended.maximum)
    return log_value, states[: problem.scores.shape[1]]


def extend_path(
    problem: Problem, state: State, total: Total, *, normalise: bool
) -> tuple[State, Total, Int[Array, "T B S"]]:
    """Carry the best paths on through more frames; return their back-pointers too.

    For frames that do not come all at once: start from `initial`, finish by
    `best_end` and `log_z`. The states come out bit for bit as in one piece.
    """
    num_frames = problem.scores.shape[1]
    runs = -(-num_frames // RENORM_FRAMES)
    plan = Plan(RENORM_FRAMES, RENORM_FRAMES * runs, 1, 1, normalise)
    emission, total = read(problem, plan, 0, total)
    state, backs = sweep(keep_back(problem), state, emission, plan)
    return state, total, backs[:num_frames]


def keep_back(problem: Problem) -> Any:
    """Return the step of (max, *), which keeps a back-pointer per state: int8 [B, S].

    Of equally probable ways, stay goes before move, and move before skip: the path
    that was further along.
    """

    def step(alpha: State, emission: Emission) -> tuple[State, jax.Array]:
        ways = ways_into(problem.can_skip, alpha)
        blank, of_blank = extended.best(*ways.blank)
        label, of_label = extended.best(*ways.label)
        backs = jnp.concatenate([of_blank, of_label[:, :-1]], axis=1)
        return emit(State(blank, label), emission), backs

    return step


def best_end(problem: Problem, end: State) -> Int[Array, " B"]:
    """Return the state in which the best path ends."""
    _, backs = extended.best(*ways_into(problem.can_skip, end).blank)
    back = at_end(problem, backs, 0).astype(jnp.int32)
    return jnp.maximum(last_state(problem.num_labels) - back, 0)


def sample_paths(
    problem: Problem, uniforms: Float[Array, "T B N"], *, normalise: bool
) -> tuple[Float[Array, " B"], Int[Array, "T B N"]]:
    """Return log p(labels), and the states of N paths drawn from the posterior.

    Backwards: the predecessor of a state is drawn in proportion to its alpha. One
    number in [0, 1) per frame and path decides.
    """
    plan = make_plan(problem, normalise=normalise)
    step, start = alpha_step(problem.can_skip), initial(problem)
    end, total, replay = forward_chunks(problem, plan, step, start)
    frames = problem.scores.shape[1]
    padding = plan.chunk * plan.num_chunks - frames
    padded = jnp.pad(uniforms, ((0, padding), (0, 0), (0, 0)))

    def choose(row: Extended, state: Int[Array, "B N"]) -> tuple:
        significands = ways_back(row.significand, state)
        exponents = ways_back(row.exponent, state)
        stay, move, skip = map(Extended, significands, exponents)
        may_move, may_skip = may_go_back(problem.can_skip, state)
        move, skip = extended.select(may_move, move), extended.select(may_skip, skip)
        return extended.align(stay, move, skip)[1]

    def visit(
        state: Int[Array, "B N"], number: Any, emission: Emission, alphas: State
    ) -> tuple:
        del emission
        uniform = lax.dynamic_slice_in_dim(padded, number * plan.chunk, plan.chunk)
        rows = jax.tree.map(
            lambda blank, label: jnp.concatenate([blank, label[:, :, :-1]], axis=2),
            *alphas,
        )
        return draw_states(choose, rows, uniform, state)

    last = jnp.broadcast_to(last_state(problem.num_labels)[:, None], padded.shape[1:])
    _, states = replay(visit, last)
    return log_z(problem, end, total)[0], states[:frames]
