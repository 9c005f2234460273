"""Single paths: the most probable one, and samples; both are read from the right."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._lattice.protocol import Emissions
from jax_ctc._lattice.topology import Lattice
from jax_ctc._numbers import extended
from jax_ctc._numbers.extended import Extended
from jax_ctc._recursion.blocked.chunks import (
    RENORM_FRAMES,
    Plan,
    Total,
    ends,
    forward_chunks,
    log_z,
    make_plan,
    read,
    sweep,
)
from jax_ctc._recursion.blocked.product import keep_alpha
from jax_ctc._recursion.blocked.step import (
    Emission,
    State,
    initial,
    ways_into,
    zeros,
)
from jax_ctc._recursion.traceback import (
    draw_states,
    follow,
    last_state,
    may_go_back,
    ways_back,
)


def best_path(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Int[Array, "T B"]]:
    """Return the largest log-probability of a path, and that path's states.

    -inf where there is no path, NaN where a frame is bad; states then mean nothing.
    """
    plan, zero = make_plan(lattice, emissions), zeros(emissions)
    end, total, replay = forward_chunks(
        emissions, plan, keep_back(lattice), initial(lattice, zero), zero
    )

    def visit(
        state: Int[Array, " B"], start: Any, emission: Emission, backs: jax.Array
    ) -> tuple:
        del start, emission
        return follow(backs, state)

    _, states = replay(visit, best_end(lattice, end))
    log_value, _ = log_z(lattice, end, total, extended.maximum)
    return log_value, states[: emissions.num_frames]


def extend_path(
    lattice: Lattice, emissions: Emissions, state: State, total: Total
) -> tuple[State, Total, Int[Array, "T B S"]]:
    """Carry the best paths on through more frames; return their back-pointers too.

    For frames that do not come all at once: start from `initial`, finish by
    `best_end` and `log_z`. The states come out bit for bit as in one piece.
    """
    blocks = -(-emissions.num_frames // RENORM_FRAMES)
    plan = Plan(RENORM_FRAMES, RENORM_FRAMES * blocks, 1)
    emission, total = read(emissions, 0, plan, total)
    state, backs = sweep(keep_back(lattice), state, emission, plan)
    return state, total, backs[: emissions.num_frames]


def keep_back(lattice: Lattice) -> Any:
    """Return the step of (max, *), which keeps a back-pointer per state: int8 [B, S].

    Of equally probable ways, stay goes before move, and move before skip: the path
    that was further along.
    """

    def step(alpha: State, emission: Emission) -> tuple[State, jax.Array]:
        ways = ways_into(lattice, alpha)
        blank, of_blank = extended.best(*ways.blank)
        label, of_label = extended.best(*ways.label)
        alpha = State(
            extended.times(blank, emission.blank), extended.times(label, emission.label)
        )
        return alpha, jnp.concatenate([of_blank, of_label], axis=1)

    return step


def best_end(lattice: Lattice, end: State) -> Int[Array, " B"]:
    """Return the state in which the best path ends."""
    _, back = extended.best(*ends(lattice, end))
    return jnp.maximum(last_state(lattice.num_labels) - back.astype(jnp.int32), 0)


def sample_paths(
    lattice: Lattice, emissions: Emissions, uniforms: Float[Array, "T B N"]
) -> tuple[Float[Array, " B"], Int[Array, "T B N"]]:
    """Return log p(labels), and the states of N paths drawn from the posterior.

    Backwards: the predecessor of a state is drawn in proportion to its alpha. One
    number in [0, 1) per frame and path decides.
    """
    plan, zero = make_plan(lattice, emissions), zeros(emissions)
    end, total, replay = forward_chunks(
        emissions, plan, keep_alpha(lattice), initial(lattice, zero), zero
    )
    frames = emissions.num_frames
    padding = plan.chunk * plan.num_chunks - frames
    padded = jnp.pad(uniforms, ((0, padding), (0, 0), (0, 0)))

    def choose(row: Extended, state: Int[Array, "B N"]) -> tuple:
        significands = ways_back(row.significand, state)
        exponents = ways_back(row.exponent, state)
        stay, move, skip = map(Extended, significands, exponents)
        may_move, may_skip = may_go_back(lattice.can_skip, state)
        move, skip = extended.select(may_move, move), extended.select(may_skip, skip)
        return extended.align(stay, move, skip)[1]

    def visit(
        state: Int[Array, "B N"], start: Any, emission: Emission, alphas: State
    ) -> tuple:
        del emission
        chunk = lax.dynamic_slice_in_dim(padded, start, plan.chunk)
        rows = jax.tree.map(lambda *x: jnp.concatenate(x, axis=2), *alphas)
        return draw_states(choose, rows, chunk, state)

    last = jnp.broadcast_to(last_state(lattice.num_labels)[:, None], padded.shape[1:])
    _, states = replay(visit, last)
    return log_z(lattice, end, total)[0], states[:frames]
