"""One frame in log space, the sum over the ways into each state, and the end.

    blank'[n] = log p_t(blank)    + log-sum(blank[n], label[n-1])
    label'[n] = log p_t(labels_n) + log-sum(label[n], blank[n], can_skip[n]: label[n-1])

With a maximum in place of the log-sum it is the best path's step: `join` is which.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jax_ctc._lattice.emissions import LogEmissions
from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers.extended import LOG_CUTOFF
from jax_ctc._numbers.masks import is_at


class State(NamedTuple):
    """One frame's alpha: nats below `high + low`, so that its maximum is 0."""

    blank: Float[Array, "B S"]
    label: Float[Array, "B U"]
    high: Float[Array, " B"]  # the sum of the maxima taken out so far ...
    low: Float[Array, " B"]  # ... and what rounding lost of it


class Ways(NamedTuple):
    """The ways into each state, before the frame's emission: stay, move, skip."""

    blank: tuple[jax.Array, jax.Array]  # from blank[n], label[n-1]
    label: tuple[jax.Array, jax.Array, jax.Array]  # from label[n], blank[n], label[n-1]


Join: TypeAlias = Callable[..., jax.Array]


def frames_of(log: LogEmissions) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return what a scan over frames reads."""
    return log.blank, log.label, log.log_shift


def initial(problem: Problem, log: LogEmissions) -> State:
    """Return alpha before the first frame: blank[0] = 1, so log 1 = 0."""
    # Inside `shard_map` zeros made from the scores vary as the scores do.
    zero = jnp.zeros_like(log.log_shift[0])
    num_labels = problem.can_skip.shape[1]
    start = jnp.zeros_like(problem.num_labels)
    blank = jnp.where(is_at(start, num_labels + 1), zero[:, None], -jnp.inf)
    label = jnp.where(is_at(start - 1, num_labels), zero[:, None], -jnp.inf)
    return State(blank, label, zero, zero)


def ways_into(problem: Problem, alpha: State) -> Ways:
    """Return what each state of the next frame can come from, nearest first."""
    previous = jnp.pad(alpha.label, ((0, 0), (1, 0)), constant_values=-jnp.inf)
    stay = alpha.blank[:, :-1]  # [B, U]
    skip = jnp.where(problem.can_skip, previous[:, :-1], -jnp.inf)  # [B, U]
    return Ways((alpha.blank, previous), (alpha.label, stay, skip))


def log_sum(*terms: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log(sum(exp(terms))), with value -inf and gradient 0 for all -inf.

    | terms         | value | gradient          |
    |---------------|-------|-------------------|
    | some finite   | lse   | softmax of terms  |
    | all -inf      | -inf  | 0 for every term  |
    """
    peak = terms[0]
    for term in terms[1:]:
        peak = jnp.maximum(peak, term)
    is_zero = peak == -jnp.inf
    peak = lax.stop_gradient(jnp.where(is_zero, 0, peak))
    # What lies below the peak, and each tie but the first: next to a 1 it would round.
    below, peaks = 0, 0
    for term in terms:
        is_peak = (term == peak).astype(term.dtype)
        below, peaks = below + (jnp.exp(term - peak) - is_peak), peaks + is_peak
    rest = below + (peaks - 1)
    return jnp.where(is_zero, -jnp.inf, jnp.log1p(jnp.where(is_zero, 0, rest)) + peak)


def advance(
    problem: Problem, alpha: State, frame: tuple, join: Join = log_sum
) -> State:
    """Return alpha of the next frame, normalised by its maximum."""
    emit_blank, emit_label, log_shift = frame  # [B, 1] (or [B, U+1]), [B, U], [B]
    ways = ways_into(problem, alpha)
    blank = emit_blank + join(*ways.blank)  # [B, U+1]
    label = emit_label + join(*ways.label)  # [B, U]
    peak = jnp.maximum(jnp.max(blank, axis=1), jnp.max(label, axis=1, initial=-jnp.inf))
    peak = lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, 0))  # [B]
    high, low = _accumulate(alpha.high, alpha.low, peak)
    high, low = _accumulate(high, low, log_shift)
    return State(blank - peak[:, None], label - peak[:, None], high, low)


def log_z(problem: Problem, end: State, join: Join = log_sum) -> Float[Array, " B"]:
    """Read log(blank[N] + label[N-1]); -inf where no path can end."""
    return at_end(problem, log_prefixes(problem, end, join), -jnp.inf)


def log_prefixes(
    problem: Problem, end: State, join: Join = log_sum
) -> Float[Array, "B S"]:
    """Read log(blank[n] + label[n-1]); beyond the cut-off it counts as impossible.

    As if one more frame followed, sure to be blank.
    """
    value = join(*ways_into(problem, end).blank)
    is_zero = ~(value + end.high[:, None] > LOG_CUTOFF)
    total = jnp.where(is_zero, 0, value) + end.low[:, None] + end.high[:, None]
    return jnp.where(is_zero, -jnp.inf, total)


def at_end(problem: Problem, row: Array, empty: float | int) -> Array:
    """Return row[b, N], or `empty`, less than all, where no path can end."""
    here = is_at(problem.num_labels, row.shape[1])
    return jnp.max(jnp.where(here, row, jnp.asarray(empty, row.dtype)), axis=1)


def _accumulate(
    high: Float[Array, " B"], low: Float[Array, " B"], term: Float[Array, " B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return high + low + term, with what rounding lost kept in `low`."""
    total = high + term
    of_term = lax.stop_gradient(total - high)
    # The lost part is a constant of rounding: its derivative is 0, not a difference.
    lost = lax.stop_gradient((high - (total - of_term)) + (term - of_term))
    return total, low + lost
