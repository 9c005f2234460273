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

A batch is a NamedTuple of arrays or None; its `AXES` says of each field which of its
axes are leading (a dot), frames (T), classes (V) or features (D), and the first field
has frames.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from jax_ctc._mesh.varying import (
    as_axes,
    explicit_axes,
    is_bound,
    is_tracked,
    show,
    varying,
)


class Placement(NamedTuple):
    """Mesh axes of what is sharded; and, if they are yet to be entered, how."""

    vocab_axes: tuple[str, ...] = ()
    time_axes: tuple[str, ...] = ()
    feature_axes: tuple[str, ...] = ()
    mesh: AbstractMesh | None = None
    leading: PartitionSpec = PartitionSpec()
    axis_names: frozenset[str] = frozenset()

    @property
    def shard_axes(self) -> tuple[str, ...]:
        """All axes that hold parts of one utterance."""
        return self.time_axes + self.vocab_axes + self.feature_axes

    @property
    def by_letter(self) -> dict[str, tuple[str, ...]]:
        """The same, by the axes of arrays that they are of."""
        return {"V": self.vocab_axes, "T": self.time_axes, "D": self.feature_axes}


# What an axis of arrays is called in options, and what may be added to it.
_OPTIONS = {"V": "vocab_axis", "T": "time_axis", "D": "feature_axis"}
_PADDING = {"V": "classes of -inf", "T": "frames past the lengths", "D": "zeros"}


def run_placed(
    function: Callable[[Any, Any], Any],
    spec: Any,
    batch: Any,
    name: str,
    *,
    vocab_axis: Any,
    time_axis: Any,
    feature_axis: Any = None,
) -> Any:
    """Run function(spec, batch) where the scores lie, or raise what to do about it.

    spec: a NamedTuple, static; its `vocab_axes`, `time_axes` and, if there are such,
    `feature_axes` are filled in.
    name: of the first field, as the caller knows it.
    """
    asked = Placement(
        as_axes(vocab_axis, "vocab_axis"),
        as_axes(time_axis, "time_axis"),
        as_axes(feature_axis, "feature_axis"),
    )
    placement = place(batch, name, asked)
    spec = spec._replace(vocab_axes=placement.vocab_axes, time_axes=placement.time_axes)
    if placement.feature_axes:
        spec = spec._replace(feature_axes=placement.feature_axes)
    if placement.mesh is None:
        return function(spec, batch)
    return enter(placement, function, spec, batch)


def place(batch: Any, name: str, asked: Placement) -> Placement:
    """Find out where the arrays lie, or raise what has to be done about it."""
    for axis in asked.shard_axes:
        if asked.shard_axes.count(axis) > 1:
            both = [k for k, axes in asked.by_letter.items() if axis in axes]
            names = " and ".join(f"`{_OPTIONS[letter]}`" for letter in both)
            raise ValueError(f"{names} must be different mesh axes; both name {axis!r}")
    bound = tuple(axis for axis in asked.shard_axes if is_bound(axis))
    if bound:
        if bound != asked.shard_axes:
            raise ValueError(
                f"the options name the mesh axes {show(asked.shard_axes)}, but only"
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
    function: Callable[[Any, Any], Any],
    spec: Any,
    batch: Any,
) -> Any:
    """Run function(spec, ...) on the devices' own parts of the batch.

    Its results have the leading axes of the batch, and lie as those do.
    """
    mesh, make = placement.mesh, type(batch)
    places = tuple(_spec(placement, axes) for axes in batch.AXES)
    if mesh is not None and AxisType.Explicit in mesh.axis_types:
        arrays: Any = (
            None
            if array is None
            else jax.reshard(array, jax.NamedSharding(mesh, place))
            for array, place in zip(batch, places, strict=True)
        )
        batch = make(*arrays)
    return jax.shard_map(
        lambda *arrays: function(spec, make(*arrays)),
        mesh=mesh,
        in_specs=places,
        out_specs=placement.leading,
        axis_names=set(placement.axis_names),
    )(*batch)


