"""A state that passes through the devices of a mesh axis, one of them at a time.

In turn k of D, device k runs and hands on what it got; the others wait. Two legs in
opposite directions share the turns: while device k runs the one, device D - 1 - k runs
the other.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jax_ctc._mesh.varying import anywhere, vary_alike
from jax_ctc._numbers.masks import positions


class Leg(NamedTuple):
    """What each device does to the state, where it starts, and from which end."""

    run: Callable[[Any], Any]
    start: Any
    reverse: bool = False


def relay(*legs: Leg, axes: tuple[str, ...]) -> list[tuple[Any, Any]]:
    """Return, per leg, the state that came to this device, and the last one's end.

    The end is the same on all devices.
    """
    num_devices = lax.axis_size(axes)
    places = [
        num_devices - 1 - lax.axis_index(axes) if leg.reverse else lax.axis_index(axes)
        for leg in legs
    ]

    def turn(carry: list, number: Any) -> tuple[list, None]:
        states, entries = [], []
        for leg, place, (state, entry) in zip(legs, places, carry, strict=True):
            is_turn = number == place
            entries.append(_where(is_turn, state, entry))
            states.append(lax.cond(is_turn, leg.run, lambda state: state, state))
        # Not before both legs have run: whoever hands on waits for its neighbours.
        states = lax.optimization_barrier(states)
        states = [
            _hand_on(state, axes, leg.reverse)
            for leg, state in zip(legs, states, strict=True)
        ]
        return list(zip(states, entries, strict=True)), None

    starts = [_vary(leg.start, axes) for leg in legs]
    carry = [(start, start) for start in starts]
    carry, _ = lax.scan(turn, carry, positions(num_devices))
    # The last device hands on to the first.
    return [
        (entry, jax.tree.map(lambda x, at=place: _from_first(x, at, axes), state))
        for place, (state, entry) in zip(places, carry, strict=True)
    ]


def _vary(state: Any, axes: tuple[str, ...]) -> Any:
    """Let a state that is the same on all devices become another on each."""
    leaves, tree = jax.tree.flatten(state)
    *leaves, _ = vary_alike(*leaves, lax.axis_index(axes))
    return jax.tree.unflatten(tree, leaves)


def _where(condition: Any, state: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), state, other)


def _hand_on(state: Any, axes: tuple[str, ...], reverse: bool) -> Any:
    """Send the state to the neighbour, the last device's to the first."""
    num_devices = lax.axis_size(axes)
    pairs = [(d, (d + 1) % num_devices) for d in range(num_devices)]
    if reverse:
        pairs = [(receiver, sender) for sender, receiver in pairs]
    return lax.ppermute(state, axes, pairs)


def _from_first(x: Any, place: Any, axes: tuple[str, ...]) -> Any:
    if x.dtype == bool:
        return anywhere(x & (place == 0), axes)
    return lax.psum(jnp.where(place == 0, x, 0), axes)
