"""Mesh axes inside `shard_map`: what varies over which, and which derivatives hold.

Inside `shard_map` a value either varies over a mesh axis or is the same on all of its
devices, and that is part of its type. A scan whose carry starts as a constant and then
varies is a type error; and a derivative taken inside a rule, with respect to scores
that do not vary while the labels do, would be summed over devices there and then, and
once more outside. Where all inputs vary alike, neither can happen; the sum is left to
the transpose of the cast, outside.

With `check_vma=False`, in `pmap` and in a `vmap` with a named axis, types do not say
what varies. There JAX transposes a sum over devices to another sum over devices, which
is right for a derivative taken outside, and too large by the number of devices for one
taken inside. No function can tell from which side it is differentiated, so there sums
over devices have values here, and no derivatives.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, AxisType

from jax_ctc._numbers.derivatives import without_derivative


def vary_alike(
    *arrays: jax.Array, sharded: tuple[str, ...] = ()
) -> tuple[jax.Array, ...]:
    """Return the arrays, each varying over every axis that any of them varies over.

    Axes in `sharded` are left out: they hold parts of an utterance, of which the first
    array has one each, while the others stay whole.
    """
    axes = [varying(array) for array in arrays]
    union = frozenset().union(*axes) - frozenset(sharded)
    return tuple(vary_over(array, union) for array in arrays)


def vary_over(array: jax.Array, axes: Iterable[str]) -> jax.Array:
    """Return the array, varying over these axes too."""
    return lax.pcast(array, tuple(sorted(set(axes) - varying(array))), to="varying")


def varying(array: jax.Array) -> frozenset[str]:
    """Return the mesh axes that an array varies over, where types tell."""
    return jax.typeof(array).manual_axis_type.varying


def explicit_axes(mesh: AbstractMesh) -> frozenset[str]:
    """Return the mesh axes that types show."""
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return frozenset(axis for axis, kind in kinds if kind == AxisType.Explicit)


def steady_scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    *,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """Return `lax.scan`, its carry varying as all of carry and xs do, in every step.

    An array of size 0 is otherwise left behind: `jnp.where` and others replace it by a
    constant, which varies over nothing.
    """
    axes = frozenset().union(*map(varying, jax.tree.leaves((carry, xs))))

    def vary(tree: Any) -> Any:
        return jax.tree.map(lambda x: vary_over(x, axes), tree)

    def steady(carry: Any, x: Any) -> tuple[Any, Any]:
        carry, out = step(carry, x)
        return vary(carry), out

    return lax.scan(steady, vary(carry), xs, reverse=reverse, unroll=unroll)


def axis_size(axes: tuple[Any, ...]) -> int:
    """Return the number of devices along these axes, which must be bound."""
    return lax.axis_size(axes) if axes else 1


def anywhere(flags: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Tell where a flag is set on any device along the axes."""
    if not axes:
        return flags
    return lax.psum(flags.astype(jnp.int32), axes) > 0


def is_tracked(axes: tuple[Any, ...]) -> bool:
    """Tell whether types say what varies over these axes, which must be bound."""
    return all(axis in varying(lax.axis_index(axis)) for axis in axes)


def as_axes(value: Any, name: str) -> tuple[str, ...]:
    """Return the names in an argument: none, one, or a tuple of them."""
    if value is None:
        return ()
    axes = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not all(isinstance(axis, str) for axis in axes):
        raise TypeError(
            f"`{name}` must be the name of a mesh axis, or a tuple of names;"
            f" got {value!r}"
        )
    for axis in axes:
        if axes.count(axis) > 1:
            raise ValueError(f"`{name}` names {axis!r} twice: {show(axes)}")
    return axes


def is_bound(axis: str) -> bool:
    """Tell whether this runs inside a map over that axis."""
    try:
        lax.axis_size(axis)
    except NameError:
        return False
    return True


def show(axes: tuple[str, ...]) -> str:
    """Return names as an error shows them."""
    return ", ".join(map(repr, axes)) or "none"


def value_only(caller: str, array: jax.Array) -> jax.Array:
    """Return the array, and raise where it is differentiated."""
    reason = (
        f"{caller} adds up over devices, and has no derivative where types do not say"
        " what varies over them: JAX would multiply it by the number of devices. Use"
        " jax.shard_map with check_vma=True (the default), not check_vma=False, pmap or"
        " vmap(axis_name=...)"
    )
    return without_derivative(reason, array)
