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


def checked(chunks: Blocks) -> Iterator[np.ndarray]:
    """Yield blocks as [t, V] on the host, or raise with the number of the bad one."""
    if isinstance(chunks, jax.Array | np.ndarray) and chunks.ndim == 2:
        raise ValueError(
            f"`chunks` must be an iterable of [t, V] blocks; got one array of shape"
            f" {chunks.shape}. Pass [logits], or use `ctc_align`"
        )
    if not isinstance(chunks, Iterable):
        raise TypeError(
            "`chunks` must be an iterable of [t, V] blocks; got"
            f" {type(chunks).__name__}. For one block pass [logits]"
        )
    like, number = None, 0
    for chunk in chunks:
        name = f"chunks[{number}]"
        block = _block(chunk, name)
        shape, dtype = like = like or (block.shape, block.dtype)
        if block.shape[1] != shape[1]:
            raise ValueError(
                f"`{name}` must have the V={shape[1]} classes of the blocks before it;"
                f" got shape {block.shape}"
            )
        if block.dtype != dtype:
            raise TypeError(
                f"`{name}` must have the dtype of the blocks before it, {dtype}; got"
                f" {block.dtype}"
            )
        # Not by `enumerate`, which holds its last: the memory may serve the next one.
        number += 1  # noqa: SIM113
        del chunk
        yield block
        del block


def _block(chunk: Any, name: str) -> np.ndarray:
    """Return one block as [t, V] on the host, or raise."""
    if np.ndim(chunk) == 1:
        raise ValueError(
            f"`{name}` must be [t, V], frames and classes; got one row of shape"
            f" {np.shape(chunk)}. If `chunks` are all the logits, pass [logits]"
        )
    if isinstance(chunk, Tracer):
        raise TypeError(
            f"`{name}` is traced, but blocks are read on the host: call"
            " `ctc_align_chunks` outside jit"
        )
    block = np.asarray(check_scores(chunk, name=name))
    if block.ndim != 2:
        raise ValueError(
            f"`{name}` must be [t, V], frames and classes of one recording; got"
            f" shape {block.shape}"
        )
    # As `jit` would: float64 is float32 unless x64 is on.
    return block.astype(jax.dtypes.canonicalize_dtype(block.dtype), copy=False)


def recut(blocks: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """Yield blocks of BLOCK_FRAMES rows and how many are frames; the last is padded.

    Copies, each in memory of its own: a loader may fill one buffer again and again. One
    padded block comes even where there are no frames at all.
    """
    rows, filled = None, 0
    for block in blocks:
        rows = _empty_like(block) if rows is None else rows
        while len(block):
            if filled == BLOCK_FRAMES:
                yield rows, filled
                rows, filled = _empty_like(block), 0
            count = min(len(block), BLOCK_FRAMES - filled)
            rows[filled : filled + count] = block[:count]
            block, filled = block[count:], filled + count
        del block
    if rows is not None:
        yield rows, filled


def _empty_like(block: np.ndarray) -> np.ndarray:
    return np.zeros((BLOCK_FRAMES, block.shape[1]), block.dtype)
