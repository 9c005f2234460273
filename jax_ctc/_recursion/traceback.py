"""From the end of a path to its start: how many states back, frame by frame.

States are numbered along the labels, s = 2n for blank[n] and s = 2n + 1 for label[n].
A path comes to s from s itself (stay), s - 1 (move) or, between labels that differ,
s - 2 (skip), so a step back is the number 0, 1 or 2.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from jax_ctc._mesh.varying import steady_scan


def last_state(num_labels: Int[Array, " B"]) -> Int[Array, " B"]:
    """Return the number of blank[N]; of an utterance without an end, that of blank[0].

    A path ends there or in label[N-1], one state back: as if one more frame followed,
    sure to be blank.
    """
    return 2 * jnp.maximum(num_labels, 0)


def follow(
    backs: Int[Array, "K B S"], state: Int[Array, " B"]
) -> tuple[Int[Array, " B"], Int[Array, "K B"]]:
    """Follow back-pointers through a chunk, from the state in its last frame.

    Returns the state before the chunk, and the state in each of its frames.
    """

    def step(state: Int[Array, " B"], row: Int[Array, "B S"]) -> tuple:
        back = read_states(row, state[:, None])[:, 0]
        return state - back.astype(jnp.int32), state

    return steady_scan(step, state, backs, reverse=True)


def read_states(
    row: Shaped[Array, "B S"], state: Int[Array, "B N"]
) -> Shaped[Array, "B N"]:
    """Return row[b, state[b, n]], of a row that holds all blanks, then all labels.

    One gather per utterance: indexing with arange(B) would make a sharded batch
    gather from every device.
    """
    num_blanks = row.shape[1] // 2 + 1
    place = jnp.where(state % 2 == 1, num_blanks + state // 2, state // 2)

    def utterance(row: jax.Array, place: jax.Array) -> jax.Array:
        return row.at[place].get(mode="promise_in_bounds")

    return jax.vmap(utterance)(row, place)


def ways_back(
    row: Shaped[Array, "B S"], state: Int[Array, "B N"]
) -> tuple[Shaped[Array, "B N"], ...]:
    """Return what a row holds 0, 1 and 2 states back; at the start, its first state."""
    return tuple(read_states(row, jnp.maximum(state - back, 0)) for back in range(3))


def may_go_back(
    can_skip: Bool[Array, "B U"], state: Int[Array, "B N"]
) -> tuple[Bool[Array, "B N"], Bool[Array, "B N"]]:
    """Tell where a path may come from 1 and from 2 states back."""
    is_label = state % 2 == 1
    # One more column, so that the last blank and U = 0 have a place to read.
    skips = jnp.pad(can_skip, ((0, 0), (0, 1)))
    skip = jax.vmap(lambda row, n: row.at[n].get(mode="promise_in_bounds"))(
        skips, state // 2
    )
    return state > 0, is_label & skip


def draw(
    weights: tuple[Float[Array, "B N"], ...], uniform: Float[Array, "B N"]
) -> Int[Array, "B N"]:
    """Return a step back, each with probability proportional to its weight.

    `uniform` is in [0, 1), and so a weight of 0 is never drawn, unless all are 0.
    """
    stay, move, skip = weights
    point = uniform * (stay + move + skip)
    return (point >= stay).astype(jnp.int32) + (point >= stay + move).astype(jnp.int32)


def draw_states(
    choose: Any, rows: Any, uniforms: Float[Array, "K B N"], state: Int[Array, "B N"]
) -> tuple[Int[Array, "B N"], Int[Array, "K B N"]]:
    """Draw the states of a chunk, given the state in the frame after it.

    `choose(row, state)` weighs the ways from a frame's row into a state of the next.
    """

    def step(state: Int[Array, "B N"], xs: tuple) -> tuple:
        row, uniform = xs
        state = jnp.maximum(state - draw(choose(row, state), uniform), 0)
        return state, state

    return steady_scan(step, state, (rows, uniforms), reverse=True)
