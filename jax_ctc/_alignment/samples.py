"""Alignments drawn with the probability that each has, given the labels."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jax_ctc import _recursion
from jax_ctc._alignment.paths import live_frames, read_along, total_of
from jax_ctc._alignment.records import CTCSamples
from jax_ctc._checks.arrays import Batch
from jax_ctc._checks.given import ArrayLike, Index, Option
from jax_ctc._checks.options import check_count, check_key
from jax_ctc._lattice.needed import opened
from jax_ctc._lattice.pose import Spec, pose, prepare
from jax_ctc._lattice.problem import Problem
from jax_ctc._mesh.varying import vary_alike
from jax_ctc._numbers.precision import accumulator


def sample_alignments(
    key: ArrayLike,
    logits: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    *,
    num_samples: Index,
    blank_id: Index = 0,
    inputs: Option = "logits",
    wildcard_id: Index | None = None,
    wildcard_log_prob: ArrayLike = 0.0,
) -> CTCSamples:
    r"""Paths drawn from P(path | labels), independently and exactly.

    `...` any leading batch axes, T frames, V classes including blank, U labels.
    Backward sampling: with the forward probabilities alpha, the state in the last frame
    and then the one before it are drawn,

        P(s_t = s' | s_{t+1} = s) = alpha_t(s') / sum over the ways into s of alpha_t

    Args:
        key: one JAX random key, `jax.random.key(seed)`. Split it for new samples. The
            same key draws otherwise where B, T or num_samples are other. Inside
            `shard_map` fold the device's index in, or all devices draw alike.
        logits: [..., T, V] float32, float64, bfloat16 or float16, unnormalised scores.
        labels: [..., U] integer class ids without blanks, padded on the right.
        logit_lengths: [...] integer frames, 0..T. Default: all T.
        label_lengths: [...] integer labels, 0..U. Default: all U.
        num_samples: paths per utterance, at least 1. Static.
        blank_id: the blank class, 0..V-1. Static.
        inputs: "logits", which are normalised; or "log_probs", taken as they are, with
            a prior, a penalty or a mask in them if you like. Static.
        wildcard_id: a label that stands for anything, as in `ctc_loss`. Static.
        wildcard_log_prob: nats of a frame that a wildcard takes, as in `ctc_loss`.

    Returns:
        CTCSamples: tokens [..., num_samples, T] int32, the class of each frame, padded
        with -1, and `wildcard_id` where a wildcard takes it; log_prob
        [..., num_samples] float32 (float64 for float64 logits), nats, of each path.
        Less the log-likelihood of the labels it is the log-probability
        of having drawn that path. Its derivative is that of the path's probability,
        the path held fixed, as score-function estimators need it.

    Raises:
        ValueError: ranks or shapes disagree, `blank_id` is not a class, `num_samples`
            is below 1, `key` is more than one key, or `inputs` has an unknown value.
        TypeError: a dtype is wrong, `key` is no key, or an option is traced.

    Status:
        Utterances that `ctc_loss_with_status` flags have tokens -1 and log_prob -inf,
        with derivative exactly 0; of NONFINITE_LOGITS log_prob is NaN.

    Numerics:
        alpha in extended range. Each choice is made with one uniform float, whose
        steps are 2**-23 (2**-52 in float64): alternatives rarer than that in a frame
        are drawn too seldom or too often by up to that much.

    Cost:
        O(T * (U + V)) time for alpha, O(T) per sample; memory for num_samples * T
        random numbers, else as the loss.

    Example:
        >>> import jax, jax.numpy as jnp, jax_ctc
        >>> logits, labels = jnp.zeros((4, 3)), jnp.array([1, 2])
        >>> key = jax.random.key(0)
        >>> samples = jax_ctc.sample_alignments(key, logits, labels, num_samples=100)
        >>> samples.tokens.shape, len(set(map(tuple, samples.tokens.tolist())))
        ((100, 4), 15)

    References:
        C. K. Carter and R. Kohn, "On Gibbs sampling for state space models",
        Biometrika 81 (1994): backward sampling.
    """
    checked_key = check_key(key)
    count = check_count(num_samples, name="num_samples")
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
    return _sample(spec, count, checked_key, batch)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample(spec: Spec, num_samples: int, key: jax.Array, batch: Batch) -> CTCSamples:
    """Draw states, then read their classes and probabilities."""
    problem, _, wildcards = pose(spec, batch)
    num_frames = batch.scores.shape[-2]
    batch_size, padded_frames, _ = problem.scores.shape
    uniforms = jax.random.uniform(
        key,
        (padded_frames, batch_size, num_samples),
        accumulator(problem.scores.dtype),
    )
    uniforms, *varied = vary_alike(uniforms, *problem)
    problem = Problem(*varied)
    fixed = lax.stop_gradient((problem, wildcards))
    small, shift = opened(*fixed, normalise=spec.normalise)
    log_value, states = _recursion.read(
        spec.implementation,
        "sample_paths",
        small,
        uniforms,
        normalise=spec.normalise and shift is None,
    )
    states = jnp.transpose(states[:num_frames], (1, 2, 0))  # [B, N, T]
    is_live = live_frames(problem, log_value, num_frames)
    tokens, along = read_along(states, problem, small, wildcards, is_live, spec)
    log_prob = total_of(along, log_value)
    leading = batch.scores.shape[:-2]
    return CTCSamples(
        tokens=tokens.reshape(*leading, num_samples, num_frames),
        log_prob=log_prob.reshape(*leading, num_samples),
    )
