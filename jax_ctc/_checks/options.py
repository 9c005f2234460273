"""Options that Python knows when a function is traced: a mistake raises at once."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jax_ctc._checks.given import Option
from jax_ctc._checks.host import native

_INT32 = np.iinfo(np.int32)


def check_blank_id(blank_id: Any, num_classes: int | None) -> int:
    """Return the blank as a Python int inside the classes, or raise.

    num_classes: None while it is not known how many there will be.
    """
    index = check_int(blank_id)
    if num_classes is None:
        if index < 0:
            raise ValueError(
                f"`blank_id` must be a class, 0 or more; got {index}. For the last of"
                " V classes pass blank_id=V - 1"
            )
        return index
    if not 0 <= index < num_classes:
        raise ValueError(
            f"`blank_id` must be one of the V={num_classes} classes,"
            f" 0..{num_classes - 1}; got {index}. For the last class pass"
            f" blank_id={num_classes - 1}"
        )
    return index


def check_int(value: Any, *, name: str = "blank_id") -> int:
    """Return an id as a Python int, a class or not, or raise."""
    if isinstance(value, Tracer):
        raise TypeError(
            f"`{name}` must be a Python int, known when the function is traced; got a"
            " traced array. Mark it static (jax.jit static_argnames) or close over it"
        )
    try:
        if isinstance(value, bool | np.bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"`{name}` must be an int; got {value!r} ({type(value).__name__})"
        ) from None


def check_count(count: Any, *, name: str, least: int = 1) -> int:
    """Return a Python int of at least 1, or another least one, or raise."""
    if isinstance(count, Tracer):
        raise TypeError(
            f"`{name}` must be a Python int, known when the function is traced, for it"
            " is the size of an array; got a traced array. Mark it static"
        )
    try:
        if isinstance(count, bool | np.bool):
            raise TypeError
        number = operator.index(count)
    except TypeError:
        raise TypeError(
            f"`{name}` must be an int; got {count!r} ({type(count).__name__})"
        ) from None
    if number < least:
        raise ValueError(f"`{name}` must be at least {least}; got {number}")
    return number


def check_id(value: Any, *, name: str) -> int:
    """Return a label as a Python int, 0 or more, or raise."""
    try:
        if isinstance(value, bool | np.bool):
            raise TypeError
        index = operator.index(value)
    except TypeError:
        raise TypeError(
            f"`{name}` must be an int, known when the function is traced; got"
            f" {value!r} ({type(value).__name__})"
        ) from None
    if index < 0:
        raise ValueError(f"`{name}` must be a class, 0 or more; got {index}")
    return index


def check_key(key: Any) -> jax.Array:
    """Return one random key, typed or raw, or raise."""
    fix = "Pass jax.random.key(seed)"
    if not isinstance(key, jax.Array | np.ndarray):
        raise TypeError(
            f"`key` must be a JAX random key; got {key!r} ({type(key).__name__}). {fix}"
        )
    if isinstance(key, np.ndarray):
        key = native(key)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        axes = key.shape
    elif key.dtype == jnp.uint32 and key.ndim >= 1:
        axes = key.shape[:-1]  # an old-style key is a row of numbers
    else:
        raise TypeError(
            f"`key` must be a JAX random key; got {key.dtype} of shape {key.shape}."
            f" {fix}"
        )
    if axes:
        raise ValueError(
            f"`key` must be one key; got keys of shape {axes}. One key draws for the"
            " whole batch; to give each utterance its own, use jax.vmap"
        )
    return jnp.asarray(key)


def is_logits(inputs: Option) -> bool:
    """Tell scores that are to be normalised from log-probabilities, or raise."""
    return check_option(inputs, ("logits", "log_probs"), name="inputs") == "logits"


def check_wildcard_id(wildcard_id: Any, blank_id: int | None = None) -> int | None:
    """Return the label that stands for anything, or None, or raise."""
    if wildcard_id is None:
        return None
    index = check_int(wildcard_id, name="wildcard_id")
    if index == blank_id:
        raise ValueError(
            f"`wildcard_id` must be another number than `blank_id`; got {index} for"
            " both. Pass one that is no class, such as V"
        )
    if not _INT32.min < index < _INT32.max:
        raise ValueError(f"`wildcard_id` must fit into 32 bits; got {index}")
    return index


def check_number(value: Any, *, name: str) -> Any:
    """Return a float on the device, traced or not, or raise."""
    array = _as_number(value, name)
    # Said aloud: a call of arrays on the device makes no transfer that a guard forbids.
    return array if isinstance(array, Tracer | jax.Array) else jax.device_put(array)


def _as_number(value: Any, name: str) -> Any:
    """Return a float, on the host if it came from there, or raise."""
    if isinstance(value, Tracer | jax.Array):
        array = value
    else:
        try:
            array = np.asarray(value)
        except (ValueError, TypeError):
            array = np.asarray(None)
    is_number = array.dtype != bool and (
        jnp.issubdtype(array.dtype, jnp.floating)
        or jnp.issubdtype(array.dtype, jnp.integer)
    )
    if not is_number or array.shape != ():
        raise TypeError(
            f"`{name}` must be one number, which may be traced; got {value!r}"
        )
    return array.astype(np.float32) if array.dtype != jnp.float64 else array


def check_wildcard_log_prob(value: Any, wildcard_id: int | None) -> Any:
    """Return what a wildcard costs in each frame; None where there is no wildcard."""
    number = _as_number(value, "wildcard_log_prob")
    is_known = not isinstance(number, Tracer | jax.Array)
    if is_known and (np.isnan(number) or number == np.inf):
        raise ValueError(
            "`wildcard_log_prob` must be a finite number of nats, or -inf, with which a"
            f" wildcard is a blank; got {value!r}"
        )
    if wildcard_id is None:
        return None
    return check_number(number, name="wildcard_log_prob")


def check_option(value: Option, choices: tuple[Any, ...], *, name: str) -> Any:
    """Return the value if it is one of the choices, or raise with all of them."""
    if not any(value is c or (isinstance(value, str) and value == c) for c in choices):
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}; got {value!r}"
        )
    return value
