"""The losses that are compared, each in the form its users write.

A contender turns a batch and a mode into a `Program`. "value" is the mean loss of the
batch; "value_and_grad" is that and its gradient with respect to the logits.
"""

import functools
import importlib.util
import os
from collections.abc import Callable, Iterable

import jax

import jax_ctc
from benchmarks.contenders.on_jax import jax_program
from benchmarks.contenders.on_tensorflow import tensorflow_loss
from benchmarks.contenders.on_torch import torch_loss
from benchmarks.contenders.program import MODES, Program
from tests.cases import Batch

__all__ = ["CONTENDERS", "MODES", "SWEPT", "Program", "here", "missing"]

# Read once, when Keras is first imported; and TensorFlow imports Keras.
os.environ["KERAS_BACKEND"] = "jax"
# Read when a library with OpenMP is loaded: threads that have nothing to do would go on
# spinning, on a core that the next contender needs.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")

# The first that runs is the one that ratios are of.
CONTENDERS: dict[str, Callable[[Batch, str], Program]] = {
    "cpu": functools.partial(jax_program, "cpu"),
    "cuda": functools.partial(jax_program, "cuda"),
    "blocked": functools.partial(jax_program, "blocked"),
    "scan": functools.partial(jax_program, "scan"),
    "optax": functools.partial(jax_program, "optax"),
    "torch": torch_loss,
    "torch_cudnn": functools.partial(torch_loss, cudnn=True),
    "tf_sparse": functools.partial(tensorflow_loss, True),
    "tf_dense": functools.partial(tensorflow_loss, False),
    "keras": functools.partial(jax_program, "keras"),
}
SWEPT = ("cpu", "cuda", "blocked", "optax", "torch", "torch_cudnn")

_ON_GPU = {"cuda", "torch_cudnn"}
# TensorFlow is installed without its GPU parts, and would run on the CPU.
_ON_CPU = {"cpu", "tf_sparse", "tf_dense"}
_NEEDS = {
    "torch": "torch",
    "torch_cudnn": "torch",
    "tf_sparse": "tensorflow",
    "tf_dense": "tensorflow",
    "keras": "keras",
}


def here(names: Iterable[str]) -> list[str]:
    """Return those that are for the kind of device that JAX runs on."""
    others = _ON_CPU if jax.default_backend() == "gpu" else _ON_GPU
    return [name for name in names if name not in others]


def missing(name: str) -> str | None:
    """Say what a contender lacks here, or None."""
    for guest in jax_ctc.implementations():
        if guest.name == name and guest.declines:
            return f"skipped: {guest.declines}"
    if name not in here([name]):
        return f"skipped: it is for another device than {jax.default_backend()}"
    package = _NEEDS.get(name)
    if package is None or importlib.util.find_spec(package):
        return None
    return f"skipped: {package} is not installed"
