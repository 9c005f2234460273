r"""What is read from a lattice, with its derivatives: the one rule.

With z = log p(labels | logits), the gradient of the loss -z is

    d(-z) / d logits[t, v]    = softmax(logits[t])[v] - posterior_t(v)
    d(-z) / d log_probs[t, v] =                       - posterior_t(v)

where posterior_t(v) sums alpha * beta over the lattice states that emit v. Recursions
with an explicit backward pass get it by a `custom_jvp` whose tangent is
<gradient, tangent of the scores>. That is linear in the tangent, so JAX transposes it,
and reverse mode, forward mode and `linearize` all follow from one rule. The entropy has
its gradient the same way.

Whatever has the size of a table (a gradient, posteriors) has the derivative of `scan`:
bit tricks have none, and JAX would silently call it 0. So Hessians are right too. JAX
drops this rule in the body of a `lax.scan` whose gradient is differentiated again; then
the same derivative comes from what runs (_recursion/per_device.py).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jax_ctc import _recursion
from jax_ctc._lattice.needed import opened
from jax_ctc._lattice.pose import Spec
from jax_ctc._lattice.problem import Problem
from jax_ctc._lattice.wildcards import Wildcards
from jax_ctc._mesh.varying import vary_alike
from jax_ctc._numbers.precision import accumulator
from jax_ctc._numbers.two_floats import sum_frames


class Question(NamedTuple):
    """What is asked of a lattice: static."""

    method: str  # a key of _METHODS
    implementation: str | None
    normalise: bool
    time_axes: tuple[str, ...] = ()


def loss_of(
    spec: Spec, problem: Problem, wildcards: Wildcards | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return log p(labels) as a constant, and -log p, differentiable to any order.

    log p is -inf where there is no path of positive probability, or none to look for;
    NaN where a frame inside the length is bad. The derivative is exactly 0 in both.
    """
    axes, normalise = spec.vocab_axes, spec.normalise
    small = opened(problem, wildcards, axes, normalise=normalise)
    return loss_of_shifted(spec, *small)


def loss_of_shifted(
    spec: Spec, problem: Problem, shift: Float[Array, "B T"] | None
) -> tuple[jax.Array, jax.Array]:
    """Return the same of scores that are short of each frame's log shift.

    Without a shift scores are what they are, and normalised if the spec says so.
    """
    normalise = spec.normalise and shift is None
    question = Question("loss", spec.implementation, normalise, spec.time_axes)
    if spec.implementation == "scan":  # plain autodiff
        log_z, loss = _loss(question, problem)
    else:
        log_z, loss = ask(question, problem)
    if shift is not None:
        loss = shifted(log_z, loss, shift, spec.time_axes)
    return lax.stop_gradient(log_z), loss


def shifted(
    log_z: Float[Array, " B"],
    loss: Float[Array, " B"],
    shift: Float[Array, "B T"],
    time_axes: tuple[str, ...] = (),
) -> Float[Array, " B"]:
    """Return the loss, given one of scores that are short of each frame's shift."""
    high, low = sum_frames(shift.T)
    shifts = lax.psum(high + low, time_axes) if time_axes else high + low
    # Beyond any path there is nothing to shift, and nothing to differentiate.
    return loss - jnp.where(jnp.isfinite(log_z), shifts, 0)


# d value    = <gradient, d scores>
# d table    = (d table_scan / d scores) d scores      of gradients and posteriors
# d log p    = 0                                       a constant: it tells who is alive
#
# Only float arrays leave a function with a rule (a bool or int result has no tangent),
# so status is derived outside; integer arrays are arguments, never closed over.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def ask(question: Question, problem: Problem) -> tuple[jax.Array, ...]:
    """Return log p(labels), a value [B], and what tables the method has.

    | method     | value     | tables                             |
    |------------|-----------|------------------------------------|
    | loss       | -log p    | "loss and gradient": [B, T, V]     |
    | entropy    | nats      | "entropy and gradient": [B, T, V]  |
    | posteriors | -log p    | [T, B, U] and [T, B, U+1]          |
    """
    return _METHODS[question.method](question, problem)


@ask.defjvp
def _ask_jvp(question: Question, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    [problem], d_scores = primals, tangents[0].scores
    of_value = question._replace(method=_GRADIENTS[question.method])
    log_z, value, gradient = ask(of_value, problem)
    d_value = _inner(question, gradient, d_scores)
    if question.method in ("loss", "entropy"):
        return (log_z, value), (jnp.zeros_like(log_z), d_value)

    def tables_of_scan(scores: jax.Array) -> tuple[jax.Array, ...]:
        scan = question._replace(implementation="scan")
        return _METHODS[question.method](scan, problem._replace(scores=scores))[2:]

    answer = (
        ask(question, problem) if of_value != question else (log_z, value, gradient)
    )
    _, d_tables = jax.jvp(tables_of_scan, (problem.scores,), (d_scores,))
    return answer, (jnp.zeros_like(log_z), d_value, *d_tables)


def _loss(question: Question, problem: Problem) -> tuple[jax.Array, jax.Array]:
    log_z = _recursion.forward(
        question.implementation,
        problem,
        normalise=question.normalise,
        time_axes=question.time_axes,
    )
    # Of no utterances it is a constant, which a rule must not take for another type.
    log_z = vary_alike(log_z, problem.num_labels)[0]
    return log_z, -log_z


def _loss_and_gradient(
    question: Question, problem: Problem
) -> tuple[jax.Array, jax.Array, jax.Array]:
    log_z, gradient = _recursion.forward_backward(
        question.implementation,
        problem,
        normalise=question.normalise,
        time_axes=question.time_axes,
    )
    log_z = vary_alike(log_z, problem.num_labels)[0]
    return log_z, -log_z, gradient


def _entropy(method: str, question: Question, problem: Problem) -> Any:
    return _recursion.read(
        question.implementation, method, problem, normalise=question.normalise
    )


def _posteriors(question: Question, problem: Problem) -> tuple[jax.Array, ...]:
    log_z, label, blank = _recursion.read(
        question.implementation, "posteriors", problem, normalise=question.normalise
    )
    return log_z, -log_z, label, blank


_METHODS: dict[str, Any] = {
    "loss": _loss,
    "loss and gradient": _loss_and_gradient,
    "entropy": functools.partial(_entropy, "entropy"),
    "entropy and gradient": functools.partial(_entropy, "entropy_backward"),
    "posteriors": _posteriors,
}
# Which method has the gradient of the value that a method returns.
_GRADIENTS = {
    "loss": "loss and gradient",
    "loss and gradient": "loss and gradient",
    "entropy": "entropy and gradient",
    "entropy and gradient": "entropy and gradient",
    "posteriors": "loss and gradient",
}


def _inner(
    question: Question, gradient: Float[Array, "B T V"], tangent: Float[Array, "B T V"]
) -> Float[Array, " B"]:
    """Return <gradient, tangent> per utterance, accumulated in float32 at least."""
    dtype = accumulator(gradient.dtype)
    product = jnp.sum(gradient.astype(dtype) * tangent.astype(dtype), axis=(1, 2))
    return lax.psum(product, question.time_axes) if question.time_axes else product
