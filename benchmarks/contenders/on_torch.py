"""`torch.nn.functional.ctc_loss`."""

import importlib
from typing import Any

import numpy as np

from benchmarks.contenders.program import Program
from tests.cases import Batch


def torch_loss(batch: Batch, mode: str) -> Program:
    """After `log_softmax`, on all cores, eager."""
    torch: Any = importlib.import_module("torch")
    logits = torch.tensor(batch.logits, requires_grad=mode == "value_and_grad")
    rest = [torch.tensor(array.astype(np.int64)) for array in batch[1:4]]

    def run() -> Any:
        log_probs = torch.log_softmax(logits, -1).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(
            log_probs, *rest, blank=batch.blank_id, reduction="none"
        ).mean()
        if mode == "value":
            return (loss.numpy(),)
        [gradient] = torch.autograd.grad(loss, logits)
        return loss.detach().numpy(), gradient.numpy()

    # Nobody tells, but it keeps alpha, and beta beside it, of every frame and state.
    (size, frames, _), labels = batch.logits.shape, batch.labels.shape[1]
    lattice = batch.logits.itemsize * size * frames * (2 * labels + 1)
    needs = lattice if mode == "value" else 2 * lattice
    return Program(run, None, None, None, needs)
