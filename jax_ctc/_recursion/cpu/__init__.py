"""CPUs: the recursion as one call into C++, which keeps the loop over frames inside.

`kernel/` has the source, which XLA calls through its foreign function interface, on the
threads of its own pool: one utterance a task. An utterance is walked from both ends to
the middle and back, so that one code serves alpha and beta, and an utterance alone uses
two threads. The results do not depend on the number of threads.

Arithmetic is that of `blocked`: extended range, float32 inside. Beyond scores and
gradient a thread holds one utterance's rows, all of them or about sqrt(T), 2 MB at
most for utterances of usual length.

The kernel checks all that it indexes by: an id, a length or a number of labels outside
its range means an utterance without a path, never memory of somebody else's.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_ctc._lattice.problem import Problem
from jax_ctc._recursion.contract import Traits
from jax_ctc._recursion.cpu import library

PLATFORM = "cpu"
HAS_RUN_ON: str | None = "AMD EPYC (Zen 3), 2 cores"

_DTYPES = ("float32", "bfloat16", "float16")


def decline(traits: Traits) -> str | None:
    """Say in a sentence why the kernel cannot do this here, or None."""
    if jnp.dtype(traits.dtype).name not in _DTYPES:
        return f"it takes {', '.join(_DTYPES)}, and this is {traits.dtype}"
    sizes = (traits.num_frames, traits.num_classes, traits.num_labels)
    # Symbolic sizes (`jax.export`) are no numbers; there plain XLA runs anyway.
    if any(isinstance(size, int) and size >= 2**29 for size in sizes):
        return "it takes fewer than 2**29 frames, classes and labels"
    return library.missing()


def forward(problem: Problem, *, normalise: bool) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    [log_z] = _call(
        library.FORWARD, problem, normalise, [_like(problem.num_labels, jnp.float32)]
    )
    return log_z


def forward_backward(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and d(-log p) / d scores, exactly 0 where flagged."""
    results = [
        _like(problem.num_labels, jnp.float32),
        _like(problem.scores, problem.scores.dtype),
    ]
    log_z, gradient = _call(library.FORWARD_BACKWARD, problem, normalise, results)
    return log_z, gradient


def best_path(
    problem: Problem, *, normalise: bool
) -> tuple[Float[Array, " B"], Int[Array, "B T"]]:
    """Return the largest log-probability of a path, and that path's states."""
    results = [
        _like(problem.num_labels, jnp.float32),
        _like(problem.scores, jnp.int32, rank=2),
    ]
    log_p, states = _call(library.BEST_PATH, problem, normalise, results)
    return log_p, states


def _call(name: str, problem: Problem, normalise: bool, results: list[Any]) -> Any:
    reason = library.missing()  # else it is registered now
    if reason:
        raise NotImplementedError(f"cpu: {reason}")
    return jax.ffi.ffi_call(name, results)(
        problem.scores,
        problem.ids,
        problem.can_skip,
        problem.num_labels,
        problem.logit_lengths,
        normalise=np.bool_(normalise),
    )


def _like(array: Any, dtype: Any, rank: int | None = None) -> jax.ShapeDtypeStruct:
    """Return the type of a result that has the array's axes, or the first few.

    Inside `shard_map` the mesh axes that it varies over are part of it, and its
    sharding.
    """
    aval = jax.typeof(array)
    sharding = aval.sharding
    if rank is not None:
        sharding = sharding.update(spec=sharding.spec[:rank])
    return jax.ShapeDtypeStruct(
        aval.shape[:rank],
        dtype,
        sharding=sharding,
        manual_axis_type=aval.manual_axis_type,
    )
