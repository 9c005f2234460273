"""The recursion over a lattice: a contract, two tables that keep it, one dispatcher.

`scan` is the specification, `blocked` the same in plain XLA for any machine, and both
can do everything. Guests are kernels for one kind of machine (contract.py): a module
here, a line in `GUESTS`, and the contract in `tests/contract.py` passes.
"""

import functools
import os
from typing import Any

import chex
import jax
from jax import lax
from jaxtyping import Array, Float

from jax_ctc._lattice.problem import Problem
from jax_ctc._numbers.derivatives import without_derivative
from jax_ctc._numbers.sizes import is_open
from jax_ctc._recursion import blocked, cpu, cuda, scan, tpu
from jax_ctc._recursion.contract import Guest, Implementation, Traits
from jax_ctc._recursion.per_device import Choice, per_device

# In order of preference. `scan` accepts everything, so the search always ends.
GUESTS: dict[str, Guest] = {"cpu": cpu, "cuda": cuda, "tpu": tpu}
PLAIN: dict[str, Any] = {"blocked": blocked, "scan": scan}

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
# Of `blocked`, how it is planned where not as on a CPU. On accelerators each operation
# has a price, however much it computes: an utterance is taken from both ends, and no
# chunk is short. What a turn of a loop has to start, a GPU starts one by one: several
# frames a turn are fewer copies. A TPU cuts a number for each utterance out of an array
# by an operation of its own, a quarter of a frame's cycles; and for a scatter it turns
# the scores round, which a product with a one-hot takes as they lie.
HOW: dict[str, dict[str, Any]] = {
    "cuda": {"sides": 2, "least_chunk": 8, "unroll": 8},
    "rocm": {"sides": 2, "least_chunk": 8, "unroll": 8},
    "tpu": {"sides": 2, "least_chunk": 8, "is_wide": True, "by_product": True},
}
# Read as a whole by one function a platform; of these, what has the frames first.
WHOLE = ("best_path", "posteriors", "entropy", "entropy_backward")
FRAMES_FIRST = ("best_path", "posteriors")
PREFERRED = os.environ.get("JAX_CTC_IMPLEMENTATION") or None


def names() -> tuple[str, ...]:
    """Return what `implementation=` may be."""
    return *GUESTS, *PLAIN


if PREFERRED is not None and PREFERRED not in names():
    raise ValueError(
        f"the environment variable JAX_CTC_IMPLEMENTATION is {PREFERRED!r}, but must"
        f" be one of {', '.join(names())}. Unset it, or name one of these"
    )


def forward(
    name: str | None,
    problem: Problem,
    *,
    normalise: bool,
    time_axes: tuple[str, ...] = (),
) -> Float[Array, " B"]:
    """Return log p(labels) by the named implementation, or by the platform's best."""
    log_z = _run(name, "forward", problem, normalise, time_axes)
    chex.assert_equal_shape((log_z, problem.num_labels))
    return log_z


def forward_backward(
    name: str | None,
    problem: Problem,
    *,
    normalise: bool,
    time_axes: tuple[str, ...] = (),
) -> tuple[Float[Array, " B"], Float[Array, "B T V"]]:
    """Return log p(labels) and d(-log p) / d scores, from one forward pass."""
    log_z, gradient = _run(name, "forward_backward", problem, normalise, time_axes)
    chex.assert_equal_shape((log_z, problem.num_labels))
    chex.assert_equal_shape((gradient, problem.scores))
    chex.assert_type(gradient, problem.scores.dtype)
    return log_z, gradient


