r"""log p(labels | scores) of a batch, and the one derivative rule.

With z = log p(labels | logits), the gradient of the loss -z is

    d(-z) / d logits[t, v]    = softmax(logits[t])[v] - posterior_t(v)
    d(-z) / d log_probs[t, v] =                       - posterior_t(v)

where posterior_t(v) sums alpha * beta over the lattice states that emit v. Recursions
with an explicit backward pass get it by a `custom_jvp` whose tangent is
<gradient, tangent of the scores>. That is linear in the tangent, so JAX transposes it,
and reverse mode, forward mode and `linearize` all follow from one rule. The gradient
has a rule of its own, which differentiates the gradient of `scan`: bit tricks have no
derivative, and JAX would silently call it 0. So Hessians are right too.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc import _recursion
from jax_ctc._checks.arrays import Batch, check_inputs
from jax_ctc._checks.given import ArrayLike, Index
from jax_ctc._checks.labels import narrow, status_of_labels
from jax_ctc._checks.options import check_blank_id
from jax_ctc._lattice.emissions import ClassEmissions
from jax_ctc._lattice.sharded_emissions import shard
from jax_ctc._lattice.topology import Lattice, build, class_ids
from jax_ctc._mesh.varying import axis_size, is_tracked, value_only, vary_alike
from jax_ctc._numbers.precision import accumulator


class Spec(NamedTuple):
    """Everything about a call that is known when it is traced."""

    blank_id: int
    infeasible: str
    implementation: str | None
    normalise: bool
    vocab_axes: tuple[str, ...] = ()  # mesh axes that the classes are sharded over
    time_axes: tuple[str, ...] = ()  # and the frames

    @property
    def shard_axes(self) -> tuple[str, ...]:
        """All axes that hold parts of one utterance."""
        return self.time_axes + self.vocab_axes


class Problem(NamedTuple):
    """All that the recursion needs besides the scores; integer arrays only."""

    lattice: Lattice
    ids: Int[Array, "B U+1"]
    logit_lengths: Int[Array, " B"]


def prepare(
    logits: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None,
    label_lengths: ArrayLike | None,
    *,
    blank_id: Index,
) -> tuple[Spec, Batch]:
    """Raise on static mistakes; part what is static from what is not."""
    batch = check_inputs(logits, labels, logit_lengths, label_lengths)
    blank_id = check_blank_id(blank_id, batch.scores.shape[-1])
    return Spec(blank_id, "inf", None, normalise=True), batch


def pose(spec: Spec, batch: Batch) -> tuple[jax.Array, Problem, jax.Array]:
    """Turn a batch with any leading axes into one flat batch of lattice problems."""
    *leading, own_frames, own_classes = batch.scores.shape
    num_frames = own_frames * axis_size(spec.time_axes)
    num_classes = own_classes * axis_size(spec.vocab_axes)
    num_utterances = math.prod(leading)
    scores, labels, logit_lengths, label_lengths = vary_alike(
        *(jnp.asarray(array) for array in batch), sharded=spec.shard_axes
    )
    scores = scores.reshape(num_utterances, own_frames, own_classes)
    if not is_tracked(spec.shard_axes):
        scores = value_only("the loss with vocab_axis or time_axis", scores)
    labels = narrow(labels).reshape(num_utterances, labels.shape[-1])
    logit_lengths = narrow(logit_lengths).reshape(num_utterances)
    label_lengths = narrow(label_lengths).reshape(num_utterances)
    if num_frames == 0:  # one padded frame means the same, and every loop has a body
        scores = jnp.zeros_like(scores, shape=(num_utterances, 1, own_classes))
    status = status_of_labels(
        labels,
        logit_lengths,
        label_lengths,
        num_frames=num_frames,
        num_classes=num_classes,
        blank_id=spec.blank_id,
    )
    ids = class_ids(
        labels, label_lengths, blank_id=spec.blank_id, num_classes=num_classes
    )
    problem = Problem(
        lattice=build(labels, label_lengths, status == 0),
        ids=ids,
        # Beyond the array there is nothing to read; BAD_LENGTH is set already.
        logit_lengths=jnp.clip(logit_lengths, 0, num_frames),
    )
    return scores, problem, status


def emissions_of(spec: Spec, scores: jax.Array, problem: Problem) -> ClassEmissions:
    """Return what the recursion reads."""
    lengths = problem.logit_lengths
    if spec.time_axes:
        before = lax.axis_index(spec.time_axes) * scores.shape[1]
        lengths = jnp.clip(lengths - before, 0, scores.shape[1])
    emissions = ClassEmissions.of(
        scores,
        problem.ids,
        lengths,
        normalise=spec.normalise,
        time_axes=spec.time_axes,
    )
    if not spec.vocab_axes:
        return emissions
    return shard(emissions, spec.vocab_axes, in_one=spec.implementation == "scan")


def log_likelihood(
    spec: Spec, scores: Float[Array, "B T V"], problem: Problem
) -> Float[Array, " B"]:
    """Return log p(labels), differentiable to any order in any mode.

    -inf where there is no path of positive probability, or none to look for; NaN where
    a frame inside the length is bad. The derivative is exactly 0 in both.
    """
    if spec.implementation == "scan":
        return _log_z(spec, scores, problem)  # plain autodiff
    return _log_z_by_rule(spec, scores, problem)


def _log_z(spec: Spec, scores: jax.Array, problem: Problem) -> Float[Array, " B"]:
    log_z = _recursion.forward(
        spec.implementation, problem.lattice, emissions_of(spec, scores, problem)
    )
    # Of no utterances it is a constant, which a rule must not take for another type.
    return vary_alike(log_z, problem.logit_lengths)[0]


# d log_z = -<gradient, d scores>                       gradient = d(-log_z) / d scores
# d gradient = (d gradient_scan / d scores) d scores
#
# Only float arrays leave a function with a rule (a bool or int result has no tangent),
# so status is derived outside; integer arrays are arguments, never closed over.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_z_by_rule(
    spec: Spec, scores: jax.Array, problem: Problem
) -> Float[Array, " B"]:
    return _log_z(spec, scores, problem)


@_log_z_by_rule.defjvp
def _log_z_jvp(spec: Spec, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    scores, problem = primals
    log_z, gradient = _log_z_and_gradient(spec, scores, problem)
    return log_z, -inner(spec, gradient, tangents[0])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_z_and_gradient(
    spec: Spec, scores: jax.Array, problem: Problem
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    log_z, gradient = _recursion.forward_backward(
        spec.implementation, problem.lattice, emissions_of(spec, scores, problem)
    )
    return vary_alike(log_z, problem.logit_lengths)[0], gradient


@_log_z_and_gradient.defjvp
def _log_z_and_gradient_jvp(
    spec: Spec, primals: tuple, tangents: tuple
) -> tuple[Any, Any]:
    scores, problem = primals
    log_z, gradient = _log_z_and_gradient(spec, scores, problem)

    def gradient_of_scan(scores: jax.Array) -> jax.Array:
        scan = spec._replace(implementation="scan")
        _, pull = jax.vjp(lambda s: _log_z(scan, s, problem), scores)
        return pull(-jnp.ones_like(log_z))[0]

    _, d_gradient = jax.jvp(gradient_of_scan, (scores,), (tangents[0],))
    return (log_z, gradient), (-inner(spec, gradient, tangents[0]), d_gradient)


def inner(
    spec: Spec, gradient: Float[Array, "B T V"], tangent: Float[Array, "B T V"]
) -> Float[Array, " B"]:
    """Return <gradient, tangent> per utterance, accumulated in float32 at least."""
    dtype = accumulator(gradient.dtype)
    product = jnp.sum(gradient.astype(dtype) * tangent.astype(dtype), axis=(1, 2))
    return lax.psum(product, spec.shard_axes) if spec.shard_axes else product
