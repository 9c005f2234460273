"""The recursion over a lattice: a contract, a table that keeps it, and one dispatcher.

An implementation is a package with the functions that `Implementation` lists. It knows
the lattice and what `Emissions` lets it ask, and nothing of labels or vocabulary. To
add one: a package here, a line in `TABLE`, and the contract in `tests/contract.py`
passes.
"""

from typing import Any, Protocol, runtime_checkable

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jax_ctc._lattice.protocol import Emissions
from jax_ctc._lattice.topology import Lattice
from jax_ctc._recursion import blocked, scan


@runtime_checkable
class Implementation(Protocol):
    """What every implementation offers; `scan` is the specification of them all.

    States are numbered along the labels: 2n is blank[n], 2n + 1 is label[n].
    """

    def decline(self, dtype: jnp.dtype, platform: str) -> str | None:
        """Say why these scores cannot be handled there, or None if they can."""
        ...

    def forward(self, lattice: Lattice, emissions: Emissions) -> Float[Array, " B"]:
        """Return log p(labels); -inf where impossible, NaN where a frame is bad."""
        ...

    def forward_backward(
        self, lattice: Lattice, emissions: Emissions
    ) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
        """Return log p(labels) and d(-log p) / d scores, exactly 0 where flagged."""
        ...

    def posteriors(
        self, lattice: Lattice, emissions: Emissions
    ) -> tuple[Float[Array, " B"], Float[Array, "T B U"], Float[Array, "T B U+1"]]:
        """Return log p(labels), and the posteriors of the labels and of the blanks."""
        ...

    def best_path(
        self, lattice: Lattice, emissions: Emissions
    ) -> tuple[Float[Array, " B"], Int[Array, "T B"]]:
        """Return the largest log-probability of a path, and that path's states."""
        ...

    def sample_paths(
        self, lattice: Lattice, emissions: Emissions, uniforms: Float[Array, "T B N"]
    ) -> tuple[Float[Array, " B"], Int[Array, "T B N"]]:
        """Return log p(labels), and the states of N paths drawn given the labels."""
        ...

    def entropy(
        self, lattice: Lattice, emissions: Emissions
    ) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        """Return log p(labels), and the entropy of the paths that say them, in nats."""
        ...

    def entropy_backward(
        self, lattice: Lattice, emissions: Emissions
    ) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, "B T V"]]:
        """Return log p(labels), the entropy and d entropy / d scores, 0 if flagged."""
        ...


# In order of preference. `scan` accepts everything, so the search always ends.
TABLE: dict[str, Implementation] = {"blocked": blocked, "scan": scan}

NAMES = tuple(TABLE)

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def forward(
    name: str | None, lattice: Lattice, emissions: Emissions
) -> Float[Array, " B"]:
    """Return log p(labels) by the named implementation, or by the platform's best."""
    log_z = _dispatch(name, "forward", lattice, emissions)
    chex.assert_equal_shape((log_z, lattice.num_labels))
    return log_z


def forward_backward(
    name: str | None, lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and d(-log p) / d scores, from one forward pass."""
    log_z, gradient = _dispatch(name, "forward_backward", lattice, emissions)
    chex.assert_equal_shape((log_z, lattice.num_labels))
    chex.assert_equal_shape((gradient, emissions.scores))
    chex.assert_type(gradient, emissions.scores.dtype)
    return log_z, gradient


def posteriors(
    name: str | None, lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "T B U"], Float[Array, "T B U+1"]]:
    """Return log p(labels), and the posteriors of the labels and of the blanks."""
    return _dispatch(name, "posteriors", lattice, emissions)


def best_path(
    name: str | None, lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Int[Array, "T B"]]:
    """Return the largest log-probability of a path, and that path's states."""
    return _dispatch(name, "best_path", lattice, emissions)


def sample_paths(
    name: str | None,
    lattice: Lattice,
    emissions: Emissions,
    uniforms: Float[Array, "T B N"],
) -> tuple[Float[Array, " B"], Int[Array, "T B N"]]:
    """Return log p(labels), and the states of N paths drawn given the labels."""
    return _dispatch(name, "sample_paths", lattice, emissions, uniforms)


def entropy(
    name: str | None, lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return log p(labels), and the entropy of the paths that say them, in nats."""
    return _dispatch(name, "entropy", lattice, emissions)


def entropy_backward(
    name: str | None, lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels), the entropy and d entropy / d scores, 0 where flagged."""
    return _dispatch(name, "entropy_backward", lattice, emissions)


def _dispatch(
    name: str | None, method: str, lattice: Lattice, emissions: Emissions, *more: Any
) -> Any:
    """Run the named implementation or its error; for None, the first that accepts.

    The platform is not known while tracing (a program may be exported for another), so
    where the first that accepts differs between platforms, lowering chooses.

    Raises:
        NotImplementedError: the named one declines; the message says why.
    """
    dtype = emissions.scores.dtype
    if name is not None:
        reason = TABLE[name].decline(dtype, jax.default_backend())
        if reason:
            raise NotImplementedError(f"{name}: {reason}. Or pass implementation=None")
        return getattr(TABLE[name], method)(lattice, emissions, *more)
    best = {platform: _first(dtype, platform) for platform in _PLATFORMS}
    default = getattr(TABLE[best["cpu"]], method)
    others = {
        platform: getattr(TABLE[choice], method)
        for platform, choice in best.items()
        if choice != best["cpu"]
    }
    if not others:
        return default(lattice, emissions, *more)
    return lax.platform_dependent(lattice, emissions, *more, default=default, **others)


def _first(dtype: jnp.dtype, platform: str) -> str:
    return next(n for n, module in TABLE.items() if not module.decline(dtype, platform))
