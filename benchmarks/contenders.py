"""The losses that are compared, each in the form its users write.

A contender turns a batch and a mode into a `Program`: something to run as often as
wanted, and what building it took. "value" is the mean loss of the batch;
"value_and_grad" is that and its gradient with respect to the logits.
"""

import functools
import importlib
import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jax_ctc
from tests.cases import Batch

MODES = ("value", "value_and_grad")


class Program(NamedTuple):
    """One contender, ready to run on one batch."""

    run: Callable[[], Any]  # returns when the result is there
    lower_s: float | None
    compile_s: float | None
    temporaries: int | None  # bytes, where a compiler tells


def jax_program(loss: Callable[..., jax.Array], batch: Batch, mode: str) -> Program:
    """Compile a JAX loss; arrays are arguments, so that nothing is folded away."""

    def mean(logits: jax.Array, *rest: jax.Array) -> jax.Array:
        return jnp.mean(loss(logits, *rest))

    function = mean if mode == "value" else jax.value_and_grad(mean)
    arrays = tuple(jnp.asarray(array) for array in batch[:4])
    start = time.perf_counter()
    lowered = jax.jit(function).lower(*arrays)
    middle = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    memory = compiled.memory_analysis()
    return Program(
        run=lambda: jax.block_until_ready(compiled(*arrays)),
        lower_s=middle - start,
        compile_s=end - middle,
        temporaries=memory.temp_size_in_bytes if memory else None,
    )


def ours(implementation: str, batch: Batch, mode: str) -> Program:
    """`ctc_loss` by the named implementation."""
    loss = functools.partial(
        jax_ctc.ctc_loss, blank_id=batch.blank_id, implementation=implementation
    )
    return jax_program(loss, batch, mode)


def optax_with_lengths(blank_id: int) -> Callable[..., jax.Array]:
    """`optax.ctc_loss`, which takes paddings, given lengths."""

    def loss(
        logits: jax.Array,
        labels: jax.Array,
        logit_lengths: jax.Array,
        label_lengths: jax.Array,
    ) -> jax.Array:
        frames, places = (jnp.arange(x.shape[1]) for x in (logits, labels))
        return optax.ctc_loss(
            logits,
            (frames >= logit_lengths[:, None]).astype(jnp.float32),
            labels,
            (places >= label_lengths[:, None]).astype(jnp.float32),
            blank_id=blank_id,
        )

    return loss


def optax_loss(batch: Batch, mode: str) -> Program:
    """`optax.ctc_loss`."""
    return jax_program(optax_with_lengths(batch.blank_id), batch, mode)


def torch_loss(batch: Batch, mode: str) -> Program:
    """`torch.nn.functional.ctc_loss` after `log_softmax`, on all cores, eager."""
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

    return Program(run, None, None, None)


# The first is the one that ratios are of.
CONTENDERS: dict[str, Callable[[Batch, str], Program]] = {
    "blocked": functools.partial(ours, "blocked"),
    "scan": functools.partial(ours, "scan"),
    "optax": optax_loss,
    "torch": torch_loss,
}

_NEEDS = {"torch": "torch"}


def missing(name: str) -> str | None:
    """Say what package a contender lacks here, or None."""
    package = _NEEDS.get(name)
    if package is None or importlib.util.find_spec(package):
        return None
    return f"skipped: {package} is not installed"
