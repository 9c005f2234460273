"""What a search goes by besides the scores: language models, hotwords, a bonus.

Whatever guides a search is a pytree with four methods, and sees one utterance:

    initial()             -> state                    the state of the empty prefix
    score(state, labels)  -> [W, K] nats              of each label after each state
    advance(state, label) -> state                    of [W] prefixes by [W] labels
    end(state)            -> [W] nats                 of nothing more to come

A state is any pytree of arrays, [] in `initial` and [W] elsewhere; labels are class
ids, never the blank.
"""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._checks.arrays import check_labels, check_lengths
from jax_ctc._checks.given import ArrayLike
from jax_ctc._checks.labels import narrow
from jax_ctc._lattice.pose import or_full
from jax_ctc._numbers.masks import is_inside


@runtime_checkable
class LanguageModel(Protocol):
    """Anything that rates labels by those before them."""

    def initial(self) -> Any:
        """Return the state before the first label, without axes."""
        ...

    def score(self, state: Any, labels: Int[Array, " K"]) -> Float[Array, "W K"]:
        """Return log p of each label after each state, in nats."""
        ...

    def advance(self, state: Any, label: Int[Array, " W"]) -> Any:
        """Return the states after one more label each."""
        ...

    def end(self, state: Any) -> Float[Array, " W"]:
        """Return log p that nothing follows, in nats."""
        ...


class Guide(NamedTuple):
    """Models, each with its weight, and what every label is worth."""

    models: tuple[Any, ...]
    weights: tuple[Any, ...]  # numbers
    label_bonus: Any  # a number

    def initial(self, like: Float[Array, " W"]) -> tuple[Any, ...]:
        """Return the states of W empty prefixes."""
        shape = like.shape
        return tuple(
            jax.tree.map(
                lambda x: jnp.broadcast_to(jnp.asarray(x), shape + jnp.shape(x)),
                model.initial(),
            )
            for model in self.models
        )

    def score(
        self, states: tuple[Any, ...], labels: Int[Array, " K"], like: jax.Array
    ) -> Float[Array, "W K"] | Float[Array, ""]:
        """Return what each label would add to each prefix's score."""
        total = jnp.asarray(self.label_bonus, like.dtype)
        for model, weight, state in zip(self.models, self.weights, states, strict=True):
            gain = model.score(state, labels).astype(like.dtype)
            # A weight of 0 switches a model off, with what it holds impossible.
            weighed = jnp.where(weight == 0, 0, jnp.asarray(weight, like.dtype) * gain)
            total = total + weighed
        return total

    def advance(self, states: tuple[Any, ...], label: Int[Array, " W"]) -> Any:
        """Return the states after one more label each."""
        return tuple(
            model.advance(state, label)
            for model, state in zip(self.models, states, strict=True)
        )

    def end(self, states: tuple[Any, ...], like: Float[Array, " W"]) -> jax.Array:
        """Return what the end adds to each prefix's score."""
        total = jnp.zeros_like(like)
        for model, weight, state in zip(self.models, self.weights, states, strict=True):
            final = model.end(state).astype(like.dtype)
            weighed = jnp.where(weight == 0, 0, jnp.asarray(weight, like.dtype) * final)
            total = total + weighed
        return total


def score_sequences(
    model: LanguageModel, labels: ArrayLike, lengths: ArrayLike | None
) -> Float[Array, "..."]:
    """Return what a model says of whole label sequences, their end included."""
    labels = check_labels(labels)
    leading, size = labels.shape[:-1], labels.shape[-1]
    lengths = check_lengths(lengths, leading, name="lengths", of="labels")
    lengths = None if lengths is None else jnp.asarray(lengths)
    lengths = narrow(or_full(lengths, leading, size))
    labels = narrow(jnp.asarray(labels)).reshape(math.prod(leading), size)
    is_label = is_inside(lengths.reshape(-1), size)

    def add(carry: tuple, item: tuple) -> tuple[tuple, None]:
        states, total = carry
        label, is_label = item

        def rate(state: Any, label: Int[Array, ""]) -> Float[Array, ""]:
            row = jax.tree.map(lambda x: x[None], state)
            return model.score(row, label[None])[0, 0]

        total = total + jnp.where(is_label, jax.vmap(rate)(states, label), 0)
        states = jax.tree.map(
            lambda new, old: jnp.where(is_label, new, old),
            model.advance(states, label),
            states,
        )
        return (states, total), None

    zero = jnp.zeros((labels.shape[0],), jnp.float32)
    start = Guide((model,), (1.0,), 0.0).initial(zero)[0], zero
    # What pads the labels may be no label.
    clean = jnp.where(is_label, labels, 0)
    (states, total), _ = lax.scan(add, start, (clean.T, is_label.T))
    return (total + model.end(states)).reshape(leading)