def read(
    name: str | None, method: str, problem: Problem, *more: Any, normalise: bool
) -> Any:
    """Read the lattice by a method that `blocked` and `scan` have.

    | method            | what it returns besides log p(labels) [B]                  |
    |-------------------|------------------------------------------------------------|
    | posteriors        | of the labels [T, B, U], of the blanks [T, B, U+1]         |
    | best_path         | the largest log p of a path instead; its states [T, B]     |
    | sample_paths      | states [T, B, N] of paths drawn by uniforms [T, B, N]      |
    | entropy           | the entropy of the path [B], nats                          |
    | entropy_backward  | the entropy, and its gradient [B, T, V]                    |
    | prefixes          | instead: log p of the first n labels [B, U+1]              |

    States are numbered along the labels: 2n is blank[n], 2n + 1 is label[n].
    """
    if method in WHOLE:
        # A guest that has no such method leaves it to `blocked`.
        name = None if name in GUESTS and method != "best_path" else name
        out = _run(name, method, problem, normalise)
        return _swapped(out) if method in FRAMES_FIRST else out
    first, others = _plain(name, _dtype(problem))
    functions = {p: getattr(PLAIN[other], method) for p, other in others.items()}

    def by(function: Any) -> Any:
        return lambda problem, *more: function(problem, *more, normalise=normalise)

    default = by(getattr(PLAIN[first], method))
    if not functions:
        return default(problem, *more)
    functions = {platform: by(function) for platform, function in functions.items()}
    return lax.platform_dependent(problem, *more, default=default, **functions)


def implementations() -> tuple[Implementation, ...]:
    """Return which implementations there are, and what each declines here.

    Returns:
        One record each: its name, the platform it is for, the machine that its record
        was made on, why it takes no float32 batch here (None if it does), and whether
        it is what runs where none is named.

    Raises:
        RuntimeError: JAX finds no device of the platform that it was told to use.

    Example:
        >>> import jax_ctc
        >>> [i.name for i in jax_ctc.implementations()][-2:]
        ['blocked', 'scan']
    """
    platform = _platform()
    traits = Traits(platform, jax.numpy.dtype("float32"), 1, 1, 1, 2, True)
    chosen = _guest(None, traits)
    default = chosen or _plain(None, traits.dtype)[0]
    guests = [
        Implementation(
            name,
            guest.PLATFORM,
            guest.HAS_RUN_ON,
            _reason(guest, traits),
            name == default,
        )
        for name, guest in GUESTS.items()
    ]
    plain = [Implementation(name, None, "cpu", None, name == default) for name in PLAIN]
    return tuple(guests + plain)


def _run(
    name: str | None,
    method: str,
    problem: Problem,
    normalise: bool,
    time_axes: tuple[str, ...] = (),
) -> Any:
    """Run the named implementation or its error; for None, the first that accepts.

    The platform is not known while tracing (a program may be exported for another), so
    where the first that accepts differs between platforms, lowering chooses.

    Raises:
        NotImplementedError: the named one declines; the message says why.
    """
    batch, num_frames, num_classes = problem.scores.shape
    traits = Traits(
        _platform(),
        _dtype(problem),
        batch,
        num_frames,
        problem.can_skip.shape[1],
        num_classes,
        normalise,
        time_axes,
        problem.has_gaps,
    )
    if name in GUESTS:
        _raise_if(name, _reason(GUESTS[name], traits))
    first, others = _plain(name if name in PLAIN else None, traits.dtype)
    kernels = {}
    for platform in PLATFORMS if name not in PLAIN else ():
        guest = _guest(name, traits._replace(platform=platform))
        if guest is not None and hasattr(GUESTS[guest], method):
            kernels[platform] = getattr(GUESTS[guest], method)
    default, specification = _function(first, method), _function("scan", method)
    platforms = {p: _function(others.get(p, first), method, p) for p in PLATFORMS}
    otherwise = tuple((p, f) for p, f in platforms.items() if f is not default)
    if time_axes:  # no guest takes part of an utterance
        if default is not specification:
            problem = _differentiated_once(problem)
        return default(problem, normalise=normalise, time_axes=time_axes)
    # A path has no derivative: its log p is read again. Called as it is, sequences that
    # share their scores are not joined by `vmap` (_decoding/nbest.py).
    is_direct = default is specification or method == "best_path"
    if is_direct and not kernels and not otherwise:
        return default(problem, normalise=normalise)
    choice = Choice(
        kernels=tuple(kernels.items()),
        otherwise=otherwise,
        default=default,
        specification=specification,
    )
    return per_device(choice, problem, normalise=normalise, method=method)


