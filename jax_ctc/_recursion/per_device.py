"""A kernel where one device runs it, XLA's own code where a compiler must split it.

A kernel is one opaque call: no compiler can split it, and `vmap` would repeat it for
one utterance at a time. Which platform a program is for, and whether it is to be split,
is known only when it is lowered. So the choice is a primitive of its own:

| where                                     | what runs                               |
|-------------------------------------------|-----------------------------------------|
| `vmap`                                    | the new axis joins the batch            |
| the same over an Explicit axis            | each device's own part of it            |
| one device, or all mesh axes manual       | the kernel of the platform              |
| a batch that XLA shards, on CPU and CUDA  | the kernel, on each device's utterances |
| the same on TPU; some mesh axes manual    | plain XLA, which the compiler can split |
| `jax.export`                              | plain XLA, which every machine has      |

Whatever runs, it has the derivative of the specification, which JAX differentiates to
any order: kernels have none, and of bit tricks JAX would silently say that it is 0.
First derivatives of a loss do not come from here (_loss/rule.py).
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from jax_ctc._lattice.problem import Problem
from jax_ctc._mesh.varying import explicit_axes
from jax_ctc._numbers.mapped import in_front
from jax_ctc._numbers.precision import accumulator

# function(problem, normalise=...) -> log p [B], and what else the method has
Function = Callable[..., Any]


class Choice(NamedTuple):
    """What runs on which platform, and what does on all others."""

    kernels: tuple[tuple[str, Function], ...]
    otherwise: tuple[tuple[str, Function], ...]
    default: Function
    specification: Function

    def of(self, platform: str | None, *, is_kernel: bool) -> Function:
        """Return what runs on a platform, by its kernel or in plain XLA."""
        plain = dict(self.otherwise).get(platform or "", self.default)
        return dict(self.kernels).get(platform or "", plain) if is_kernel else plain


def per_device(
    choice: Choice, problem: Problem, *, normalise: bool, method: str
) -> Any:
    """Run what the choice says on the platform that this is lowered for."""
    outs = _choose.bind(*problem, choice=choice, normalise=normalise, method=method)
    return tuple(outs) if len(outs) > 1 else outs[0]


_choose = Primitive("ctc_per_device")
_choose.multiple_results = True


@functools.cache
def _flat(function: Function, normalise: bool) -> Callable[..., list[Any]]:
    """Return the function of arrays alone, which is traced once for arrays as these."""

    def flat(*arrays: Any) -> list[Any]:
        out = function(Problem(*arrays), normalise=normalise)
        return list(out) if isinstance(out, tuple) else [out]

    return jax.jit(flat)


@_choose.def_impl
def _(*arrays: Any, **static: Any) -> Any:
    # What runs is known where a program is lowered: there is one, jit or no jit.
    with jax.disable_jit(False):
        return jax.jit(functools.partial(_choose.bind, **static))(*arrays)


# One letter an axis; only the batch may be sharded. w is U+1, s as the ids have it.
_OPERANDS = "b t v, b s, b u, b, b"
_RESULTS = {
    "forward": "b",
    "forward_backward": "b, b t v",
    "best_path": "b, b t",
    "posteriors": "b, b t u, b t w",
    "entropy": "b, b",
    "entropy_backward": "b, b, b t v",
}


@_choose.def_abstract_eval
def _(*avals: Any, method: str, **_: Any) -> list[Any]:
    # The inputs vary over the same mesh axes, and so do the results.
    scores, can_skip = avals[0], avals[2]
    sizes = dict(zip("btv", scores.shape, strict=True))
    sizes |= {"u": can_skip.shape[1], "w": can_skip.shape[1] + 1}
    places = dict(zip("btv", scores.sharding.spec, strict=True))
    dtypes = {"b t v": scores.dtype, "b t": jnp.dtype("int32")}
    return [
        scores.update(
            shape=tuple(sizes[axis] for axis in axes.split()),
            dtype=dtypes.get(axes, accumulator(scores.dtype)),
            weak_type=False,
            sharding=scores.sharding.update(
                spec=PartitionSpec(*map(places.get, axes.split()))
            ),
        )
        for axes in _RESULTS[method].split(", ")
    ]


def _jvp(primals: Any, tangents: Any, **static: Any) -> tuple[Any, Any]:
    """Differentiate the specification instead."""
    scores, *rest = primals
    outs = _choose.bind(*primals, **static)
    is_float = [jnp.issubdtype(x.dtype, jnp.floating) for x in outs]

    def specified(scores: jax.Array) -> list[jax.Array]:
        choice, normalise = static["choice"], static["normalise"]
        found = _flat(choice.specification, normalise)(scores, *rest)
        return [x for x, is_one in zip(found, is_float, strict=True) if is_one]

    d_floats = iter(jax.jvp(specified, (scores,), (tangents[0],))[1])
    d_outs = [
        next(d_floats) if is_one else ad.Zero(jax.typeof(x).to_tangent_aval())
        for x, is_one in zip(outs, is_float, strict=True)
    ]
    return outs, d_outs


ad.primitive_jvps[_choose] = _jvp


def _batch(arrays: Any, axes: Any, **static: Any) -> tuple[Any, Any]:
    """Let the new axis join the batch."""

    def join(*whole: Any) -> list[Any]:
        count, batch = whole[0].shape[:2]
        joined = (x.reshape(count * batch, *x.shape[2:]) for x in whole)
        outs = _choose.bind(*joined, **static)
        return [x.reshape(count, batch, *x.shape[1:]) for x in outs]

    outs = _enter(join, in_front(arrays, axes))
    return outs, [0] * len(outs)


def _enter(function: Callable[..., list[Any]], arrays: Any) -> list[Any]:
    """Run the function on each device's own part of arrays whose type says where.

    A `vmap` over an Explicit axis makes such types, and nobody has seen them before:
    an utterance has none. A loop that starts from constants is a type error there.
    """
    shardings = [jax.typeof(x).sharding for x in arrays]
    typed = [s for s in shardings if s.spec and s.spec[0] is not None]
    if not typed:
        return function(*arrays)
    mesh, place = typed[0].mesh, PartitionSpec(typed[0].spec[0])
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=place,
        out_specs=place,
        axis_names=explicit_axes(mesh),
    )(*(jax.reshard(x, NamedSharding(mesh, place)) for x in arrays))


batching.primitive_batchers[_choose] = _batch


def _lower(context: Any, *values: Any, platform: str | None, **static: Any) -> Any:
    choice, normalise = static["choice"], static["normalise"]
    function = _flat(choice.of(platform, is_kernel=False), normalise)
    kernel = choice.of(platform, is_kernel=True)
    if not _is_exported(context):
        if _is_whole(context):
            function = _flat(kernel, normalise)
        elif platform in dict(choice.kernels) and _is_partitioned(context, platform):
            function = _split_by_batch(kernel, normalise, static["method"])
    return mlir.lower_fun(function, multiple_results=True)(context, *values)


mlir.register_lowering(_choose, functools.partial(_lower, platform=None))
for _platform in ("cpu", "cuda", "rocm", "tpu"):
    mlir.register_lowering(
        _choose, functools.partial(_lower, platform=_platform), platform=_platform
    )


# To ask how to split, XLA is handed Python by its devices, which JAX tells only to
# primitives that are known to need them. Its list of these is private; without it a
# sharded batch goes to plain XLA.
with contextlib.suppress(ImportError, AttributeError):
    from jax._src import dispatch

    dispatch.prim_requires_devices_during_lowering.add(_choose)

# What JAX says of a program that is being lowered is not public: it is read here, so
# that anything unknown means plain XLA, and tests say when it has moved.


def _is_exported(context: Any) -> bool:
    parameters = getattr(context.module_context, "lowering_parameters", None)
    return getattr(parameters, "for_export", True)


def _is_whole(context: Any) -> bool:
    """Tell whether nobody is to split what is lowered here."""
    axes = context.module_context.axis_context
    manual = getattr(axes, "manual_axes", None)
    if manual is not None:  # inside `shard_map`
        mesh = axes.mesh
        everywhere = frozenset(manual) | frozenset(getattr(mesh, "manual_axes", ()))
        return everywhere == frozenset(mesh.axis_names)
    return getattr(axes, "num_devices", 1) in (1, None)


def _is_partitioned(context: Any, platform: str | None) -> bool:
    """Tell whether XLA asks here how to split: not on TPU, nor half inside a map."""
    axes = context.module_context.axis_context
    knows_devices = getattr(axes, "device_assignment", None) is not None
    return platform in ("cpu", "cuda") and knows_devices


@functools.cache
def _split_by_batch(kernel: Function, normalise: bool, method: str) -> Any:
    """Return the kernel, which XLA may give each device its own utterances."""
    local = _flat(kernel, normalise)

    def partition(mesh: Any, arguments: Any, results: Any) -> Any:
        spec = arguments[0].sharding.spec
        batch = spec[0] if len(spec) else None

        def place(x: Any) -> NamedSharding:
            return NamedSharding(mesh, PartitionSpec(batch, *[None] * (x.ndim - 1)))

        return (
            mesh,
            lambda *arrays: tuple(local(*arrays)),
            tuple(map(place, results)),
            tuple(map(place, arguments)),
        )

    function = custom_partitioning(lambda *arrays: tuple(local(*arrays)))
    function.def_partition(
        partition=partition,
        sharding_rule=f"{_OPERANDS} -> {_RESULTS[method]}",
        need_replication_factors=("t", "v", "s", "u"),
    )
    return lambda *arrays: list(function(*arrays))