def _spec(placement: Placement, axes: str) -> PartitionSpec:
    """Return where an array lies that has these axes."""
    places = placement.by_letter
    leading = placement.leading if axes.startswith(".") else ()
    return PartitionSpec(*leading, *(places.get(a) or None for a in axes.strip(".")))


def _find(batch: Any, name: str, letter: str) -> tuple[str, Any, int]:
    """Return the array that has an axis, its name, and which of its axes it is."""
    names = (name, *batch._fields[1:])
    for argument, array, axes in zip(names, batch, batch.AXES, strict=True):
        if letter in axes:
            return argument, array, axes.index(letter) - len(axes)
    raise AssertionError(letter)


def _from_type(batch: Any, asked: Placement, name: str) -> Placement | None:
    """Read the placement off the type of scores on Explicit axes; None without."""
    shardings = [
        jax.typeof(array).sharding for array in batch if isinstance(array, jax.Array)
    ]
    typed = [s for s in shardings if any(entry is not None for entry in s.spec)]
    if not typed:
        return None
    mesh = typed[0].mesh

    def entries(array: Any) -> tuple[Any, ...]:
        if isinstance(array, jax.Array):
            return tuple(jax.typeof(array).sharding.spec)
        return (None,) * array.ndim

    leading = PartitionSpec(*entries(batch[0])[:-2])
    taken = {axis for entry in leading for axis in as_axes(entry, "spec")}

    def axes_of(letter: str) -> tuple[str, ...]:
        for array, axes in zip(batch, batch.AXES, strict=True):
            if letter in axes and array is not None:
                entry = entries(array)[axes.index(letter) - len(axes)]
                # What the batch is sharded over, a layer is gathered over.
                own = tuple(a for a in as_axes(entry, "spec") if a not in taken)
                if own:
                    return own
        return ()

    found = Placement(
        axes_of("V"),
        axes_of("T"),
        axes_of("D"),
        mesh,
        leading,
        explicit_axes(mesh),
    )
    _check_outside(batch, found, name)
    for letter, told in asked.by_letter.items():
        seen, option = found.by_letter[letter], _OPTIONS[letter]
        if told and told != seen:
            argument, array, _ = _find(batch, name, letter)
            raise ValueError(
                f"`{option}` is {show(told)}, but the type of `{argument}`,"
                f" {jax.typeof(array)}, says {show(seen)}. Leave {option} out, or"
                " reshard"
            )
    return found


def _from_context(batch: Any, asked: Placement, name: str) -> Placement:
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
    for letter, axes in asked.by_letter.items():
        if not axes:
            continue
        argument, array, place = _find(batch, name, letter)
        size, whole = 1, array.shape[place]
        for axis in axes:
            size *= sizes[axis]
        if whole % size:
            raise ValueError(
                f"`{argument}` has {letter}={whole}, which {size} devices along"
                f" {show(axes)} cannot share evenly: pad it with {_PADDING[letter]}"
            )
    leading = PartitionSpec(*[None] * (batch[0].ndim - 2))
    return asked._replace(
        mesh=mesh, leading=leading, axis_names=frozenset(asked.shard_axes)
    )


def _check_outside(batch: Any, entered: Placement, name: str) -> None:
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


def _check_inside(batch: Any, asked: Placement, name: str) -> None:
    """Inside `shard_map`: every device has its own scores, and the same labels."""
    if not is_tracked(asked.shard_axes):
        return
    arguments = (name, *batch._fields[1:])
    letters = {axis: k for k, axes in asked.by_letter.items() for axis in axes}
    for axis, letter in letters.items():
        for argument, array, axes in zip(arguments, batch, batch.AXES, strict=True):
            if array is None:
                continue
            is_sharded = isinstance(array, jax.Array) and axis in varying(array)
            if letter in axes and not is_sharded:
                raise ValueError(
                    f"`{argument}` is the same on all devices along {axis!r}, so it is"
                    f" no shard: name {axis!r} in its in_specs"
                )
            if letter not in axes and is_sharded:
                what = ", global ids and lengths" if array.dtype.kind in "iu" else ""
                raise ValueError(
                    f"`{argument}` varies along {axis!r}, but must be the same on all"
                    f" its devices{what}: leave {axis!r} out of its in_specs"
                )
