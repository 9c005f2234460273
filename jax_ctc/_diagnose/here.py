"""What this process has of a step: its status on the way to the host, and its rows.

No arithmetic on a device: a step's arrays may be sharded over the batch, come from
`pmap`, or lie elsewhere than those of the step before, and not every backend reduces
over devices what is wanted. Nor a collective: some other process may not look on.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np


class Status:
    """The status bits of one step, those of this process, on their way to the host."""

    def __init__(self, status: Any) -> None:
        """Start the copies."""
        self._parts = list(parts(status))
        for part in self._on_devices():
            part.copy_to_host_async()

    def is_here(self) -> bool:
        """Tell whether reading it would not wait."""
        return all(part.is_ready() for part in self._on_devices())

    def is_flagged(self, rows: np.ndarray | None) -> bool:
        """Tell whether a bit is set, in some rows of the leading axis or in all."""
        return any(
            bool(_among(np.asarray(part), start, rows).any())
            for start, part in self._parts
        )

    def _on_devices(self) -> Iterator[Any]:
        return (part for _, part in self._parts if not isinstance(part, np.ndarray))


def parts(array: Any) -> Iterator[tuple[int, Any]]:
    """Yield what is here of an array, and the row where each part of it starts.

    What came on the host is copied: it may be filled anew.
    """
    if not isinstance(array, jax.Array):
        yield 0, np.array(array)
    elif array.is_fully_addressable:
        yield 0, array
    else:
        for shard in _distinct(array):
            yield (shard.index[0].start or 0) if shard.index else 0, shard.data


def own_rows(logits: Any) -> np.ndarray | None:
    """Return which rows of the leading axis are here, or None if everything is."""
    if not isinstance(logits, jax.Array) or logits.is_fully_addressable:
        return None
    place = np.arange(logits.shape[0])
    return np.unique(
        np.concatenate([place[shard.index[0]] for shard in logits.addressable_shards])
    )


def fetch(batch: tuple[Any, ...], rows: np.ndarray | None) -> tuple[Any, ...]:
    """Return a batch, or some rows of it, on the host; may wait.

    Raises:
        ValueError: a row lies on several processes, which no process can look at.
    """
    if rows is None:
        return jax.device_get(batch)
    return tuple(None if array is None else _rows(array, rows) for array in batch)


def _rows(array: Any, rows: np.ndarray) -> np.ndarray:
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return np.asarray(array)[rows]
    found = np.empty((len(rows), *array.shape[1:]), array.dtype)
    size = np.zeros(len(rows), np.int64)  # how much of each row has been found
    for shard in _distinct(array):
        first, *others = shard.index
        there = np.arange(array.shape[0])[first]
        wanted = np.isin(there, rows)
        place = np.searchsorted(rows, there[wanted])
        found[(place, *others)] = np.asarray(shard.data)[wanted]
        size[place] += np.prod(shard.data.shape[1:], dtype=np.int64)
    if (size < np.prod(array.shape[1:], dtype=np.int64)).any():
        raise ValueError(
            "an utterance is spread over several processes, or its arrays are: give the"
            " watch arrays that are sharded over the batch alone"
        )
    return found


def _distinct(array: jax.Array) -> Iterator[Any]:
    """Yield the shards of this process, of copies the first."""
    seen = set()
    for shard in array.addressable_shards:
        if str(shard.index) not in seen:
            seen.add(str(shard.index))
            yield shard


def _among(values: np.ndarray, start: int, rows: np.ndarray | None) -> np.ndarray:
    if rows is None or values.ndim == 0:
        return values
    return values[np.isin(start + np.arange(len(values)), rows)]
