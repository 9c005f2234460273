"""Arrays that came on the host: read as what they say, or refused by name.

JAX misreads an array in the other byte order, which many file formats have: once the
same shape has been compiled, its bytes go to the device as they are. So whatever comes
as an array of the host passes through here.
"""

from typing import Any, TypeAlias

import jax
import numpy as np

from jax_ctc._checks.given import ArrayLike

Checked: TypeAlias = jax.Array | np.ndarray

FLOATS = ("float32", "bfloat16", "float16", "float64")
_INT32 = np.iinfo(np.int32)


def native(array: np.ndarray) -> np.ndarray:
    """Return the same numbers in the byte order of this machine."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_array(value: ArrayLike, name: str) -> Checked:
    """Return an array, or raise; ragged lists and objects are no arrays.

    What came on the host stays there, for helpers that work in a data pipeline; `jit`
    moves the rest.
    """
    if isinstance(value, jax.Array):
        return value
    try:
        host = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TypeError(_no_array(value, name, error)) from None
    if host.dtype.kind not in "biufc" and host.dtype.name not in FLOATS:
        raise TypeError(
            f"`{name}` must be an array of numbers; got {type(value).__name__} with"
            f" dtype {host.dtype}"
        )
    host = native(host)
    if host.dtype.kind in "iu" and host.dtype.itemsize == 8:
        # JAX would keep the low 32 bits, and a wild id could become a good one.
        return np.asarray(np.clip(host, _INT32.min, _INT32.max), np.int32)
    return host


def _no_array(value: Any, name: str, error: Exception) -> str:
    """Say why NumPy cannot read it: ragged rows of a list, or what a tensor has to say.

    PyTorch's have no bfloat16 in NumPy, lie on another device, or want a gradient.
    """
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    dtype = getattr(value, "dtype", None)
    if isinstance(value, list | tuple):
        return (
            f"`{name}` must be a rectangular array; got {type(value).__name__}"
            f" ({error}). Pad rows to one length and pass the lengths"
        )
    of_dtype = "" if dtype is None else f" of {dtype}"
    return (
        f"`{name}` must be an array that NumPy or JAX can read; got {kind}{of_dtype}"
        f" ({error}). Of a PyTorch tensor pass jax.dlpack.from_dlpack({name}.detach()),"
        f" or {name}.detach().cpu().float().numpy()"
    )