def _differentiated_once(problem: Problem) -> Problem:
    """Return the problem; a derivative that has lost its rule is an error."""
    reason = (
        "JAX drops the derivative of a loss with time_axis where the gradient of a scan"
        " around it is differentiated again. Pass implementation='scan', or take the"
        " gradient of a jvp"
    )
    return problem._replace(scores=without_derivative(reason, problem.scores))


def _function(name: str, method: str, platform: str = "cpu") -> Any:
    """Return a method of `blocked` or `scan`, as it runs best on a platform."""
    how = {}
    if name == "blocked" and method in ("forward", "forward_backward"):
        how = HOW.get(platform, {})
    return _made(name, method, tuple(how.items()))


# One object each, because programs are told apart by what they call.
@functools.cache
def _made(name: str, method: str, how: tuple[tuple[str, Any], ...]) -> Any:
    function = getattr(PLAIN[name], method)
    if how:
        return functools.partial(function, **dict(how))
    if method not in FRAMES_FIRST:
        return function

    def of_utterances(problem: Problem, *, normalise: bool) -> Any:
        return _swapped(function(problem, normalise=normalise))

    return of_utterances


def _swapped(results: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Exchange frames and utterances in all but log p."""
    return results[0], *(x.swapaxes(0, 1) for x in results[1:])


def _guest(name: str | None, traits: Traits) -> str | None:
    """Return the guest that runs there: the named one, or the first that accepts."""
    if name is None and PREFERRED in PLAIN:
        return None
    order = sorted(GUESTS, key=lambda guest: guest != PREFERRED)
    for candidate in order if name is None else [name]:
        guest = GUESTS[candidate]
        is_asked_for = candidate in (name, PREFERRED)
        has_run = guest.HAS_RUN_ON is not None
        if (is_asked_for or has_run) and _reason(guest, traits) is None:
            return candidate
    return None


def _reason(guest: Guest, traits: Traits) -> str | None:
    """Return why a guest does not run there."""
    if traits.platform != guest.PLATFORM:
        return f"it is for {guest.PLATFORM}, and this is {traits.platform}"
    if traits.time_axes:
        return f"frames are sharded over {', '.join(traits.time_axes)}"
    if traits.has_gaps:
        return "wildcards give gaps between labels classes of their own"
    if is_open(traits.batch, traits.num_frames, traits.num_labels, traits.num_classes):
        return "sizes are left open, for a program that is exported"
    if 0 in (traits.batch, traits.num_frames, traits.num_labels):
        return "there is nothing to do: no utterances, frames or labels"
    return guest.decline(traits)


def _plain(name: str | None, dtype: Any) -> tuple[str, dict[str, str]]:
    """Return what runs everywhere, and where something else must.

    Raises:
        NotImplementedError: the named one declines here.
    """
    if name is None and PREFERRED in PLAIN:
        order = sorted(PLAIN, key=lambda plain: plain != PREFERRED)
    else:
        order = list(PLAIN)
    if name in PLAIN:
        _raise_if(name, PLAIN[name].decline(dtype, _platform()))
        return name, {}
    best = {
        platform: next(n for n in order if not PLAIN[n].decline(dtype, platform))
        for platform in PLATFORMS
    }
    others = {p: other for p, other in best.items() if other != best["cpu"]}
    return best["cpu"], others


def _raise_if(name: str, reason: str | None) -> None:
    if reason:
        raise NotImplementedError(f"{name}: {reason}. Or pass implementation=None")


def _platform() -> str:
    """Return the platform of the devices here, as lowering calls it."""
    backend = jax.default_backend()
    if backend != "gpu":
        return backend
    version = jax.devices()[0].client.platform_version
    return "rocm" if "rocm" in version.lower() else "cuda"


def _dtype(problem: Problem) -> Any:
    return jax.numpy.dtype(problem.scores.dtype)
