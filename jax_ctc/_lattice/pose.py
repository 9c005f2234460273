"""A batch as it came, turned into one flat batch of problems."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jax_ctc._checks.arrays import Batch, check_inputs
from jax_ctc._checks.given import ArrayLike, Index, Option
from jax_ctc._checks.head import How
from jax_ctc._checks.labels import narrow, status_of_labels
from jax_ctc._checks.options import check_blank_id, is_logits
from jax_ctc._lattice.problem import Problem, build
from jax_ctc._mesh.varying import axis_size, is_tracked, value_only, vary_alike
from jax_ctc._numbers.sizes import Size


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
) -> tuple[Spec, Batch]:
    """Raise on static mistakes; part what is static from what is not."""
    batch = check_inputs(logits, labels, logit_lengths, label_lengths)
    blank = check_blank_id(blank_id, batch.scores.shape[-1])
    return Spec(blank, normalise=is_logits(inputs)), batch


def pose(
    spec: Spec, batch: Batch, own_classes: int | None = None
) -> tuple[Problem, jax.Array]:
    """Return the problems of a batch with any leading axes, and their status [B].

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
        *(jnp.asarray(array) for array in full), sharded=spec.shard_axes
    )
    scores = scores.reshape(num_utterances, own_frames, width)
    if not is_tracked(spec.shard_axes):
        scores = value_only("the loss with vocab_axis or time_axis", scores)
    labels = narrow(labels).reshape(num_utterances, labels.shape[-1])
    logit_lengths = narrow(logit_lengths).reshape(num_utterances)
    label_lengths = narrow(label_lengths).reshape(num_utterances)
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
    return problem, status


def or_full(lengths: Any, leading: Sequence[Size], full: Size) -> jax.Array:
    """Return the lengths, or the full extent, a constant, where none were given."""
    if lengths is None:
        return jnp.full(leading, full, jnp.int32)
    return jnp.asarray(lengths)  # under `jax.disable_jit` NumPy's come as they are
