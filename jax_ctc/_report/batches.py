"""One batch of a data set, as it was passed; and one utterance of it, to be kept."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jax_ctc._diagnose.batch import Given, read_batch
from jax_ctc._output.visible import visible

_ARRAYS = ("logits", "labels", "logit_lengths", "label_lengths")
_FIELDS = (*_ARRAYS, "names")
_FORM = (
    "a mapping with logits, labels and, as needed, logit_lengths, label_lengths and"
    " names; or a tuple of them in this order"
)


class Batch(NamedTuple):
    """A batch: for the doctor as it was passed, for the others on the host."""

    arrays: tuple[Any, Any, Any, Any]
    given: Given
    names: list[str]  # [B]


def read(batch: Any, number: int, options: dict[str, Any]) -> Batch:
    """Return a batch of the data set, the `number`-th.

    Raises:
        TypeError: it is no batch, an array is traced, or a dtype is wrong.
        ValueError: it lacks something, shapes disagree, or an option is unknown.
    """
    try:
        fields = _fields(batch)
        arrays = tuple(fields.get(name) for name in _ARRAYS)
        given = read_batch(arrays, **options)  # pyright: ignore[reportArgumentType]
        names = _names(fields.get("names"), number, len(given.scores))
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"batch {number}: {error}") from error
    return Batch(arrays, given, names)  # pyright: ignore[reportArgumentType]


def _fields(batch: Any) -> dict[Any, Any]:
    """Return the batch by name."""
    if isinstance(batch, Mapping):
        fields = {**batch}
        unknown = [str(name) for name in fields if name not in _FIELDS]
        if unknown:
            raise ValueError(
                f"holds {visible(', '.join(unknown))}, but must be {_FORM}"
            )
    elif isinstance(batch, tuple | list):
        if len(batch) > len(_FIELDS):
            raise ValueError(f"holds {len(batch)} things, but must be {_FORM}")
        fields: dict[Any, Any] = dict(zip(_FIELDS, batch, strict=False))
    else:
        raise TypeError(
            f"must be {_FORM}; got {type(batch).__name__}. `batches` are many: of one"
            " batch pass [batch]"
        )
    missing = [name for name in _ARRAYS[:2] if fields.get(name) is None]
    if missing:
        raise ValueError(f"lacks {' and '.join(missing)}: it must be {_FORM}")
    return fields


def _names(names: Any, number: int, count: int) -> list[str]:
    """Return one name per utterance; the batch and the place in it, if it has none."""
    if names is None:
        return [f"{number}:{index}" for index in range(count)]
    if isinstance(names, str) or not hasattr(names, "__len__"):
        raise TypeError(
            "`names` must be a list of names, one per utterance; got"
            f" {type(names).__name__}"
        )
    flat = [str(name) for name in np.asarray(names, object).reshape(-1)]
    if len(flat) != count:
        raise ValueError(
            f"`names` must name all B={count} utterances; got {len(flat)} names"
        )
    return flat


def one_of(given: Given, index: int, *, cut: bool) -> Given:
    """Return a batch of one utterance, a copy that holds on to no other.

    cut: leave out the frames after its length.
    """
    row, holes = slice(index, index + 1), given.holes
    if holes is not None:
        holes = dataclasses.replace(
            holes,
            labels=holes.labels[row].copy(),
            label_lengths=holes.label_lengths[row].copy(),
            has_some=holes.has_some[row].copy(),
        )
    frames = int(given.logit_lengths[index]) if cut else given.scores.shape[1]
    return dataclasses.replace(
        given,
        scores=given.scores[row, :frames].copy(),
        labels=given.labels[row].copy(),
        logit_lengths=given.logit_lengths[row].copy(),
        label_lengths=given.label_lengths[row].copy(),
        holes=holes,
    )
