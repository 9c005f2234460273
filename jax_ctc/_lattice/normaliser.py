"""What the scores of a frame are normalised by.

    peak_t = max_v scores[t, v]
    rest_t = sum over the classes but the best of exp(scores[t, v] - peak_t)

    log p_t(v) = (scores[t, v] - peak_t) - log(1 + rest_t)
    p_t(v)     = exp(scores[t, v] - peak_t) / (1 + rest_t)

Subtracted in this order, logits that are offset by 1e4 cost nothing: peak + log would
round first. And a sum over all classes would round the 1 of the best one: of a model
that is sure, the rest is all there is to the loss, and log1p keeps its digits.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice.frames import rows_of, rows_of_chunk
from jax_ctc._numbers.masks import positions
from jax_ctc._numbers.sizes import USUAL_BATCH, USUAL_LABELS, is_open, usual

_CHUNK_BYTES = 2**18


class Normaliser(NamedTuple):
    """Of each frame; NaN or infinite where its scores are."""

    peak: Float[Array, "..."]
    rest: Float[Array, "..."]


def of(scores: Float[Array, "... V"]) -> Normaliser:
    """Return the normalisers of scores in the precision to compute in.

    The peak is a constant to JAX, and exp(0) - 1 is exactly 0: so the rest has the
    value above, and the derivatives, of any order, of the sum over all classes.
    """
    peak = lax.stop_gradient(jnp.max(scores, axis=-1))
    return Normaliser(peak, rest(*below_and_peaks(scores, peak)))


def of_all(scores: Float[Array, "B T V"]) -> Normaliser:
    """Return the normalisers of all frames, without derivatives.

    A quarter of a megabyte at a time: XLA on CPU stores what two sums share, and
    would widen all scores of half precision at once. But two frames at least: cut one
    by one, a TPU's compiler would turn all scores round first.
    """
    scores, num_frames = lax.stop_gradient(scores), scores.shape[1]
    batch = usual(scores.shape[0], USUAL_BATCH)
    frame_bytes = max(4 * batch * usual(scores.shape[2], USUAL_LABELS), 1)
    chunk = max(_CHUNK_BYTES // frame_bytes, 2)
    if not is_open(num_frames) and num_frames <= chunk:
        return of(rows_of(scores, 0, num_frames))

    def look(start: Int[Array, ""]) -> Normaliser:
        first, size = rows_of_chunk(start, chunk, num_frames)
        return of(rows_of(scores, first, size))

    # The last chunk reaches back over its neighbour's frames.
    found = lax.map(look, positions(-(-num_frames // chunk)) * chunk)  # [C, B, K]
    repeated = -num_frames % chunk

    def join(x: Float[Array, "C B K"]) -> Float[Array, "B T"]:
        if is_open(num_frames):  # cut where, nobody can say yet
            frame = positions(num_frames)
            first, _ = rows_of_chunk(frame // chunk * chunk, chunk, num_frames)
            return x.at[frame // chunk, :, frame - first].get(mode="clip").T
        whole = jnp.moveaxis(x[:-1], 0, 1).reshape(x.shape[1], -1)
        return jnp.concatenate([whole, x[-1, :, repeated:]], axis=1)

    return Normaliser(*map(join, found))


def below_and_peaks(
    scores: Float[Array, "... V"], peak: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return the sum of exp(score - peak) below the peak, and how many reach it."""
    above = scores - peak[..., None]
    is_peak = (above == 0).astype(scores.dtype)
    return jnp.sum(jnp.exp(above) - is_peak, axis=-1), jnp.sum(is_peak, axis=-1)


def rest(below: Float[Array, "..."], peaks: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the rest: what is below the peak, and each tie but the first."""
    return below + (peaks - 1)


def softmax(scores: Float[Array, "... V"], here: Normaliser) -> Float[Array, "... V"]:
    """Return p_t(v)."""
    peak, rest = (x[..., None] for x in here)
    return jnp.exp(scores - peak) / (1 + rest)


def is_good(here: Normaliser) -> Bool[Array, "..."]:
    """Tell which frames hold neither NaN nor +inf, nor -inf only."""
    return jnp.isfinite(here.peak) & jnp.isfinite(here.rest)
