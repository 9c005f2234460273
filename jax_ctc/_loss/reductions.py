"""Means of losses that say what they leave out, and that add up over devices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Num

from jax_ctc._checks.arrays import Checked, check_losses, check_per_utterance
from jax_ctc._checks.given import ArrayLike
from jax_ctc._mesh.varying import (
    as_axes,
    is_bound,
    is_tracked,
    show,
    value_only,
    varying,
)
from jax_ctc._numbers.precision import accumulator


def reduce_loss(
    loss: ArrayLike,
    *,
    status: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    axis_name: Any = None,
) -> jax.Array:
    r"""Mean loss, in nats, over the utterances that have one.

        mean = sum_b weights_b * loss_b / sum_b weights_b

    over every utterance b whose loss is not +inf, whose status is 0 and whose weight
    is not 0. A NaN with status 0 (or without a status) is nobody's known fault and
    stays NaN. Where nothing is left the mean is 0, with gradient 0.

    Args:
        loss: [...] float, nats, from `ctc_loss` or `ctc_loss_with_status`.
        status: [...] integer bits of `Status`. Needed with infeasible="zero", whose
            zeros would otherwise count as perfect losses.
        weights: [...] number >= 0 per utterance. Default: all 1.
        label_lengths: [...] integer. Given, each loss is first divided by its label
            length (by 1 for an empty label), as torch's reduction='mean' does.
        axis_name: name(s) of mapped axes (`shard_map`, `pmap`, named `vmap`) over
            which sums and weights are added before dividing: the mean of everything,
            whatever the split, not a mean of means. Under plain `jit` with a sharded
            batch, leave it None: the mean is global already.

    Returns:
        [] float, of the dtype of `loss`. Added up and counted in float32 at least.

    Raises:
        TypeError: a dtype is wrong.
        ValueError: shapes disagree, or no such axis is mapped here.
        NotImplementedError: a derivative is taken with `axis_name` where types do not
            say what varies over it (check_vma=False, `pmap`, `vmap`): JAX would
            multiply it by the number of devices. docs/pods.md has another way.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> float(jax_ctc.reduce_loss(jnp.array([2.0, jnp.inf, 4.0])))
        3.0
    """
    parts = _check(loss, status, weights, label_lengths)
    return _mean(_mapped(axis_name), *parts)


def reduce_loss_and_weight(
    loss: ArrayLike,
    *,
    status: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    axis_name: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Sum of weighted losses, and sum of weights: parts of a mean yet to be taken.

    Add both over devices, hosts or accumulation steps, then divide once. What is left
    out, and the arguments, are as in `reduce_loss`.

    Args:
        loss: [...] float, nats.
        status: [...] integer bits of `Status`.
        weights: [...] number >= 0 per utterance. Default: all 1.
        label_lengths: [...] integer; divides each loss first.
        axis_name: name(s) of mapped axes to add both over; derivatives as in
            `reduce_loss`. Over an axis where the loss is the same on all devices, each
            device's copy is added.

    Returns:
        total: [] float32 (float64 for float64 losses), sum of weights * loss over the
            utterances that count.
        weight: [] alike, sum of their weights.

    Raises:
        TypeError: a dtype is wrong.
        ValueError: shapes disagree, or no such axis is mapped here.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> total, weight = jax_ctc.reduce_loss_and_weight(jnp.array([2.0, jnp.inf]))
        >>> float(total), float(weight)
        (2.0, 1.0)
    """
    parts = _check(loss, status, weights, label_lengths)
    return _sums(_mapped(axis_name), *parts)


def _check(
    loss: ArrayLike,
    status: ArrayLike | None,
    weights: ArrayLike | None,
    label_lengths: ArrayLike | None,
) -> tuple[Checked | None, ...]:
    """Raise on static mistakes; what was left out stays None."""
    losses = check_losses(loss)
    check = functools.partial(check_per_utterance, loss=losses)
    return (
        losses,
        None if status is None else check(status, name="status", integer=True),
        None if weights is None else check(weights, name="weights"),
        None
        if label_lengths is None
        else check(label_lengths, name="label_lengths", integer=True),
    )


def _mapped(axis_name: Any) -> tuple[str, ...]:
    """Return the axes to add up over, all of them mapped here."""
    axes = as_axes(axis_name, "axis_name")
    for axis in axes:
        if not is_bound(axis):
            raise ValueError(
                f"`axis_name` is {show(axes)}, but no axis {axis!r} is mapped here."
                " Inside jax.shard_map, name an axis of its mesh; elsewhere leave"
                " axis_name out: the mean is global already"
            )
    return axes


@functools.partial(jax.jit, static_argnums=0)
def _sums(
    axes: tuple[str, ...],
    losses: Float[Array, "..."],
    status: Integer[Array, "..."] | None,
    weights: Num[Array, "..."] | Bool[Array, "..."] | None,
    label_lengths: Integer[Array, "..."] | None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the sum of weights * losses, and the sum of weights, of what counts."""
    # Half precision has no number for the sum of a batch of them, nor for its count.
    losses = losses.astype(accumulator(losses.dtype))
    is_counted = losses != jnp.inf
    if status is not None:
        is_counted = is_counted & (status == 0)
    if label_lengths is not None:
        losses = losses / jnp.maximum(label_lengths, 1).astype(losses.dtype)
    weight = jnp.ones_like(losses)
    if weights is not None:
        weight = weights.astype(losses.dtype)
        is_counted = is_counted & (weight != 0)
    # Select before multiplying: what is left out may be inf or NaN, and 0 * NaN is NaN.
    weight = jnp.where(is_counted, weight, 0)
    total, weight = jnp.sum(jnp.where(is_counted, losses, 0) * weight), jnp.sum(weight)
    if axes:
        if is_tracked(axes):
            # Where the loss is the same on all devices, each of them counts.
            total, weight = (
                jax.lax.pcast(
                    x, tuple(a for a in axes if a not in varying(x)), to="varying"
                )
                for x in (total, weight)
            )
        else:
            total, weight = (
                value_only("reduce_loss with axis_name", x) for x in (total, weight)
            )
        total, weight = jax.lax.psum((total, weight), axes)
    return total, weight


@functools.partial(jax.jit, static_argnums=0)
def _mean(
    axes: tuple[str, ...], losses: Float[Array, "..."], *parts: Any
) -> Float[Array, ""]:
    """Divide once, after everything is added up; 0 where nothing counts."""
    total, weight = _sums(axes, losses, *parts)
    mean = jnp.where(weight == 0, 0, total / jnp.where(weight == 0, 1, weight))
    return mean.astype(losses.dtype)
