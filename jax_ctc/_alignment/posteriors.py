"""Where each label is: the posterior of every lattice state."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._alignment.as_given import posteriors_as_given
from jax_ctc._alignment.records import CTCPosteriors
from jax_ctc._checks.arrays import Batch
from jax_ctc._checks.given import ArrayLike, Index, Option
from jax_ctc._lattice.needed import opened
from jax_ctc._lattice.pose import Spec, pose, prepare
from jax_ctc._lattice.wildcards import takes_anything
from jax_ctc._loss.rule import Question, ask, shifted
from jax_ctc._numbers.masks import is_inside


def ctc_posteriors(
    logits: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    *,
    blank_id: Index = 0,
    inputs: Option = "logits",
    wildcard_id: Index | None = None,
    wildcard_log_prob: ArrayLike = 0.0,
) -> CTCPosteriors:
    r"""Probability of each lattice state in each frame, given the labels.

    `...` any leading batch axes, T frames, V classes including blank, U labels. With
    p_t = softmax(logits[t]), or exp(log_probs[t]),

        label[t, n] = P(frame t shows label n | the path collapses to labels)
        blank[t, n] = P(frame t is blank, n labels said | the path collapses to labels)

    The posterior of a class is the sum over its states, and minus the gradient of
    `ctc_loss_from_log_probs`; here each state has its own, so that equal labels are
    told apart.

    Args:
        logits: [..., T, V] float32, float64, bfloat16 or float16, unnormalised scores.
        labels: [..., U] integer class ids without blanks, padded on the right.
        logit_lengths: [...] integer frames, 0..T. Default: all T.
        label_lengths: [...] integer labels, 0..U. Default: all U.
        blank_id: the blank class, 0..V-1. Static.
        inputs: "logits", which are normalised; or "log_probs", taken as they are, with
            a prior, a penalty or a mask in them if you like. Static.
        wildcard_id: a label that stands for anything, as in `ctc_loss`. Static.
        wildcard_log_prob: nats of a frame that a wildcard takes, as in `ctc_loss`.

    Returns:
        CTCPosteriors: log_likelihood [...] nats, label [..., T, U] and blank
        [..., T, U+1], float32 (float64 for float64 logits). On frames inside the
        length, label and blank sum to 1 together; past it, and for padded labels,
        they are 0. A wildcard's `label` is the probability that it takes the frame; of
        several in a row the first one's, and blanks of their gap are before it.

    Raises:
        ValueError: ranks or shapes disagree, `blank_id` is not a class, or `inputs` has
            an unknown value.
        TypeError: a dtype is wrong, or `blank_id` is traced.

    Status:
        Utterances that `ctc_loss_with_status` flags have log_likelihood -inf and
        posteriors 0, with derivative exactly 0; of NONFINITE_LOGITS all three are NaN.

    Numerics:
        As good as the gradient of `ctc_loss`: extended range, each frame normalised by
        its own sum. Derivatives of every order and mode: those of log_likelihood are
        the loss's, those of the posteriors go through the log-space `scan`.

    Cost:
        O(T * (U + V)) time per utterance, and memory for two copies of the result;
        where posteriors are differentiated, several more.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> logits = jnp.log(jnp.array([[.1, .2, .7], [.3, .6, .1], [.8, .1, .1]]))
        >>> posteriors = jax_ctc.ctc_posteriors(logits, jnp.array([1, 2]))
        >>> [[f"{p:.3f}" for p in frame] for frame in posteriors.label]
        [['0.857', '0.000'], ['0.429', '0.429'], ['0.000', '0.619']]
        >>> [f"{p:.3f}" for p in posteriors.blank[1]]  # before, between, after
        ['0.000', '0.143', '0.000']

    References:
        A. Graves et al., "Connectionist temporal classification", ICML 2006,
        section 4.1, https://doi.org/10.1145/1143844.1143891.
    """
    spec, batch = prepare(
        logits,
        labels,
        logit_lengths,
        label_lengths,
        blank_id=blank_id,
        inputs=inputs,
        wildcard_id=wildcard_id,
        wildcard_log_prob=wildcard_log_prob,
    )
    return _posteriors(spec, batch)


@functools.partial(jax.jit, static_argnums=0)
def _posteriors(spec: Spec, batch: Batch) -> CTCPosteriors:
    """Read the lattice, mask frames past the length, restore the leading axes."""
    problem, _, wildcards = pose(spec, batch)
    small, shift = opened(problem, wildcards, normalise=spec.normalise)
    normalise = spec.normalise and shift is None
    question = Question("posteriors", spec.implementation, normalise)
    log_z, loss, label, blank = ask(question, small)
    if wildcards is not None and shift is not None:
        loss = shifted(log_z, loss, shift)
        label, blank = posteriors_as_given(
            label, blank, takes_anything(small).T, wildcards
        )
    log_z = lax.stop_gradient(log_z)
    # Outside the rule, where no cotangent can reach it: 0 * inf would be NaN.
    log_likelihood = jnp.where(jnp.isfinite(log_z), -loss, log_z)
    num_frames = batch.scores.shape[-2]
    leading = batch.scores.shape[:-2]

    def finish(row: Float[Array, "T B n"]) -> Float[Array, "..."]:
        row = _masked(row[:num_frames], problem.logit_lengths, log_z)
        return row.reshape(*leading, *row.shape[1:])

    return CTCPosteriors(
        log_likelihood=log_likelihood.reshape(leading),
        label=finish(label),
        blank=finish(blank),
    )


def _masked(
    row: Float[Array, "T B n"],
    lengths: Int[Array, " B"],
    log_likelihood: Float[Array, " B"],
) -> Float[Array, "B T n"]:
    """Lay out by utterance; 0 past the length and where flagged, NaN where bad."""
    row = jnp.moveaxis(row, 1, 0)
    is_kept = is_inside(lengths, row.shape[1]) & jnp.isfinite(log_likelihood)[:, None]
    row = jnp.where(is_kept[:, :, None], row, 0)
    return jnp.where(jnp.isnan(log_likelihood)[:, None, None], jnp.nan, row)
