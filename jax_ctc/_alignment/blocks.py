"""Frames that come block by block: each block checked, and all cut to one size."""

from collections.abc import Iterable, Iterator

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
    like = None
    for number, chunk in enumerate(chunks):
        name = f"chunks[{number}]"
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
        # As `jit` would: float64 is float32 unless x64 is on.
        block = block.astype(jax.dtypes.canonicalize_dtype(block.dtype), copy=False)
        if block.ndim != 2:
            raise ValueError(
                f"`{name}` must be [t, V], frames and classes of one recording; got"
                f" shape {block.shape}"
            )
        like = block if like is None else like
        if block.shape[1] != like.shape[1]:
            raise ValueError(
                f"`{name}` must have the V={like.shape[1]} classes of the blocks before"
                f" it; got shape {block.shape}"
            )
        if block.dtype != like.dtype:
            raise TypeError(
                f"`{name}` must have the dtype of the blocks before it, {like.dtype};"
                f" got {block.dtype}"
            )
        yield block


def recut(blocks: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """Yield blocks of BLOCK_FRAMES rows and how many are frames; the last is padded.

    One padded block comes even where there are no frames at all.
    """
    waiting = None
    for block in blocks:
        waiting = block if waiting is None else np.concatenate([waiting, block])
        while len(waiting) > BLOCK_FRAMES:
            yield waiting[:BLOCK_FRAMES], BLOCK_FRAMES
            waiting = waiting[BLOCK_FRAMES:]
    if waiting is not None:
        padding = ((0, BLOCK_FRAMES - len(waiting)), (0, 0))
        yield np.pad(waiting, padding), len(waiting)
