"""The same problem over the few classes that its lattice needs.

A lattice reads U + 1 classes of a frame, and of all others only what they add to its
normaliser. Where all classes are not at hand at once (they lie on several devices, each
of which holds V of them), the recursion is given a vocabulary of its own:

    max_t     = max over all classes                             [B, T]
    rest_t    = sum over all but the best of exp(score - max_t)  [B, T]
    needed_ts = score of the class that state s emits            [B, T, U+1]

    scores'[t, s] = needed_ts - best_t           best_t = max_s needed_ts
    log p(labels) = log p'(labels) + sum_t (best_t - max_t - log(1 + rest_t))

Every device runs the same recursion on it, and nothing of size V ever leaves a device:
JAX's derivative of these lines writes the gradient of a class where the class lies.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jax_ctc._lattice import normaliser
from jax_ctc._lattice.emissions import best_of, log_shift
from jax_ctc._lattice.frames import gather
from jax_ctc._lattice.normaliser import Normaliser
from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers.masks import is_inside, positions
from jax_ctc._numbers.precision import accumulator

# What all devices know together. Differentiated, these are kept and sent once; what has
# the size of the scores is computed again.
_SHARED = "of all classes"


def needed_classes(
    problem: Problem, vocab_axes: tuple[str, ...], *, normalise: bool
) -> tuple[Problem, Float[Array, "B T"]]:
    """Return the problem over its own classes, and each frame's log shift.

    Its scores are to be taken as they are. Frames that are bad are NaN.
    """
    needed = functools.partial(_needed, vocab_axes=vocab_axes, normalise=normalise)
    policy = jax.checkpoint_policies.save_only_these_names(_SHARED)
    scores, shift = jax.checkpoint(needed, policy=policy)(problem)
    ids = jnp.zeros_like(problem.ids) + positions(problem.ids.shape[1], 2)
    return problem._replace(scores=scores, ids=ids), shift


def _needed(
    problem: Problem, *, vocab_axes: tuple[str, ...], normalise: bool
) -> tuple[Float[Array, "B T _"], Float[Array, "B T"]]:
    scores = problem.scores.astype(accumulator(problem.scores.dtype))
    is_live = is_inside(problem.logit_lengths, scores.shape[1])  # [B, T]

    # Not every backend's maximum over devices keeps NaN; all of them keep +inf.
    peak = lax.stop_gradient(jnp.max(scores, axis=2))
    peak = lax.pmax(jnp.where(jnp.isnan(peak), jnp.inf, peak), vocab_axes)
    peak = checkpoint_name(peak, _SHARED)
    is_bad = is_live & ~jnp.isfinite(peak)
    # A `where` on a result still sends 0 * NaN through the side not taken, so padding
    # and bad frames are replaced before any arithmetic.
    is_read = is_live & ~is_bad
    peak = jnp.where(is_read, peak, 0)
    scores = jnp.where(is_read[:, :, None], scores, 0)

    of_own = _of_own_classes(scores, problem.ids, vocab_axes)
    if normalise:  # one exchange for all sums
        sums = normaliser.below_and_peaks(scores, peak)
        of_own = jnp.concatenate([of_own, jnp.stack(sums, axis=2)], axis=2)
    of_all = checkpoint_name(lax.psum(of_own, vocab_axes), _SHARED)
    here = None
    if normalise:
        rest = normaliser.rest(of_all[:, :, -2], of_all[:, :, -1])
        here = Normaliser(peak, rest)

    needed = of_all[:, :, : problem.ids.shape[1]]
    best = best_of(needed[:, :, -1:], needed[:, :, :-1])
    small = jnp.where(is_bad[:, :, None], jnp.nan, needed - best[:, :, None])
    # One more class, which no state emits: a frame whose needed classes are all -inf is
    # impossible, and not bad.
    small = jnp.pad(small, ((0, 0), (0, 0), (0, 1)))
    return small, jnp.where(is_read, log_shift(best, here), 0)


def _of_own_classes(
    scores: Float[Array, "B T V"], ids: Array, vocab_axes: tuple[str, ...]
) -> Float[Array, "B T S"]:
    """Return the scores of the ids that lie on this device, 0 for all others."""
    num_classes = scores.shape[2]
    own_ids = ids - lax.axis_index(vocab_axes) * num_classes
    is_own = (own_ids >= 0) & (own_ids < num_classes)
    rows = positions(scores.shape[1])
    own = gather(scores, rows, jnp.clip(own_ids, 0, num_classes - 1))
    return jnp.where(is_own[:, None, :], own, 0)
