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

# Beside the least of optimisations: what XLA's compiler for CPUs spends most of the
# rest of its time on.
QUICKLY = {
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
            options = _options(level) if platform == "cpu" else None
            return jax.jit(
                function, static_argnums=static_argnums, compiler_options=options
            )

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            return compiled(jax.default_backend())(*arguments)

        return call

    return decorate


@functools.cache
def _options(level: int) -> dict[str, Any]:
    return known_options({"xla_backend_optimization_level": level, **QUICKLY})


def known_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return those options that this XLA has: they come and go."""
    program, known = jax.jit(lambda: 0).lower(), {}
    for name, value in options.items():
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            program.compile(compiler_options={name: value})
            known[name] = value
    return known
