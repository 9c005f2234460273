"""The same problem over the few classes that its lattice needs.

A lattice reads U + 1 classes of a frame, and of all others only what they add to its
normaliser. Where all classes are not at hand at once (they lie on several devices, each
of which holds V of them), or not all gaps between labels are alike (wildcards.py), the
recursion is given a vocabulary of its own:

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
from jaxtyping import Array, Bool, Float, Int

from jax_ctc._lattice import normaliser
from jax_ctc._lattice.emissions import best_of, log_shift
from jax_ctc._lattice.frames import gather
from jax_ctc._lattice.normaliser import Normaliser
from jax_ctc._lattice.occupancy import SCATTER_CLASSES
from jax_ctc._lattice.problem import Problem
from jax_ctc._lattice.wildcards import Wildcards, over_gaps
from jax_ctc._numbers.derivatives import with_derivative_of
from jax_ctc._numbers.masks import is_at, is_inside, positions
from jax_ctc._numbers.precision import accumulator

# What all devices know together. Differentiated, these are kept and sent once; what has
# the size of the scores is computed again.
_SHARED = "of all classes"


def opened(
    problem: Problem,
    wildcards: Wildcards | None,
    vocab_axes: tuple[str, ...] = (),
    *,
    normalise: bool,
) -> tuple[Problem, Float[Array, "B T"] | None]:
    """Return a problem that recursions can read, and each frame's log shift.

    Without a shift it is the problem as it was; else its scores are to be taken as they
    are.
    """
    if not vocab_axes and wildcards is None:
        return problem, None
    small, shift = needed_classes(problem, vocab_axes, normalise=normalise)
    return (small if wildcards is None else over_gaps(small, shift, wildcards)), shift


def needed_classes(
    problem: Problem, vocab_axes: tuple[str, ...], *, normalise: bool
) -> tuple[Problem, Float[Array, "B T"]]:
    """Return the problem over its own classes, and each frame's log shift.

    Its scores are to be taken as they are. Frames that are bad are NaN.
    """
    needed = functools.partial(_needed, vocab_axes=vocab_axes, normalise=normalise)
    policy = jax.checkpoint_policies.save_only_these_names(_SHARED)
    scores, shift = jax.checkpoint(needed, policy=policy)(problem)
    return over_own_classes(problem, scores), shift


def over_own_classes(problem: Problem, scores: Float[Array, "B T _"]) -> Problem:
    """Return the problem with a class of its own for each state, and their scores."""
    ids = jnp.zeros_like(problem.ids) + positions(problem.ids.shape[1], 2)
    return problem._replace(scores=scores, ids=ids)


def _needed(
    problem: Problem, *, vocab_axes: tuple[str, ...], normalise: bool
) -> tuple[Float[Array, "B T _"], Float[Array, "B T"]]:
    scores = problem.scores.astype(accumulator(problem.scores.dtype))
    is_live = is_inside(problem.logit_lengths, scores.shape[1])  # [B, T]

    peak = lax.stop_gradient(jnp.max(scores, axis=2))
    peak, is_bad = peak_of_all(peak, is_live, vocab_axes)
    # A `where` on a result still sends 0 * NaN through the side not taken, so padding
    # and bad frames are replaced before any arithmetic.
    is_read = (is_live & ~is_bad)[:, :, None]
    scores = jnp.where(is_read, scores, 0)

    of_own = _of_own_classes(scores, problem, vocab_axes)
    of_own = jnp.where(is_read, of_own, 0)
    sums = normaliser.below_and_peaks(scores, peak) if normalise else None
    return small_scores(of_own, peak, sums, is_live, is_bad, vocab_axes)


def peak_of_all(
    peak: Float[Array, "B T"], is_live: Bool[Array, "B T"], vocab_axes: tuple[str, ...]
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """Return the best score of all classes, 0 where none is to be read; who is bad.

    peak: of the classes of this device, a constant to JAX.
    """
    # Not every backend's maximum over devices keeps NaN; all of them keep +inf.
    peak = jnp.where(jnp.isnan(peak), jnp.inf, peak)
    if vocab_axes:
        peak = checkpoint_name(lax.pmax(peak, vocab_axes), _SHARED)
    is_bad = is_live & ~jnp.isfinite(peak)
    return jnp.where(is_live & ~is_bad, peak, 0), is_bad


def small_scores(
    of_own: Float[Array, "B T S"],
    peak: Float[Array, "B T"],
    sums: tuple[Float[Array, "B T"], Float[Array, "B T"]] | None,
    is_live: Bool[Array, "B T"],
    is_bad: Bool[Array, "B T"],
    vocab_axes: tuple[str, ...],
) -> tuple[Float[Array, "B T _"], Float[Array, "B T"]]:
    """Return the scores of the states' own classes, and each frame's log shift.

    of_own: what this device has of the needed scores, 0 for all others. sums: what it
    has below the peak, and how often it reaches it; None: scores are taken as they are.
    """
    num_states = of_own.shape[2]
    if sums is not None:  # one exchange for all sums
        of_own = jnp.concatenate([of_own, jnp.stack(sums, axis=2)], axis=2)
    of_all = of_own
    if vocab_axes:
        of_all = checkpoint_name(lax.psum(of_own, vocab_axes), _SHARED)
    here = None
    if sums is not None:
        rest = normaliser.rest(of_all[:, :, -2], of_all[:, :, -1])
        here = Normaliser(peak, rest)

    needed = of_all[:, :, :num_states]
    best = best_of(needed[:, :, -1:], needed[:, :, :-1])
    small = jnp.where(is_bad[:, :, None], jnp.nan, needed - best[:, :, None])
    # One more class, which no state emits: a frame whose needed classes are all -inf is
    # impossible, and not bad.
    small = jnp.pad(small, ((0, 0), (0, 0), (0, 1)))
    return small, jnp.where(is_live & ~is_bad, log_shift(best, here), 0)


def _of_own_classes(
    scores: Float[Array, "B T V"], problem: Problem, vocab_axes: tuple[str, ...]
) -> Float[Array, "B T S"]:
    """Return the scores of the ids that lie on this device, 0 for all others."""
    ids = problem.ids
    if vocab_axes:
        ids = ids - lax.axis_index(vocab_axes) * scores.shape[2]
    return _pick(bool(vocab_axes), scores, lax.stop_gradient(problem.scores), ids)


def _pick(
    is_shard: bool,
    scores: Float[Array, "B T V"],
    given: Float[Array, "B T V"],
    ids: Int[Array, "B S"],
) -> Float[Array, "B T S"]:
    """Return the scores of these ids; of a shard, 0 for ids that lie elsewhere.

    given: the same scores, in the precision and the place that they came in: read are
    these, so that none others are stored. What is not to be read may differ.

    The derivative is a product where classes are few: turned round, a gather adds to
    one place in whatever order, and not in a vector (occupancy.py). So it is for a
    shard: to add to all of it at once, a TPU would copy it first.
    """
    rows, num_classes = positions(scores.shape[1]), scores.shape[2]
    if is_shard:
        is_own = (ids >= 0) & (ids < num_classes)
        picked = gather(given, rows, jnp.clip(ids, 0, num_classes - 1))
        picked = jnp.where(is_own[:, None, :], picked, 0)
    else:
        picked = gather(given, rows, ids)
    if not is_shard and num_classes >= SCATTER_CLASSES:
        plain = gather(scores, rows, ids)
    else:
        one_hot = is_at(ids, num_classes).astype(scores.dtype)
        full = lax.Precision.HIGHEST
        plain = jnp.einsum("btv,bsv->bts", scores, one_hot, precision=full)
    return with_derivative_of(plain, picked.astype(scores.dtype))
