"""The same problem over the few classes that its lattice needs.

A lattice reads U + 1 classes of a frame, and of all others only what they add to its
normaliser. Where all classes are not at hand at once (they lie on several devices, each
of which holds V of them), the recursion is given a vocabulary of its own:

    max_t     = max over all classes                             pmax, [B, T]
    rest_t    = sum over all but the best of exp(score - max_t)  psum, [B, T]
    needed_ts = score of the class that state s emits            psum, [B, T, U+1]

    scores'[t, s] = needed_ts - best_t           best_t = max_s needed_ts
    log p(labels) = log p'(labels) + sum_t (best_t - max_t - log(1 + rest_t))

Every device runs the same recursion on it, and nothing of size V ever leaves a device:
JAX's derivative of these lines writes the gradient of a class where the class lies.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jax_ctc._lattice import normaliser
from jax_ctc._lattice.emissions import best_of, log_shift
from jax_ctc._lattice.frames import gather
from jax_ctc._lattice.normaliser import Normaliser
from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers.masks import is_inside, positions
from jax_ctc._numbers.precision import accumulator


def needed_classes(
    problem: Problem, vocab_axes: tuple[str, ...], *, normalise: bool
) -> tuple[Problem, Float[Array, "B T"]]:
    """Return the problem over its own classes, and each frame's log shift.

    Its scores are to be taken as they are. Frames that are bad are NaN.
    """
    own = functools.partial(_needed, vocab_axes=vocab_axes, normalise=normalise)
    # Differentiated, what has the size of the scores is computed again, not kept.
    scores, shift = jax.checkpoint(own)(problem)
    ids = jnp.zeros_like(problem.ids) + positions(problem.ids.shape[1], 2)
    return problem._replace(scores=scores, ids=ids), shift


def _needed(
    problem: Problem, *, vocab_axes: tuple[str, ...], normalise: bool
) -> tuple[Float[Array, "B T S+1"], Float[Array, "B T"]]:
    scores = problem.scores.astype(accumulator(problem.scores.dtype))
    num_frames, num_classes = scores.shape[1:]
    is_live = is_inside(problem.logit_lengths, num_frames)  # [B, T]

    # Not every backend's maximum over devices keeps NaN; all of them keep +inf.
    peak = lax.stop_gradient(jnp.max(scores, axis=2))
    peak = lax.pmax(jnp.where(jnp.isnan(peak), jnp.inf, peak), vocab_axes)
    is_bad = is_live & ~jnp.isfinite(peak)
    # A `where` on a result still sends 0 * NaN through the side not taken, so padding
    # and bad frames are replaced before any arithmetic.
    is_read = is_live & ~is_bad
    peak = jnp.where(is_read, peak, 0)
    scores = jnp.where(is_read[:, :, None], scores, 0)

    own_ids = problem.ids - lax.axis_index(vocab_axes) * num_classes
    is_own = (own_ids >= 0) & (own_ids < num_classes)
    needed = gather(scores, jnp.clip(own_ids, 0, num_classes - 1))
    needed = lax.psum(jnp.where(is_own[:, None, :], needed, 0), vocab_axes)
    here = None
    if normalise:
        parts = normaliser.below_and_peaks(scores, peak)
        here = Normaliser(peak, normaliser.rest(*lax.psum(parts, vocab_axes)))

    best = best_of(needed)
    small = jnp.where(is_bad[:, :, None], jnp.nan, needed - best[:, :, None])
    # One more class, which no state emits: a frame whose needed classes are all -inf is
    # impossible, and not bad.
    small = jnp.pad(small, ((0, 0), (0, 0), (0, 1)))
    return small, jnp.where(is_read, log_shift(best, here), 0)
