"""A product that can be left out, as can the products of its derivatives.

A `lax.cond` leaves a product out, but JAX's derivative of one hands what is multiplied
from one conditional to the next: for each block of logits, copies of its features and
of its kernel. Products whose axes are each in two of three arrays, or in all of them,
are a family that is its own derivative, so they are a primitive:

    z = einsum("x,y->z")    dz = einsum("dx,y->z") + einsum("x,dy->z")
    transposed              dx = einsum("dz,y->x"),  dy = einsum("x,dz->y")
"""

import functools
import operator
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from jax_ctc._mesh.varying import vary_over, varying


def product_if(
    is_asked: Bool[Array, ""],
    rows: Float[Array, "N D"],
    kernel: Float[Array, "D C"],
    precision: str | None,
    most: int,
) -> Float[Array, "N C"]:
    """Return rows @ kernel, or zeros where it is not asked for.

    `vmap` leaves it out where nobody asks for it. most: over how many classes the
    derivative is summed at once. Over many it rounds too much: sums of as many are
    added up.
    """
    return _product.bind(
        is_asked, rows, kernel, axes="nd,dc->nc", precision=precision, most=most
    )


_product = Primitive("ctc_product_if")


def _of(axes: str) -> tuple[str, str, str]:
    """Return the letters of the operands' axes and of the result's."""
    operands, result = axes.split("->")
    left, right = operands.split(",")
    return left, right, result


@_product.def_impl
def _run(
    is_asked: Any, *operands: Any, axes: str, precision: str | None, most: int
) -> Any:
    def nothing() -> jax.Array:
        like = jax.eval_shape(product)
        return vary_over(jnp.zeros(like.shape, like.dtype), varying(operands[0]))

    product = functools.partial(_multiplied, operands, axes, precision, most)
    return lax.cond(is_asked, product, nothing)


def _multiplied(
    operands: Any, axes: str, precision: str | None, most: int
) -> jax.Array:
    terms = [
        jnp.einsum(axes, *pair, precision=precision)
        for pair in _pieces(operands, axes, most)
    ]
    return functools.reduce(operator.add, terms)


def _pieces(operands: Any, axes: str, most: int) -> Iterator[tuple[Any, Any]]:
    """Split a sum over classes; all other products are one piece."""
    *of_operands, result = _of(axes)
    if "c" in result:
        return iter([operands])
    cut = []
    for array, letters in zip(operands, of_operands, strict=True):
        axis = letters.index("c")
        cut.append(jnp.split(array, tuple(range(most, array.shape[axis], most)), axis))
    return zip(*cut, strict=True)


@_product.def_abstract_eval
def _type(is_asked: Any, x: Any, y: Any, *, axes: str, **_: Any) -> Any:
    of_x, of_y, of_z = _of(axes)
    sizes = dict(zip(of_x + of_y, x.shape + y.shape, strict=True))
    # Of a letter that both have, what one says of its mesh axis.
    places = {
        letter: place
        for letters, array in ((of_x, x), (of_y, y))
        for letter, place in zip(letters, array.sharding.spec, strict=True)
        if place is not None
    }
    spec = PartitionSpec(*(places.get(letter) for letter in of_z))
    return x.update(
        shape=tuple(sizes[letter] for letter in of_z),
        sharding=x.sharding.update(spec=spec),
        weak_type=False,
    )


def _d_left(dx: Any, is_asked: Any, x: Any, y: Any, **static: Any) -> Any:
    del x
    return _product.bind(is_asked, dx, y, **static)


def _d_right(dy: Any, is_asked: Any, x: Any, y: Any, **static: Any) -> Any:
    del y
    return _product.bind(is_asked, x, dy, **static)


def _transpose(
    dz: Any, is_asked: Any, x: Any, y: Any, *, axes: str, **static: Any
) -> Any:
    of_x, of_y, of_z = _of(axes)
    if isinstance(dz, ad.Zero):
        return None, None, None
    if ad.is_undefined_primal(x):
        axes = f"{of_z},{of_y}->{of_x}"
        return None, _product.bind(is_asked, dz, y, axes=axes, **static), None
    axes = f"{of_x},{of_z}->{of_y}"
    return None, None, _product.bind(is_asked, x, dz, axes=axes, **static)


def _batch(values: Any, mapped: Any, *, axes: str, **static: Any) -> Any:
    """Give the new axis a letter of its own in whatever has it."""
    is_asked, *operands = (
        x if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(values, mapped, strict=True)
    )
    if mapped[0] is not None:
        is_asked = jnp.any(is_asked, axis=0)
    letter = next(x for x in "vwxyz" if x not in axes)
    of_new = ["" if axis is None else letter for axis in mapped[1:]]
    of_x, of_y, of_z = _of(axes)
    of_x, of_y, of_z = of_new[0] + of_x, of_new[1] + of_y, max(of_new) + of_z
    out = _product.bind(is_asked, *operands, axes=f"{of_x},{of_y}->{of_z}", **static)
    return out, 0 if max(of_new) else None


ad.defjvp(_product, None, _d_left, _d_right)
ad.primitive_transposes[_product] = _transpose
batching.primitive_batchers[_product] = _batch
mlir.register_lowering(_product, mlir.lower_fun(_run, multiple_results=False))
