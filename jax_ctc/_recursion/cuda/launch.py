"""A CUDA kernel as one operation of an XLA program, which carries its PTX text.

XLA runs such text itself: no compiler and no host code of ours are needed, and the
driver turns it into machine code when the program is loaded. Sizes travel in an array.
"""

import functools
import importlib.resources
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

_TARGET = "__gpu$xla.gpu.ptx"


@functools.cache
def ptx_of(kernel: str) -> str:
    """Return the text of a kernel."""
    folder = importlib.resources.files("jax_ctc._recursion.cuda") / "kernels"
    return (folder / f"{kernel}.ptx").read_text()


def launch(
    kernel: str,
    results: Sequence[jax.ShapeDtypeStruct],
    operands: Sequence[jax.Array],
    *,
    grid: int,
    block: int,
    aliases: dict[int, int] | None = None,
) -> list[jax.Array]:
    """Run a kernel on so many blocks of so many threads.

    Its parameters are pointers: of the operands, then of the results. `aliases` names
    operands whose buffers become results.
    """
    one, none = np.int32(1), np.int32(0)
    attributes: dict[str, Any] = {
        "name": kernel,
        "kernel_type": "ptx",
        "kernel_data": ptx_of(kernel),
        "grid_x": np.int32(grid),
        "grid_y": one,
        "grid_z": one,
        "block_x": np.int32(block),
        "block_y": one,
        "block_z": one,
        "shared_mem_bytes": none,
    }
    types = [_varying_as(operands[0], result) for result in results]
    call = jax.ffi.ffi_call(_TARGET, types, input_output_aliases=aliases)
    return list(call(*operands, **attributes))


def _varying_as(operand: Any, result: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Return the type of a result that varies over the operand's mesh axes.

    Inside `shard_map` these are part of it, and so is a sharding.
    """
    aval = jax.typeof(operand)
    return jax.ShapeDtypeStruct(
        result.shape,
        result.dtype,
        sharding=aval.sharding.update(spec=PartitionSpec(*[None] * len(result.shape))),
        manual_axis_type=aval.manual_axis_type,
    )
