"""The input of a loss that makes its own logits: features, and a linear layer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_ctc._checks.arrays import Checked, check_floats, check_targets
from jax_ctc._checks.given import ArrayLike, Transform
from jax_ctc._checks.options import check_option
from jax_ctc._numbers.sizes import Size

_PRECISIONS = (None, "default", "high", "highest")


class HeadBatch(NamedTuple):
    """Inputs whose static properties agree; leading axes as they came."""

    features: Checked  # [..., T, D] float
    kernel: Checked  # [D, V] float
    bias: Checked | None  # [V] float; None: no bias
    labels: Checked  # [..., U] integer
    logit_lengths: Checked | None  # [...] integer; None: all frames
    label_lengths: Checked | None  # [...] integer; None: all labels
    wildcard_log_prob: Checked | None = None  # one float; None: no label is a wildcard

    # The axes of each field, a letter each; a dot: all leading ones.
    AXES = (".TD", "DV", "V", ".U", ".", ".", "")


class How(NamedTuple):
    """How logits are made of features: static."""

    precision: str | None = None  # of products, as `jax.lax.Precision` has it
    transform: Transform | None = None  # of logits, one by one


def check_head_inputs(
    features: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None,
    label_lengths: ArrayLike | None,
) -> HeadBatch:
    """Raise on static mistakes; lengths that were left out stay out."""
    rows = check_floats(features, name="features", what="what goes into the layer")
    if rows.ndim < 2:
        raise ValueError(
            "`features` must be [..., T, D] (frames, features) with any leading batch"
            f" axes; got shape {rows.shape}"
        )
    return HeadBatch(
        rows,
        *check_layer(kernel, bias, rows.shape),
        *check_targets(rows, labels, logit_lengths, label_lengths, name="features"),
    )


def check_layer(
    kernel: ArrayLike, bias: ArrayLike | None, features: tuple[Size, ...]
) -> tuple[Checked, Checked | None]:
    """Return a kernel and a bias that go with features of this shape, or raise."""
    columns = check_floats(kernel, name="kernel", what="the layer's weights")
    if columns.ndim != 2 or columns.shape[0] != features[-1] or not columns.shape[1]:
        is_turned = columns.ndim == 2 and columns.shape[1] == features[-1]
        raise ValueError(
            f"`kernel` must be [D, V] with D={features[-1]} as in `features`"
            f" {features}, and at least the blank class (V >= 1); got shape"
            f" {columns.shape}."
            + (
                " If it is [V, D], as in torch or an embedding table, pass kernel.T"
                if is_turned
                else " Logits are features @ kernel + bias"
            )
        )
    if bias is None:
        return columns, None
    row = check_floats(bias, name="bias", what="the layer's offsets")
    if row.shape != columns.shape[1:]:
        raise ValueError(
            f"`bias` must be [V] with V={columns.shape[1]} as in `kernel`"
            f" {columns.shape}; got shape {row.shape}. For a layer without one pass"
            " bias=None"
        )
    return columns, row


def check_how(precision: Any, transform: Transform | None) -> How:
    """Return how logits are made, or raise; the transform is tried on a shape."""
    check_option(precision, _PRECISIONS, name="precision")
    if transform is None:
        return How(precision, None)
    if not callable(transform):
        raise TypeError(
            "`logit_transform` must be a function of logits that keeps their shape,"
            f" such as lambda x: 30 * jnp.tanh(x / 30); got {transform!r}"
        )
    given = jax.ShapeDtypeStruct((2, 3, 5), jnp.float32)
    made = jax.eval_shape(transform, given)
    if getattr(made, "shape", None) != given.shape or made.dtype != given.dtype:
        raise ValueError(
            "`logit_transform` must act on logits one by one, and keep their shape and"
            f" dtype: it is given a few classes at a time. Of {given} it made {made}"
        )
    return How(precision, transform)
