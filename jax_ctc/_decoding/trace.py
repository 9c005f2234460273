"""From what a search kept of each frame to the labels of its prefixes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jax_ctc._alignment.paths import PADDING
from jax_ctc._mesh.varying import steady_scan


def pack(
    source: Int[Array, "..."], label: Int[Array, "..."], num_classes: int
) -> Int[Array, "..."]:
    """Put a place in the beam and a label, -1 for none, into one number."""
    return source * (num_classes + 1) + label + 1


def unpack(packed: Int[Array | np.ndarray, "..."], num_classes: int) -> tuple[Any, Any]:
    """Undo `pack`, on the device or on the host."""
    return packed // (num_classes + 1), packed % (num_classes + 1) - 1


def read_labels(
    kept: Int[Array, "F B W"],
    place: Int[Array, "B N"],
    lengths: Int[Array, "B N"],
    *,
    num_classes: int,
    max_labels: int,
) -> Int[Array, "B N L"]:
    """Return the labels of the prefixes at some places, padded with -1.

    From the last frame to the first; every label knows its place from how many there
    are still to come.
    """

    def write(row: Any, at: Any, label: Any) -> Any:
        return row.at[at[None]].set(label[None], mode="drop")

    def back(carry: tuple, packed: Int[Array, "B W"]) -> tuple:
        place, left, labels = carry
        here = jnp.take_along_axis(packed, place, axis=1, mode="promise_in_bounds")
        place, label = unpack(here, num_classes)
        left = left - (label >= 0).astype(jnp.int32)
        at = jnp.where(label >= 0, left, max_labels)
        labels = jax.vmap(jax.vmap(write))(labels, at, label)
        return (place, left, labels), None

    empty = jnp.full((*place.shape, max_labels), PADDING, jnp.int32)
    (_, _, labels), _ = steady_scan(back, (place, lengths, empty), kept, reverse=True)
    return labels
