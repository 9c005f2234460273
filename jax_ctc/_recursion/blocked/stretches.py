"""The sum over all paths of frames that lie on several devices, and its gradient.

Device d has the stretch of frames d * T .. (d + 1) * T - 1. Alpha passes through the
devices from the left and beta from the right, one stretch a turn, in the same turns:
all that moves between neighbours is a column of the lattice. Then every device has the
alpha before its stretch and the beta after it, and all write their gradients at once.
"""

from jaxtyping import Array, Float

from jax_ctc._lattice.problem import Problem
from jax_ctc._mesh.relay import Leg, relay
from jax_ctc._numbers.two_floats import two_sum
from jax_ctc._recursion.blocked import sides
from jax_ctc._recursion.blocked.chunks import (
    Plan,
    Total,
    backward_chunks,
    forward_chunks,
    log_z,
    make_plan,
    nothing_yet,
)
from jax_ctc._recursion.blocked.likelihood import Ends, alpha_step, gradient_of
from jax_ctc._recursion.blocked.step import (
    Emission,
    State,
    careful,
    careless,
    final,
    initial,
    retreat,
)


def forward(
    problem: Problem, *, normalise: bool, time_axes: tuple[str, ...]
) -> Float[Array, " B"]:
    """Return log p(labels) in nats; -inf where impossible, NaN where a frame is bad."""
    plan = make_plan(problem, normalise=normalise, is_stretch=True)
    [(_, (end, total))] = relay(_alpha(problem, plan), axes=time_axes)
    return log_z(problem, end, total)[0]


def forward_backward(
    problem: Problem, *, normalise: bool, time_axes: tuple[str, ...]
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and the gradient of -log p with respect to the scores."""
    plan = make_plan(problem, normalise=normalise, is_stretch=True)
    ((alpha, _), (end, total)), (beta, _) = relay(
        _alpha(problem, plan), _beta(problem, plan), axes=time_axes
    )
    log_value, scale = log_z(problem, end, total)
    step = alpha_step(sides.can_skip(problem, plan))
    start = sides.together(careless(alpha))
    _, _, replay = forward_chunks(problem, plan, step, start, sides.read)
    ends = Ends(log_value, scale[None], sides.together(beta), replay)
    return log_value, gradient_of(problem, plan, ends)


def _alpha(problem: Problem, plan: Plan) -> Leg:
    """Return the way of alpha and of what it sums up: from before the first frame."""

    def run(state: tuple[State, Total]) -> tuple[State, Total]:
        alpha, total = state
        step = alpha_step(problem.can_skip)
        alpha, own, _ = forward_chunks(problem, plan, step, alpha)
        high, lost = two_sum(total.high, own.high)
        low = total.low + (lost + own.low)
        return alpha, Total(high, low, total.is_bad | own.is_bad)

    return Leg(run, (careful(initial(problem)), nothing_yet(problem)))


def _beta(problem: Problem, plan: Plan) -> Leg:
    """Return the way of beta: from after the last frame, to the left."""

    def step(beta: State, emission: Emission) -> tuple[State, None]:
        return retreat(problem.can_skip, beta, emission), None

    def run(beta: State) -> State:
        return backward_chunks(problem, plan, step, beta)

    return Leg(run, careful(final(problem)), reverse=True)
