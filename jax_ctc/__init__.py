"""Exact CTC for JAX: the loss, its derivatives, and what is wrong with the input."""

from jax_ctc._decode import greedy_decode
from jax_ctc._lengths import lengths_from_paddings, minimum_frames
from jax_ctc._loss import (
    check_batch,
    ctc_loss,
    ctc_loss_from_log_probs,
    ctc_loss_with_status,
)
from jax_ctc._reduce import reduce_loss, reduce_loss_and_weight
from jax_ctc._status import Status, explain, raise_if
from jax_ctc._types import Hypotheses

__all__ = [
    "Hypotheses",
    "Status",
    "check_batch",
    "ctc_loss",
    "ctc_loss_from_log_probs",
    "ctc_loss_with_status",
    "explain",
    "greedy_decode",
    "lengths_from_paddings",
    "minimum_frames",
    "raise_if",
    "reduce_loss",
    "reduce_loss_and_weight",
]

__version__ = "0.1.0"
