"""The sum over all paths in log space, and its gradient by autodiff."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jax_ctc._extended import LOG_CUTOFF
from jax_ctc._mask import is_at
from jax_ctc._recursion.relay import Leg, relay
from jax_ctc._types import Emissions, Lattice, LogEmissions


class State(NamedTuple):
    """One frame's alpha: nats below `high + low`, so that its maximum is 0."""

    blank: Float[Array, "B U+1"]
    label: Float[Array, "B U"]
    high: Float[Array, " B"]  # the sum of the maxima taken out so far ...
    low: Float[Array, " B"]  # ... and what rounding lost of it


def forward(lattice: Lattice, emissions: Emissions) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    log = emissions.read_all()

    def run(state: State) -> State:
        frames = log.blank, log.label, log.log_shift
        return lax.scan(
            lambda state, frame: (_advance(lattice, state, frame), None), state, frames
        )[0]

    start = _initial(lattice, log)
    if emissions.time_axes:  # differentiated, only the turns' states are kept
        leg = Leg(jax.checkpoint(run), start)
        [(_, end)] = relay(leg, axes=emissions.time_axes)
    else:
        end = run(start)
    return jnp.where(log.is_bad, jnp.nan, _log_z(lattice, end))


def forward_backward(
    lattice: Lattice, emissions: Emissions
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p, by reverse-mode autodiff."""
    log_z, pull = jax.vjp(
        lambda scores: forward(lattice, emissions.with_scores(scores)),
        emissions.scores,
    )
    return log_z, pull(-jnp.ones_like(log_z))[0]


def _initial(lattice: Lattice, log: LogEmissions) -> State:
    """Return alpha before the first frame: blank[0] = 1, so log 1 = 0."""
    # Inside `shard_map` zeros made from the scores vary as the scores do.
    zero = jnp.zeros_like(log.log_shift[0])
    num_labels = lattice.can_skip.shape[1]
    start = jnp.zeros_like(lattice.num_labels)
    blank = jnp.where(is_at(start, num_labels + 1), zero[:, None], -jnp.inf)
    label = jnp.where(is_at(start - 1, num_labels), zero[:, None], -jnp.inf)
    return State(blank, label, zero, zero)


def _advance(lattice: Lattice, alpha: State, frame: tuple) -> State:
    """Return alpha of the next frame.

    blank'[n] = p_t(blank)    * (blank[n] + label[n-1])
    label'[n] = p_t(labels_n) * (label[n] + blank[n] + can_skip[n] * label[n-1])
    """
    emit_blank, emit_label, log_shift = frame  # [B, 1], [B, U], [B]
    previous = jnp.pad(alpha.label, ((0, 0), (1, 0)), constant_values=-jnp.inf)
    stay = alpha.blank[:, :-1]  # [B, U]
    skip = jnp.where(lattice.can_skip, previous[:, :-1], -jnp.inf)  # [B, U]
    blank = emit_blank + _log_sum(alpha.blank, previous)  # [B, U+1]
    label = emit_label + _log_sum(alpha.label, stay, skip)  # [B, U]
    peak = jnp.maximum(jnp.max(blank, axis=1), jnp.max(label, axis=1, initial=-jnp.inf))
    peak = lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, 0))  # [B]
    high, low = _accumulate(alpha.high, alpha.low, peak)
    high, low = _accumulate(high, low, log_shift)
    return State(blank - peak[:, None], label - peak[:, None], high, low)


def _log_sum(*terms: Float[Array, "..."]) -> Float[Array, "..."]:
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
    total = sum(jnp.exp(term - peak) for term in terms)
    return jnp.where(is_zero, -jnp.inf, jnp.log(jnp.where(is_zero, 1, total)) + peak)


def _log_z(lattice: Lattice, end: State) -> Float[Array, " B"]:
    """Read log(blank[N] + label[N-1]); beyond the cut-off it counts as impossible."""
    blank = _read(end.blank, lattice.num_labels)
    label = _read(end.label, lattice.num_labels - 1)
    log_z = _log_sum(blank, label)
    is_zero = ~(log_z + end.high > LOG_CUTOFF)
    return jnp.where(
        is_zero, -jnp.inf, jnp.where(is_zero, 0, log_z) + end.low + end.high
    )


def _read(row: Float[Array, "B n"], position: jax.Array) -> Float[Array, " B"]:
    """Return row[b, position[b]], or -inf where there is no such position."""
    here = is_at(position, row.shape[1])
    return jnp.max(jnp.where(here, row, -jnp.inf), axis=1, initial=-jnp.inf)


def _accumulate(
    high: Float[Array, " B"], low: Float[Array, " B"], term: Float[Array, " B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return high + low + term, with what rounding lost kept in `low`."""
    total = high + term
    of_term = lax.stop_gradient(total - high)
    # The lost part is a constant of rounding: its derivative is 0, not a difference.
    lost = lax.stop_gradient((high - (total - of_term)) + (term - of_term))
    return total, low + lost
