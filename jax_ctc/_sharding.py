"""Where the parts of an utterance lie: mesh axes over which it is sharded.

| where the loss is called                     | what happens                          |
|----------------------------------------------|---------------------------------------|
| in `shard_map` over the axis, types tracked  | as asked                              |
| the same with check_vma=False                | the value; a derivative is refused    |
| under `jax.set_mesh`, the axis being Auto    | wrapped in a `shard_map` over it      |
| on logits whose type says it (Explicit axes) | wrapped, without having been asked    |
| anywhere else                                | ValueError                            |

Auto axes do not show in types, so there the loss has to be told.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from jax_ctc._validate import Batch
from jax_ctc._varying import axis_size, is_tracked, varying


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

    def num_stretches(self) -> int:
        """Return how many devices have a stretch of T frames each."""
        return 1 if self.mesh is not None else axis_size(self.time_axes)

    def num_classes(self, own_classes: int) -> int:
        """Return V over all devices."""
        if self.mesh is not None:  # the logits are still whole
            return own_classes
        return own_classes * axis_size(self.vocab_axes)


def place(batch: Batch, name: str, vocab_axis: Any, time_axis: Any) -> Placement:
    """Find out where the scores lie, or raise what has to be done about it."""
    vocab_axes = _as_axes(vocab_axis, "vocab_axis")
    time_axes = _as_axes(time_axis, "time_axis")
    shared = set(vocab_axes) & set(time_axes)
    if shared:
        raise ValueError(
            f"`vocab_axis` and `time_axis` must be different mesh axes; both name"
            f" {min(shared)!r}"
        )
    asked = Placement(vocab_axes, time_axes)
    found = _from_type(batch, asked, name)
    if found is not None:
        return found
    if not asked.shard_axes:
        return asked
    if all(_is_bound(axis) for axis in asked.shard_axes):
        _check_inside(batch, asked, name)
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
        arrays = (
            jax.reshard(array, jax.NamedSharding(mesh, place))
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
        _as_axes(classes, "spec"),
        _as_axes(frames, "spec"),
        mesh,
        PartitionSpec(*leading),
        frozenset(
            axis
            for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
            if kind == AxisType.Explicit
        ),
    )
    for axis in ("vocab", "time"):
        told, seen = (getattr(p, f"{axis}_axes") for p in (asked, found))
        if told and told != seen:
            raise ValueError(
                f"`{axis}_axis` is {_show(told)}, but the type of `{name}`,"
                f" {jax.typeof(batch.scores)}, says {_show(seen)}. Leave {axis}_axis"
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
                f" jax.set_mesh(mesh); axes here: {_show(mesh.axis_names)}"
            )
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
                f" {_show(axes)} cannot share evenly: pad it with {how}"
            )
    leading = PartitionSpec(*[None] * (batch.scores.ndim - 2))
    return asked._replace(
        mesh=mesh, leading=leading, axis_names=frozenset(asked.shard_axes)
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


def _is_bound(axis: str) -> bool:
    try:
        lax.axis_size(axis)
    except NameError:
        return False
    return True


def _as_axes(value: Any, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    axes = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not all(isinstance(axis, str) for axis in axes):
        raise TypeError(
            f"`{name}` must be the name of a mesh axis, or a tuple of names;"
            f" got {value!r}"
        )
    return axes


def _show(axes: tuple[str, ...]) -> str:
    return ", ".join(map(repr, axes)) or "none"
