"""Frames that come block by block: each block checked, and all cut to one size."""

from collections.abc import Iterable, Iterator

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
    like = None
    for number, chunk in enumerate(chunks):
        here = f"{name}[{number}]"
        if np.ndim(chunk) == 1:
            raise ValueError(
                f"`{here}` must be [t, V], frames and classes; got one row of shape"
                f" {np.shape(chunk)}. If `{name}` are all the logits, pass [logits]"
            )
        if isinstance(chunk, Tracer):
            raise TypeError(
                f"`{here}` is traced, but blocks are read on the host: call"
                f" `{function}` outside jit, or `{whole}` inside"
            )
        block = np.asarray(check_scores(chunk, name=here))
        # As `jit` would: float64 is float32 unless x64 is on.
        block = block.astype(jax.dtypes.canonicalize_dtype(block.dtype), copy=False)
        if block.ndim != 2:
            raise ValueError(
                f"`{here}` must be [t, V], frames and classes of one recording; got"
                f" shape {block.shape}"
            )
        like = block if like is None else like
        if block.shape[1] != like.shape[1]:
            raise ValueError(
                f"`{here}` must have the V={like.shape[1]} classes of the blocks before"
                f" it; got shape {block.shape}"
            )
        if block.dtype != like.dtype:
            raise TypeError(
                f"`{here}` must have the dtype of the blocks before it, {like.dtype};"
                f" got {block.dtype}"
            )
        yield block


def recut(
    blocks: Iterator[np.ndarray], size: int = BLOCK_FRAMES
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield blocks of `size` rows and how many are frames, as soon as they are there.

    The last one may be padded. One comes even where there are no frames at all.
    """
    waiting, is_first = None, True
    for block in blocks:
        waiting = block if waiting is None else np.concatenate([waiting, block])
        while len(waiting) >= size:
            yield waiting[:size], size
            waiting, is_first = waiting[size:], False
    if waiting is not None and (len(waiting) or is_first):
        yield np.pad(waiting, ((0, size - len(waiting)), (0, 0))), len(waiting)


def nothing_came(name: str) -> ValueError:
    """Return the error of blocks of which there is none."""
    return ValueError(
        f"`{name}` held no block: pass an iterable of [t, V] arrays, at least one (t"
        " may be 0). An iterator that was used before is empty now"
    )
