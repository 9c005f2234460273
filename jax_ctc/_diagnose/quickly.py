"""Programs of the doctor, compiled for a CPU without much ado.

A first diagnosis is bound by compiling. What it runs a few dozen times gets the least
of LLVM's optimisations, which leaves it as fast; what runs once or twice gets none.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax

ONCE, OFTEN = 0, 1  # levels of optimisation

# XLA's options come and go: those that it does not have are left out.
_QUICKLY = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def jit_quickly(
    level: int, static_argnums: int | tuple[int, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator as `jax.jit`; an accelerator's programs are as ever."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.cache
        def compiled(platform: str) -> Callable[..., Any]:
            options = _known_options(level) if platform == "cpu" else None
            return jax.jit(
                function, static_argnums=static_argnums, compiler_options=options
            )

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            return compiled(jax.default_backend())(*arguments)

        return call

    return decorate


@functools.cache
def _known_options(level: int) -> dict[str, Any]:
    program, known = jax.jit(lambda: 0).lower(), {}
    options = {"xla_backend_optimization_level": level, **_QUICKLY}
    for name, value in options.items():
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            program.compile(compiler_options={name: value})
            known[name] = value
    return known
