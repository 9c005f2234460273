"""`keras.losses.CTC` and `keras.ops.ctc_loss`, by this library; Keras 3 on JAX."""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp

import jax_ctc
from jax_ctc._checks.given import ArrayLike, Index, Option


def ctc_loss(
    target: ArrayLike,
    output: ArrayLike,
    target_length: ArrayLike,
    output_length: ArrayLike,
    mask_index: Index = 0,
    *,
    infeasible: Option = "inf",
) -> jax.Array:
    """Negative log-probability, in nats, of label sequences, as `keras.ops.ctc_loss`.

    `...` any leading batch axes, T frames, V classes including blank, U labels.

    Args:
        target: [..., U] integer class ids, padded on the right.
        output: [..., T, V] float, unnormalised.
        target_length: [...] integer labels.
        output_length: [...] integer frames.
        mask_index: the blank class. Static.
        infeasible: "inf" or "zero", the value of an utterance that cannot be scored;
            not in Keras. Static.

    Returns:
        [...] float32 (float64 for float64 output), nats, never negative.

    Raises:
        ValueError: ranks or shapes disagree, or an option has an unknown value.
        TypeError: a dtype is wrong, or `mask_index` is traced.

    Differs:
        Keras on JAX computes as Optax does, and what `jax_ctc.compat.optax.ctc_loss`
        says holds here too: every utterance that `jax_ctc.ctc_loss_with_status` would
        flag has the value of `infeasible` and a gradient of exactly 0, and what is in
        padded frames does not matter.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_ctc.compat.keras import ctc_loss
        >>> ctc_loss(jnp.array([[1, 0]]), jnp.zeros((1, 3, 2)), [1], [3]).round(4)
        Array([0.2877], dtype=float32)
    """
    return jax_ctc.ctc_loss(
        output,
        target,
        output_length,
        target_length,
        blank_id=mask_index,
        infeasible=infeasible,
    )


def __getattr__(name: str) -> Any:
    """Make `CTCLoss` when it is first asked for: its base class is Keras's."""
    if name == "CTCLoss":
        return _loss_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "CTCLoss"]


@functools.cache
def _loss_class() -> type:
    keras: Any = importlib.import_module("keras")

    @keras.saving.register_keras_serializable(package="jax_ctc")
    class CTCLoss(keras.losses.Loss):
        """CTC loss of labels padded with the blank, as `keras.losses.CTC`.

        For `model.compile(loss=CTCLoss())` and Keras 3 on JAX. Every frame counts; for
        ragged frames call `ctc_loss`, which takes lengths.

        y_true: [B, U] class ids, padded on the right with `mask_index`. A row's length
        is that up to its last other class.
        y_pred: [B, T, V], unnormalised.

        Args:
            reduction: as in every Keras loss.
            name: likewise.
            dtype: in which Keras hands over labels and logits. float32 whatever
                `floatx` is, because bfloat16 has no 257 and float16 no 2,049.
            mask_index: the blank class, always 0 in Keras.
            infeasible: "inf" or "zero", the value of an utterance that cannot be
                scored.

        Differs:
            As in `ctc_loss`. The blank between labels flags an utterance; Keras would
            shorten the row by it. With infeasible="zero" the mean of Keras counts such
            an utterance as a perfect one.
        """

        def __init__(
            self,
            reduction: str | None = "sum_over_batch_size",
            name: str = "ctc",
            dtype: Any = "float32",
            mask_index: int = 0,
            infeasible: str = "inf",
        ) -> None:
            if keras.backend.backend() != "jax":
                raise RuntimeError(
                    f"Keras runs on {keras.backend.backend()}, and this loss on JAX."
                    " Before Keras is imported, set the environment variable"
                    " KERAS_BACKEND=jax"
                )
            super().__init__(name=name, reduction=reduction, dtype=dtype)
            self.mask_index = mask_index
            self.infeasible = infeasible

        def call(self, y_true: jax.Array, y_pred: jax.Array) -> jax.Array:
            labels = jnp.asarray(y_true).astype(jnp.int32)
            place = jnp.arange(1, labels.shape[-1] + 1, dtype=jnp.int32)
            is_label = labels != self.mask_index
            lengths = jnp.where(is_label, place[None], jnp.int32(0))
            return jax_ctc.ctc_loss(
                y_pred,
                labels,
                label_lengths=lengths.max(-1, initial=0),
                blank_id=self.mask_index,
                infeasible=self.infeasible,
            )

        def get_config(self) -> dict[str, Any]:
            options = {"mask_index": self.mask_index, "infeasible": self.infeasible}
            return {**super().get_config(), "dtype": self.dtype, **options}

    return CTCLoss
