"""The one place where decoding does the same in another way on another platform.

What is quick on a CPU is several times slower on an accelerator, and the reverse; and
for which of them a program is, nobody knows before it is lowered.
"""

from collections.abc import Callable
from typing import Any

from jax import lax


def by_platform(
    *arguments: Any,
    cpu: Callable[..., Any],
    default: Callable[..., Any],
    gpu: Callable[..., Any] | None = None,
) -> Any:
    """Return what the function of the platform makes of the arguments.

    All of them return the same; `gpu` is for CUDA and ROCm, `default` by default.
    """
    others = {} if gpu is None else {"cuda": gpu, "rocm": gpu}
    return lax.platform_dependent(*arguments, default=default, cpu=cpu, **others)
