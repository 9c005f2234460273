"""A batch as it came, turned into one flat batch of problems."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from jax_ctc._checks.arrays import Batch, check_inputs
from jax_ctc._checks.given import ArrayLike, Index, Option
from jax_ctc._checks.head import How
from jax_ctc._checks.labels import narrow, status_of_labels
from jax_ctc._checks.options import (
    check_blank_id,
    check_wildcard_id,
    check_wildcard_log_prob,
    is_logits,
)
from jax_ctc._lattice.problem import Problem, build
from jax_ctc._lattice.wildcards import Wildcards, part
from jax_ctc._mesh.varying import axis_size, is_tracked, value_only, vary_alike
from jax_ctc._numbers.sizes import Size

B = TypeVar("B", bound=Any)


class Spec(NamedTuple):
    """Everything about a call that is known when it is traced."""

    blank_id: int
    infeasible: str = "inf"
    implementation: str | None = None
    normalise: bool = True
    vocab_axes: tuple[str, ...] = ()  # mesh axes that the classes are sharded over
    time_axes: tuple[str, ...] = ()  # and the frames
    feature_axes: tuple[str, ...] = ()  # and what a linear layer sums over
    how: How = How()  # such a layer makes logits
    wildcard_id: int | None = None  # the label that stands for anything

    @property
    def shard_axes(self) -> tuple[str, ...]:
        """All axes that hold parts of one utterance."""
        return self.time_axes + self.vocab_axes + self.feature_axes


def prepare(
    logits: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None,
    label_lengths: ArrayLike | None,
    *,
    blank_id: Index,
    inputs: Option = "logits",
    wildcard_id: Index | None = None,
    wildcard_log_prob: ArrayLike = 0.0,
) -> tuple[Spec, Batch]:
    """Raise on static mistakes; part what is static from what is not."""
    batch = check_inputs(logits, labels, logit_lengths, label_lengths)
    blank = check_blank_id(blank_id, batch.scores.shape[-1])
    spec = Spec(blank, normalise=is_logits(inputs))
    return allow_wildcards(spec, batch, wildcard_id, wildcard_log_prob)


def allow_wildcards(
    spec: Spec, batch: B, wildcard_id: Any, wildcard_log_prob: Any
) -> tuple[Spec, B]:
    """Return both with a label that stands for anything, unless it is None, or raise.

    batch: a NamedTuple with a field `wildcard_log_prob`.
    """
    wildcard = check_wildcard_id(wildcard_id, spec.blank_id)
    log_prob = check_wildcard_log_prob(wildcard_log_prob, wildcard)
    made = batch._replace(wildcard_log_prob=log_prob)
    return spec._replace(wildcard_id=wildcard), made


class Posed(NamedTuple):
    """A flat batch of problems."""

    problem: Problem
    status: Int[Array, " B"]
    wildcards: Wildcards | None  # None: none were asked for


def pose(spec: Spec, batch: Batch, own_classes: int | None = None) -> Posed:
    """Return the problems of a batch with any leading axes.

    own_classes: how many classes this device has, where the last axis of the scores
    does not say it.
    """
    *leading, own_frames, width = batch.scores.shape
    num_frames = own_frames * axis_size(spec.time_axes)
    num_classes = (own_classes or width) * axis_size(spec.vocab_axes)
    num_utterances = math.prod(leading)
    check_blank_id(spec.blank_id, num_classes)
    full = batch._replace(
        logit_lengths=or_full(batch.logit_lengths, leading, num_frames),
        label_lengths=or_full(batch.label_lengths, leading, batch.labels.shape[-1]),
    )
    scores, labels, logit_lengths, label_lengths = vary_alike(
        *(jnp.asarray(array) for array in full[:4]), sharded=spec.shard_axes
    )
    scores = scores.reshape(num_utterances, own_frames, width)
    if not is_tracked(spec.shard_axes):
        scores = value_only("the loss with vocab_axis or time_axis", scores)
    labels = narrow(labels).reshape(num_utterances, labels.shape[-1])
    logit_lengths = narrow(logit_lengths).reshape(num_utterances)
    label_lengths = narrow(label_lengths).reshape(num_utterances)
    wildcards = None
    if spec.wildcard_id is not None:
        log_prob = jnp.asarray(batch.wildcard_log_prob)
        if not is_tracked(spec.shard_axes):
            log_prob = value_only("the loss with vocab_axis or time_axis", log_prob)
        labels, label_lengths, wildcards = part(
            labels, label_lengths, spec.wildcard_id, spec.blank_id, log_prob
        )
    if num_frames == 0:  # one padded frame means the same, and every loop has a body
        scores = jnp.zeros_like(scores, shape=(num_utterances, 1, width))
    status = status_of_labels(
        labels,
        logit_lengths,
        label_lengths,
        num_frames=num_frames,
        num_classes=num_classes,
        blank_id=spec.blank_id,
    )
    # Beyond the array there is nothing to read; BAD_LENGTH is set already.
    own_lengths = jnp.clip(logit_lengths, 0, num_frames)
    if spec.time_axes:  # what of them lies in this device's stretch
        before = lax.axis_index(spec.time_axes) * own_frames
        own_lengths = jnp.clip(own_lengths - before, 0, own_frames)
    problem = build(
        scores,
        labels,
        own_lengths,
        label_lengths,
        status == 0,
        blank_id=spec.blank_id,
        num_classes=num_classes,
    )
    return Posed(problem, status, wildcards)


def or_full(lengths: Any, leading: Sequence[Size], full: Size) -> jax.Array:
    """Return the lengths, or the full extent, a constant, where none were given."""
    if lengths is None:
        return jnp.full(leading, full, jnp.int32)
    return jnp.asarray(lengths)  # under `jax.disable_jit` NumPy's come as they are
