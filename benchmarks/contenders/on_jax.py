"""The losses written in JAX: ours, Optax's and Keras's, compiled in the same way."""

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

import jax_ctc
from benchmarks.contenders.program import Program
from benchmarks.contenders.trace import profiled
from jax_ctc._recursion.cpu import library
from tests.cases import Batch

Loss: TypeAlias = Callable[..., jax.Array]


def in_mode(loss: Loss, mode: str) -> Callable[..., Any]:
    """Return the mean of a loss, or that and its gradient."""

    def mean(logits: jax.Array, *rest: jax.Array) -> jax.Array:
        return jnp.mean(loss(logits, *rest))

    return mean if mode == "value" else jax.value_and_grad(mean)


def jax_program(name: str, batch: Batch, mode: str) -> Program:
    """Compile a JAX loss; arrays are arguments, so that nothing is folded away."""
    function = in_mode(LOSSES[name](batch.blank_id), mode)
    arrays = tuple(jnp.asarray(array) for array in batch[:4])
    start = time.perf_counter()
    lowered = jax.jit(function).lower(*arrays)
    middle = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    memory = compiled.memory_analysis()

    def run() -> Any:
        return jax.block_until_ready(compiled(*arrays))

    return Program(
        run=run,
        lower_s=middle - start,
        compile_s=end - middle,
        temporaries=memory.temp_size_in_bytes if memory else None,
        needs=memory.temp_size_in_bytes + memory.output_size_in_bytes
        if memory
        else None,
        kernel_bytes=library.most_bytes if name == "cpu" else None,
        profile=functools.partial(profiled, run) if _has_gpu() else None,
    )


def _has_gpu() -> bool:
    return jax.default_backend() == "gpu"


def ours(implementation: str | None, blank_id: int) -> Loss:
    """`ctc_loss` by the named implementation, or by the default."""
    return functools.partial(
        jax_ctc.ctc_loss, blank_id=blank_id, implementation=implementation
    )


def optax_loss(blank_id: int) -> Loss:
    """`optax.ctc_loss`, which takes paddings for lengths."""

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


def keras_loss(blank_id: int) -> Loss:
    """`keras.ops.ctc_loss` on its JAX backend; `output` are logits."""
    keras: Any = importlib.import_module("keras")
    if keras.backend.backend() != "jax":
        raise RuntimeError("keras was imported before, with another backend")

    def loss(
        logits: jax.Array,
        labels: jax.Array,
        logit_lengths: jax.Array,
        label_lengths: jax.Array,
    ) -> jax.Array:
        return keras.ops.ctc_loss(
            labels, logits, label_lengths, logit_lengths, mask_index=blank_id
        )

    return loss


# By name: given the blank, a loss of (logits, labels, logit_lengths, label_lengths).
LOSSES: dict[str, Callable[[int], Loss]] = {
    "cpu": functools.partial(ours, "cpu"),
    "cuda": functools.partial(ours, "cuda"),
    "blocked": functools.partial(ours, "blocked"),
    "scan": functools.partial(ours, "scan"),
    "optax": optax_loss,
    "keras": keras_loss,
}
