"""Single paths in log space: the most probable one, and samples."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._lattice.emissions import read_all
from jax_ctc._lattice.problem import Problem
from jax_ctc._recursion.scan.step import (
    State,
    advance,
    at_end,
    frames_of,
    initial,
    log_z,
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
    log = read_all(problem, normalise=normalise)

    def step(alpha: State, frame: tuple) -> tuple[State, jax.Array]:
        backs = [_first_of_largest(*ways) for ways in ways_into(problem, alpha)]
        alpha = advance(problem, alpha, frame, _maximum)
        return alpha, jnp.concatenate(backs, axis=1)  # [B, S]

    end, backs = lax.scan(step, initial(problem, log), frames_of(log))
    backs_of_end = _first_of_largest(*ways_into(problem, end).blank)
    back = at_end(problem, backs_of_end, 0).astype(jnp.int32)
    last = jnp.maximum(last_state(problem.num_labels) - back, 0)
    _, states = follow(backs, last)
    log_value = log_z(problem, end, _maximum)
    return jnp.where(log.is_bad, jnp.nan, log_value), states


def sample_paths(
    problem: Problem, uniforms: Float[Array, "T B N"], *, normalise: bool
) -> tuple[Float[Array, " B"], Int[Array, "T B N"]]:
    """Return log p(labels), and the states of N paths drawn from the posterior.

    Backwards: the predecessor of a state is drawn in proportion to its alpha. One
    number in [0, 1) per frame and path decides.
    """
    log = read_all(problem, normalise=normalise)

    def step(alpha: State, frame: tuple) -> tuple[State, jax.Array]:
        alpha = advance(problem, alpha, frame)
        return alpha, jnp.concatenate([alpha.blank, alpha.label], axis=1)

    def choose(row: Float[Array, "B S"], state: Int[Array, "B N"]) -> Any:
        stay, move, skip = ways_back(row, state)
        may_move, may_skip = may_go_back(problem.can_skip, state)
        move = jnp.where(may_move, move, -jnp.inf)
        skip = jnp.where(may_skip, skip, -jnp.inf)
        peak = _maximum(stay, move, skip)
        peak = jnp.where(peak == -jnp.inf, 0, peak)
        return tuple(jnp.exp(way - peak) for way in (stay, move, skip))

    end, alphas = lax.scan(step, initial(problem, log), frames_of(log))
    last = jnp.broadcast_to(last_state(problem.num_labels)[:, None], uniforms.shape[1:])
    _, states = draw_states(choose, alphas, uniforms, last)
    log_value = log_z(problem, end)
    return jnp.where(log.is_bad, jnp.nan, log_value), states


def _maximum(*ways: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.max(jnp.stack(ways), axis=0)


def _first_of_largest(*ways: Float[Array, "..."]) -> Int[Array, "..."]:
    return jnp.argmax(jnp.stack(ways), axis=0).astype(jnp.int8)
