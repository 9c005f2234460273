"""`optax.ctc_loss`, by this library."""

import jax
import numpy as np

import jax_ctc
from jax_ctc._checks.given import ArrayLike, Index, Number, Option


def ctc_loss(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: Index = 0,
    log_epsilon: Number = -1e5,
    infeasible: Option = "inf",
) -> jax.Array:
    """Negative log-probability, in nats, of each label sequence, called as in Optax.

    `...` any leading batch axes, T frames, V classes including blank, U labels.

    Args:
        logits: [..., T, V] float, unnormalised.
        logit_paddings: [..., T], 1 where a frame is padded and 0 where it is valid,
            padded on the right. Also bool.
        labels: [..., U] integer class ids.
        label_paddings: [..., U], likewise.
        blank_id: the blank class. Static.
        log_epsilon: taken, and without effect: Optax's stand-in for log 0, which here
            is -inf.
        infeasible: "inf" or "zero", the value of an utterance that cannot be scored;
            not in Optax. Static.

    Returns:
        [...] float32 (float64 for float64 logits), nats, never negative.

    Raises:
        ValueError: ranks or shapes disagree, or an option has an unknown value.
        TypeError: a dtype is wrong, or `blank_id` is traced.

    Differs:
        Every utterance that `jax_ctc.ctc_loss_with_status` would flag has the value
        of `infeasible` and a gradient of exactly 0. With Optax, too few frames for
        the labels give about 1e5 and a gradient all the same; a label outside 0..V-1
        counts as a class of probability 1; the blank among the labels is scored as if
        it were none; padding on the left is read as if it were on the right.
        NaN or infinities in padded frames are ignored; with Optax they make the loss
        NaN, as a logit of -inf does anywhere.
        A sure alignment's loss is never below 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_ctc.compat.optax import ctc_loss
        >>> frames, padded = jnp.zeros((1, 3)), jnp.array([[0.0, 1.0]])
        >>> loss = ctc_loss(jnp.zeros((1, 3, 2)), frames, jnp.array([[1, 0]]), padded)
        >>> loss.round(4)
        Array([0.2877], dtype=float32)
    """
    del log_epsilon
    for name, paddings, of, expected in (
        ("logit_paddings", logit_paddings, "logits", np.shape(logits)[:-1]),
        ("label_paddings", label_paddings, "labels", np.shape(labels)),
    ):
        if np.shape(paddings) != expected:
            raise ValueError(
                f"`{name}` must be {expected}, one number for each place of `{of}`; got"
                f" {np.shape(paddings)}. If these are lengths, call jax_ctc.ctc_loss"
            )
    return jax_ctc.ctc_loss(
        logits,
        labels,
        jax_ctc.lengths_from_paddings(logit_paddings),
        jax_ctc.lengths_from_paddings(label_paddings),
        blank_id=blank_id,
        infeasible=infeasible,
    )
