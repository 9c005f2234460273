"""A dictionary on the device: pairs of integers to a number and an integer.

Open addressing: a pair lies at its slot, or in one of the few places after it. Inserted
in the order of their slots, as here, pairs lie as near to these as can be, and a lookup
reads so many places at once, whatever it finds.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

_PROBES = 8  # places that a lookup should read, if a larger table can bring it there


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HashTable:
    """(first, second) -> (value, target).

    Attributes:
        keys: [M, 2] int32, both at least 0; -1 where the place is empty.
        values: [M] float32.
        targets: [M] int32.
        probes: places that a lookup reads.
    """

    keys: Any
    values: Any
    targets: Any
    probes: int = dataclasses.field(metadata={"static": True})

    @staticmethod
    def of(
        first: np.ndarray, second: np.ndarray, values: np.ndarray, targets: np.ndarray
    ) -> "HashTable":
        """Build the table of distinct pairs, at most half full."""
        size = 1 << max(4, int(2 * max(len(first), 1) - 1).bit_length())
        table = _fill(size, first, second, values, targets)
        for _ in range(2):
            if table.probes <= _PROBES:
                break
            size *= 2
            table = _fill(size, first, second, values, targets)
        return table

    def find(
        self, first: Int[Array, "..."], second: Int[Array, "..."]
    ) -> tuple[Bool[Array, "..."], Float[Array, "..."], Int[Array, "..."]]:
        """Return which pairs there are, and their values and targets, else 0."""
        size = self.keys.shape[0] - self.probes
        slot = _slots(first, second, size, jnp).astype(jnp.int32)
        place = slot[..., None] + jnp.arange(self.probes, dtype=jnp.int32).reshape(
            (1,) * slot.ndim + (self.probes,)
        )
        keys = self.keys.at[place].get(mode="promise_in_bounds")  # [..., probes, 2]
        is_it = (keys[..., 0] == first[..., None]) & (keys[..., 1] == second[..., None])
        place = slot + jnp.argmax(is_it, axis=-1).astype(jnp.int32)
        is_found = jnp.any(is_it, axis=-1)
        value = self.values.at[place].get(mode="promise_in_bounds")
        target = self.targets.at[place].get(mode="promise_in_bounds")
        return is_found, jnp.where(is_found, value, 0), jnp.where(is_found, target, 0)


def _fill(
    size: int,
    first: np.ndarray,
    second: np.ndarray,
    values: np.ndarray,
    targets: np.ndarray,
) -> HashTable:
    slots = np.asarray(_slots(first, second, size, np), np.int64)
    order = np.argsort(slots, kind="stable")
    count = np.arange(len(slots))
    # Each at its slot, or right after the one before it.
    place = np.maximum.accumulate(slots[order] - count) + count
    probes = int(np.max(place - slots[order], initial=0)) + 1
    keys = np.full((size + probes, 2), -1, np.int32)
    table = np.zeros(size + probes, np.float32), np.zeros(size + probes, np.int32)
    keys[place, 0], keys[place, 1] = first[order], second[order]
    table[0][place], table[1][place] = values[order], targets[order]
    return HashTable(
        jnp.asarray(keys), jnp.asarray(table[0]), jnp.asarray(table[1]), probes
    )


def _slots(first: Any, second: Any, size: int, xp: Any) -> Any:
    """Return a slot below `size`, a power of two, for each pair."""
    mixed = first.astype(xp.uint32) * np.uint32(0x9E3779B1)
    mixed = mixed ^ (second.astype(xp.uint32) * np.uint32(0x85EBCA6B))
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    mixed = mixed ^ (mixed >> np.uint32(12))
    return mixed & np.uint32(size - 1)
