"""Where the parts of an utterance lie: mesh axes over which it is sharded.

| where the loss is called                      | what happens                         |
|-----------------------------------------------|--------------------------------------|
| in `shard_map` over the axes, types tracked   | as asked                             |
| the same with check_vma=False                 | the value; a derivative is refused   |
| under `jax.set_mesh`                          | wrapped in a `shard_map` over them   |
| on logits whose type says it (Explicit axes)  | wrapped, without having been asked   |
| wrapped, but what varies over other axes      | ValueError                           |
| anywhere else                                 | ValueError                           |

Auto axes do not show in types, so there the loss has to be told. What varies over the
axes of one `shard_map` is not wrapped in another: JAX has no gradient of that.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from jax_ctc._checks.arrays import Batch
from jax_ctc._mesh.varying import (
    as_axes,
    is_bound,
    is_tracked,
    show,
    varying,
)


class Placement(NamedTuple):
    """Mesh axes of classes and frames; and, if they are yet to be entered, how."""

    vocab_axes: tuple[str, ...] = ()
    time_axes: tuple[str, ...] = ()
    mesh: AbstractMesh | None = None
    leading: PartitionSpec = PartitionSpec()
    axis_names: frozenset[str] = frozenset()

    @property
    def shard_axes(self) -> tuple[str, ...]:
        """All axes that hold parts of one utterance."""
        return self.time_axes + self.vocab_axes


def run_placed(
    function: Callable[[Any, Batch], Any],
    spec: Any,
    batch: Batch,
    name: str,
    *,
    vocab_axis: Any,
    time_axis: Any,
) -> Any:
    """Run function(spec, batch) where the scores lie, or raise what to do about it.

    spec: a NamedTuple, static; its `vocab_axes` and `time_axes` are filled in.
    name: of the scores, as the caller knows them.
    """
    placement = place(batch, name, vocab_axis, time_axis)
    spec = spec._replace(vocab_axes=placement.vocab_axes, time_axes=placement.time_axes)
    if placement.mesh is None:
        return function(spec, batch)
    return enter(placement, function, spec, batch)


def place(batch: Batch, name: str, vocab_axis: Any, time_axis: Any) -> Placement:
    """Find out where the scores lie, or raise what has to be done about it."""
    vocab_axes = as_axes(vocab_axis, "vocab_axis")
    time_axes = as_axes(time_axis, "time_axis")
    shared = set(vocab_axes) & set(time_axes)
    if shared:
        raise ValueError(
            f"`vocab_axis` and `time_axis` must be different mesh axes; both name"
            f" {min(shared)!r}"
        )
    bound = tuple(axis for axis in vocab_axes + time_axes if is_bound(axis))
    asked = Placement(vocab_axes, time_axes)
    if bound:
        if bound != vocab_axes + time_axes:
            raise ValueError(
                f"`vocab_axis` and `time_axis` are {show(asked.shard_axes)}, but only"
                f" {show(bound)} are axes of the shard_map here: name all of them in"
                " one shard_map"
            )
        _check_inside(batch, asked, name)
    found = _from_type(batch, asked, name)
    if found is not None:
        return found
    if bound or not asked.shard_axes:
        return asked
    return _from_context(batch, asked, name)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def enter(
    placement: Placement,
    function: Callable[[Any, Batch], Any],
    spec: Any,
    batch: Batch,
) -> Any:
    """Run function(spec, ...) on the devices' own parts of the batch.

    Its results have the leading axes of the batch, and lie as those do.
    """
    mesh, leading = placement.mesh, placement.leading
    scores = PartitionSpec(
        *leading, placement.time_axes or None, placement.vocab_axes or None
    )
    places = (scores, PartitionSpec(*leading, None), leading, leading)
    if mesh is not None and AxisType.Explicit in mesh.axis_types:
        arrays: Any = (
            None
            if array is None
            else jax.reshard(array, jax.NamedSharding(mesh, place))
            for array, place in zip(batch, places, strict=True)
        )
        batch = Batch(*arrays)
    return jax.shard_map(
        lambda *arrays: function(spec, Batch(*arrays)),
        mesh=mesh,
        in_specs=places,
        out_specs=leading,
        axis_names=set(placement.axis_names),
    )(*batch)


def _from_type(batch: Batch, asked: Placement, name: str) -> Placement | None:
    """Read the placement off the type of scores on Explicit axes; None without."""
    shardings = [
        jax.typeof(array).sharding for array in batch if isinstance(array, jax.Array)
    ]
    typed = [s for s in shardings if any(entry is not None for entry in s.spec)]
    if not typed:
        return None
    mesh = typed[0].mesh
    entries = (None,) * batch.scores.ndim
    if isinstance(batch.scores, jax.Array):
        entries = jax.typeof(batch.scores).sharding.spec
    *leading, frames, classes = entries
    found = Placement(
        as_axes(classes, "spec"),
        as_axes(frames, "spec"),
        mesh,
        PartitionSpec(*leading),
        frozenset(
            axis
            for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
            if kind == AxisType.Explicit
        ),
    )
    _check_outside(batch, found, name)
    for axis in ("vocab", "time"):
        told, seen = (getattr(p, f"{axis}_axes") for p in (asked, found))
        if told and told != seen:
            raise ValueError(
                f"`{axis}_axis` is {show(told)}, but the type of `{name}`,"
                f" {jax.typeof(batch.scores)}, says {show(seen)}. Leave {axis}_axis"
                " out, or reshard"
            )
    return found


def _from_context(batch: Batch, asked: Placement, name: str) -> Placement:
    """Enter the axes of the mesh that `jax.set_mesh` gave."""
    mesh = jax.sharding.get_abstract_mesh()
    for axis in asked.shard_axes:
        if axis not in mesh.axis_names:
            raise ValueError(
                f"there is no mesh axis {axis!r} here. Call the loss inside"
                f" jax.shard_map over a mesh with that axis, or under"
                f" jax.set_mesh(mesh); axes here: {show(mesh.axis_names)}"
            )
    _check_outside(batch, asked._replace(mesh=mesh), name)
    sizes = dict(mesh.shape)
    for place, axes, letter in (
        (-1, asked.vocab_axes, "V"),
        (-2, asked.time_axes, "T"),
    ):
        size, whole = 1, batch.scores.shape[place]
        for axis in axes:
            size *= sizes[axis]
        if whole % size:
            how = "classes of -inf" if letter == "V" else "frames past the lengths"
            raise ValueError(
                f"`{name}` has {letter}={whole}, which {size} devices along"
                f" {show(axes)} cannot share evenly: pad it with {how}"
            )
    leading = PartitionSpec(*[None] * (batch.scores.ndim - 2))
    return asked._replace(
        mesh=mesh, leading=leading, axis_names=frozenset(asked.shard_axes)
    )


def _check_outside(batch: Batch, entered: Placement, name: str) -> None:
    """A shard_map of what already varies inside another has no gradient in JAX."""
    assert entered.mesh is not None
    kinds = zip(entered.mesh.axis_names, entered.mesh.axis_types, strict=True)
    manual = tuple(axis for axis, kind in kinds if kind == AxisType.Manual)
    if manual and is_tracked(manual):
        arrays = [array for array in batch if isinstance(array, jax.Array)]
        varied = frozenset().union(*map(varying, arrays))
        manual = tuple(axis for axis in manual if axis in varied)
    if manual:
        axes = tuple(sorted(entered.axis_names)) or entered.shard_axes
        raise ValueError(
            f"`{name}` is sharded over {show(axes)} inside a shard_map over"
            f" {show(manual)}. Name all of these axes in one shard_map: JAX cannot"
            " differentiate one inside another"
        )


def _check_inside(batch: Batch, asked: Placement, name: str) -> None:
    """Inside `shard_map`: every device has its own scores, and the same labels."""
    if not is_tracked(asked.shard_axes):
        return
    arrays = dict(zip((name, *Batch._fields[1:]), batch, strict=True))
    for axis in asked.shard_axes:
        for argument, array in arrays.items():
            is_sharded = isinstance(array, jax.Array) and axis in varying(array)
            if argument == name and not is_sharded:
                raise ValueError(
                    f"`{name}` is the same on all devices along {axis!r}, so it is no"
                    f" shard: name {axis!r} in its in_specs"
                )
            if argument != name and is_sharded:
                raise ValueError(
                    f"`{argument}` varies along {axis!r}, but must be the same on all"
                    f" its devices, global ids and lengths: leave {axis!r} out of its"
                    " in_specs"
                )
