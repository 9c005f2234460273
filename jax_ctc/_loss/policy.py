"""What a loss says of utterances that have none, and the options of every loss."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_ctc import _recursion
from jax_ctc._checks.labels import bit
from jax_ctc._checks.options import check_int, check_option
from jax_ctc._checks.status import Status
from jax_ctc._lattice.pose import Spec
from jax_ctc._lattice.wildcards import Wildcards


def specify(blank_id: Any, infeasible: Any, implementation: Any) -> Spec:
    """Return the options of a loss, or raise; `pose` knows V, and checks the blank."""
    return Spec(
        blank_id=check_int(blank_id),
        infeasible=check_option(infeasible, ("inf", "zero"), name="infeasible"),
        implementation=check_option(
            implementation, (None, *_recursion.names()), name="implementation"
        ),
    )


def settle(
    spec: Spec,
    log_z: Float[Array, " B"],
    loss: Float[Array, " B"],
    status: Int[Array, " B"],
    wildcards: Wildcards | None,
) -> tuple[Float[Array, " B"], Int[Array, " B"]]:
    """Return the loss by the policy, and all status bits."""
    is_bad, is_zero = jnp.isnan(log_z), log_z == -jnp.inf
    if spec.normalise:
        # A probability is at most 1, and rounding must not say otherwise; the
        # correction is a constant, so the gradient passes. A sum with a wildcard
        # counts alignments, and may be any number.
        is_above = loss < 0
        if wildcards is not None:
            is_above = is_above & ~jnp.any(wildcards.in_gap, axis=1)
        loss = loss + jax.lax.stop_gradient(jnp.where(is_above, -loss, 0))
    status = status | bit(Status.NONFINITE_LOGITS, is_bad)
    status = status | bit(Status.ZERO_PROBABILITY, is_zero & (status == 0))
    value = jnp.inf if spec.infeasible == "inf" else 0.0
    return jnp.where(status == 0, loss, jnp.where(is_bad, jnp.nan, value)), status
