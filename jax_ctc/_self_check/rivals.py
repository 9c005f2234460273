"""Other libraries' losses, timed beside ours where they are installed."""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ctc._self_check.batches import BLANK, Batch

Run = Callable[[], Any]  # returns when the result is there


def optax(batch: Batch) -> Run:
    """Compile `optax.ctc_loss`, value and gradient.

    Raises:
        ImportError: it is not installed.
    """
    module = importlib.import_module("optax")
    logits, labels, frames, counts = map(jnp.asarray, batch.arrays)
    outside = [
        (jnp.arange(x.shape[1]) >= n[:, None]).astype(jnp.float32)
        for x, n in ((logits, frames), (labels, counts))
    ]

    def loss(logits: jax.Array, frame_paddings: Any, labels: Any, paddings: Any) -> Any:
        losses = module.ctc_loss(
            logits, frame_paddings, labels, paddings, blank_id=BLANK
        )
        return losses.sum()

    arrays = (logits, outside[0], labels, outside[1])
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*arrays).compile()
    return lambda: jax.block_until_ready(compiled(*arrays))


def torch(batch: Batch) -> Run:
    """Prepare `torch.nn.functional.ctc_loss`, value and gradient, where JAX runs.

    Raises:
        ImportError: it is not installed.
    """
    module: Any = importlib.import_module("torch")
    device = "cuda" if _has_gpu(module) else "cpu"
    rest = [
        module.tensor(np.asarray(array, np.int64), device=device)
        for array in batch.arrays[1:]
    ]
    return _torch(module, device, batch.logits, rest, cudnn=False)


def torch_cudnn(batch: Batch) -> Run:
    """Prepare the same by cuDNN, which wants each utterance to fill its frames.

    Raises:
        ImportError: PyTorch, a GPU or cuDNN is not there, or takes no such batch.
    """
    module: Any = importlib.import_module("torch")
    if not _has_gpu(module):
        raise ImportError("JAX or PyTorch sees no GPU here")
    counts = batch.label_lengths
    labels = batch.labels[np.arange(batch.labels.shape[1]) < counts[:, None]]
    frames = np.full_like(batch.logit_lengths, batch.logits.shape[1])
    rest = [module.tensor(np.asarray(x, np.int32)) for x in (labels, frames, counts)]
    log_probs = module.tensor(batch.logits, device="cuda").transpose(0, 1)
    if not module._use_cudnn_ctc_loss(log_probs, *rest, BLANK):
        raise ImportError("cuDNN does not take this batch")
    return _torch(module, "cuda", batch.logits, rest, cudnn=True)


def _has_gpu(module: Any) -> bool:
    return jax.default_backend() == "gpu" and module.cuda.is_available()


def _torch(module: Any, device: str, scores: Any, rest: Any, *, cudnn: bool) -> Run:
    logits = module.tensor(scores, device=device, requires_grad=True)

    def run() -> Any:
        with module.backends.cudnn.flags(enabled=cudnn):
            log_probs = module.log_softmax(logits, -1).transpose(0, 1)
            loss = module.nn.functional.ctc_loss(
                log_probs, *rest, blank=BLANK, reduction="sum"
            )
            [gradient] = module.autograd.grad(loss, logits)
        if device == "cuda":
            module.cuda.synchronize()
        return loss, gradient

    return run


RIVALS: dict[str, Callable[[Batch], Run]] = {
    "optax": optax,
    "torch": torch,
    "torch_cudnn": torch_cudnn,
}
