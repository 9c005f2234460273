"""The beam: W prefixes of one utterance, and all that is known of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._decoding.names import Name, constant
from jax_ctc._decoding.parents import EMPTY, NOBODYS_PARENT
from jax_ctc._numbers.masks import positions


class Beam(NamedTuple):
    """Prefixes, the best rated first; a place with a total of -inf is empty.

    Where the number of labels is limited, those that have them all come last.
    """

    blank: Float[Array, " W"]  # nats, of the paths that end in blank
    label: Float[Array, " W"]  # and of those that end in the last label
    total: Float[Array, " W"]  # of both
    last: Int[Array, " W"]  # the last label; -1: there is none
    length: Int[Array, " W"]
    name: Name
    parent: Name
    extra: Float[Array, " W"]  # what the guide adds to the total
    states: Any  # of the guide


def of_nothing(zeros: Float[Array, " W"], states: Any) -> Beam:
    """Return the beam before the first frame: the empty prefix, and empty places."""
    total = jnp.where(positions(zeros.shape[0]) == 0, zeros, -jnp.inf)
    none = zeros.astype(jnp.int32)
    return Beam(
        blank=total,
        label=jnp.full_like(zeros, -jnp.inf),
        total=total,
        last=none - 1,
        length=none,
        name=constant(none, EMPTY),
        parent=constant(none, NOBODYS_PARENT),
        extra=zeros,
        states=states,
    )


def at(tree: Any, index: Int[Array, " M"]) -> Any:
    """Return every array of the tree, all [W], at some of its places.

    Arrays of one dtype are read side by side: one operation, not one for each.
    """
    leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, tree))
    found: list[Any] = [None] * len(leaves)
    bits = [_bits(leaf) for leaf in leaves]
    for dtype in {each.dtype for each in bits}:
        places = [n for n, each in enumerate(bits) if each.dtype == dtype]
        columns = jnp.stack([bits[n] for n in places], axis=-1)
        columns = columns.at[index].get(mode="promise_in_bounds")
        for column, n in enumerate(places):
            found[n] = lax.bitcast_convert_type(columns[..., column], leaves[n].dtype)
    return jax.tree.unflatten(treedef, found)


def _bits(array: jax.Array) -> jax.Array:
    """Return the parts of names as the integers that labels are."""
    is_name = array.dtype == jnp.uint32
    return lax.bitcast_convert_type(array, jnp.int32) if is_name else array


def where(condition: Any, this: Any, other: Any) -> Any:
    """Return the arrays of one tree where the condition holds, else of the other."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), this, other)


def add_logs(a: Float[Array, " W"], b: Float[Array, " W"]) -> Float[Array, " W"]:
    """Return log(exp a + exp b): `jnp.logaddexp`, and of two -inf no NaN on the way."""
    high, low = jnp.maximum(a, b), jnp.minimum(a, b)
    finite = jnp.where(jnp.isfinite(high), high, 0)
    return high + jnp.log1p(jnp.exp(low - finite))
