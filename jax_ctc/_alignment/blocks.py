"""Frames that come block by block: each block checked, and all cut to one size."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jax_ctc._checks.arrays import check_scores
from jax_ctc._checks.given import Blocks

# One program serves blocks of one size. Long enough to hide the cost of starting it.
BLOCK_FRAMES = 480


def checked(
    chunks: Blocks, *, name: str, function: str, whole: str
) -> Iterator[np.ndarray]:
    """Yield blocks as [t, V] on the host, or raise with the number of the bad one.

    name: of the argument of `function`; whole: what takes all frames at once.
    """
    if isinstance(chunks, jax.Array | np.ndarray) and chunks.ndim == 2:
        raise ValueError(
            f"`{name}` must be an iterable of [t, V] blocks; got one array of shape"
            f" {chunks.shape}. Pass [logits], or use `{whole}`"
        )
    if not isinstance(chunks, Iterable):
        raise TypeError(
            f"`{name}` must be an iterable of [t, V] blocks; got"
            f" {type(chunks).__name__}. For one block pass [logits]"
        )
    like, number = None, 0
    for chunk in chunks:
        here = f"{name}[{number}]"
        block = _block(chunk, here, name=name, function=function, whole=whole)
        shape, dtype = like = like or (block.shape, block.dtype)
        if block.shape[1] != shape[1]:
            raise ValueError(
                f"`{here}` must have the V={shape[1]} classes of the blocks before it;"
                f" got shape {block.shape}"
            )
        if block.dtype != dtype:
            raise TypeError(
                f"`{here}` must have the dtype of the blocks before it, {dtype}; got"
                f" {block.dtype}"
            )
        # Not by `enumerate`, which holds its last: the memory may serve the next one.
        number += 1  # noqa: SIM113
        del chunk
        yield block
        del block


def _block(
    chunk: Any, here: str, *, name: str, function: str, whole: str
) -> np.ndarray:
    """Return one block as [t, V] on the host, or raise."""
    if np.ndim(chunk) == 1:
        raise ValueError(
            f"`{here}` must be [t, V], frames and classes; got one row of shape"
            f" {np.shape(chunk)}. If `{name}` are all the logits, pass [logits]"
        )
    if isinstance(chunk, Tracer):
        raise TypeError(
            f"`{here}` is traced, but blocks are read on the host: call `{function}`"
            f" outside jit, or `{whole}` inside"
        )
    block = np.asarray(check_scores(chunk, name=here))
    if block.ndim != 2:
        raise ValueError(
            f"`{here}` must be [t, V], frames and classes of one recording; got"
            f" shape {block.shape}"
        )
    # As `jit` would: float64 is float32 unless x64 is on.
    return block.astype(jax.dtypes.canonicalize_dtype(block.dtype), copy=False)


def recut(
    blocks: Iterator[np.ndarray], size: int = BLOCK_FRAMES
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield blocks of `size` rows and how many are frames, as soon as they are there.

    Copies, each in memory of its own: a loader may fill one buffer again and again.
    The last one may be padded. One comes even where there are no frames at all.
    """
    rows, filled, is_first = None, 0, True
    for block in blocks:
        rows = _empty_like(block, size) if rows is None else rows
        while len(block):
            count = min(len(block), size - filled)
            rows[filled : filled + count] = block[:count]
            block, filled = block[count:], filled + count
            if filled == size:
                yield rows, size
                rows, filled, is_first = _empty_like(block, size), 0, False
        del block
    if rows is not None and (filled or is_first):
        yield rows, filled


def _empty_like(block: np.ndarray, size: int) -> np.ndarray:
    return np.zeros((size, block.shape[1]), block.dtype)


def nothing_came(name: str) -> ValueError:
    """Return the error of blocks of which there is none."""
    return ValueError(
        f"`{name}` held no block: pass an iterable of [t, V] arrays, at least one (t"
        " may be 0). An iterator that was used before is empty now"
    )
