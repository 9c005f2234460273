"""A value made in one way, with the derivative of another, or with none.

Where the fast way to a number has no derivative, or one that costs more, it is given
the derivative of a plain way to the same number:

    with_derivative_of(plain, fast) = fast        its derivative is that of `plain`

Nothing but that derivative asks for `plain`: XLA never makes it. These are primitives
because a scan drops a `custom_jvp` where its own gradient is differentiated again.
"""

from typing import Any

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jax_ctc._numbers.mapped import in_front


def with_derivative_of(plain: jax.Array, fast: jax.Array) -> jax.Array:
    """Return `fast`, which is `plain` but for rounding, with the derivative of that."""
    return _second.bind(plain, lax.stop_gradient(fast))


def without_derivative(reason: str, array: jax.Array) -> jax.Array:
    """Return the array, and raise NotImplementedError where it is differentiated."""
    return _constant.bind(array, reason=reason)


_second = Primitive("ctc_with_derivative_of")
_constant = Primitive("ctc_without_derivative")


@_second.def_impl
def _run(plain: jax.Array, fast: jax.Array) -> jax.Array:
    del plain
    return fast


@_second.def_abstract_eval
def _type(plain: Any, fast: Any) -> Any:
    del fast
    return plain


def _jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return _second.bind(*primals), tangents[0]


def _batch(values: tuple[Any, Any], axes: tuple[int | None, int | None]) -> Any:
    return _second.bind(*in_front(values, axes)), 0


def _lower(context: Any, plain: Any, fast: Any) -> Any:
    del context, plain
    return [fast]


ad.primitive_jvps[_second] = _jvp
batching.primitive_batchers[_second] = _batch
mlir.register_lowering(_second, _lower)


@_constant.def_impl
def _same(array: jax.Array, **_: Any) -> jax.Array:
    return array


@_constant.def_abstract_eval
def _type_of(array: Any, **_: Any) -> Any:
    return array


def _raise(primals: Any, tangents: Any, *, reason: str) -> Any:
    raise NotImplementedError(reason)


def _batch_one(values: Any, axes: Any, **reason: Any) -> Any:
    return _constant.bind(*values, **reason), axes[0]


ad.primitive_jvps[_constant] = _raise
batching.primitive_batchers[_constant] = _batch_one
mlir.register_lowering(_constant, lambda context, array, **_: [array])
