"""`torch.nn.functional.ctc_loss`, on the GPU where JAX runs on one."""

import importlib
from typing import Any

import jax
import numpy as np

from benchmarks.contenders.program import Program
from tests.cases import Batch


def torch_loss(batch: Batch, mode: str, *, cudnn: bool = False) -> Program:
    """After `log_softmax`, eager; on a CPU on all cores.

    cuDNN takes only some batches, and PyTorch then falls back without a word.

    Raises:
        NotImplementedError: cuDNN is asked for, and does not take this batch.
    """
    torch: Any = importlib.import_module("torch")
    is_on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    device = "cuda" if is_on_gpu else "cpu"
    logits = torch.tensor(
        batch.logits, device=device, requires_grad=mode == "value_and_grad"
    )
    rest = _arguments(torch, batch, device, cudnn)
    if cudnn:
        log_probs = torch.log_softmax(logits, -1).transpose(0, 1)
        if not torch._use_cudnn_ctc_loss(log_probs, *rest, batch.blank_id):
            raise NotImplementedError("cuDNN does not take this batch")

    def run() -> Any:
        with torch.backends.cudnn.flags(enabled=cudnn):
            log_probs = torch.log_softmax(logits, -1).transpose(0, 1)
            loss = torch.nn.functional.ctc_loss(
                log_probs, *rest, blank=batch.blank_id, reduction="none"
            ).mean()
            result = (loss.detach(),)
            if mode == "value_and_grad":
                result += tuple(torch.autograd.grad(loss, logits))
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    # Nobody tells, but it keeps alpha, and beta beside it, of every frame and state.
    (size, frames, _), labels = batch.logits.shape, batch.labels.shape[1]
    lattice = batch.logits.itemsize * size * frames * (2 * labels + 1)
    return Program(
        run=run,
        lower_s=None,
        compile_s=None,
        temporaries=None,
        needs=lattice if mode == "value" else 2 * lattice,
        # Its profiler, once used, keeps JAX's out of the process.
        fetch=lambda result: tuple(part.cpu().numpy() for part in result),
    )


def _arguments(torch: Any, batch: Batch, device: str, cudnn: bool) -> list[Any]:
    """Return labels and lengths as the native kernels, or cuDNN's, take them."""
    if not cudnn:
        return [torch.tensor(x.astype(np.int64), device=device) for x in batch[1:4]]
    inside = np.arange(batch.labels.shape[1]) < batch.label_lengths[:, None]
    arrays = batch.labels[inside], batch.logit_lengths, batch.label_lengths
    return [torch.tensor(x.astype(np.int32)) for x in arrays]
