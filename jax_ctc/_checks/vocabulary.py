"""Names of the classes: a sequence in the order of their ids, or a mapping from ids."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from jax_ctc._checks.given import Vocabulary


def check_texts(vocabulary: Any) -> Vocabulary:
    """Return the vocabulary, of which only the ids that occur need a text, or raise.

    Raises:
        TypeError: it holds no text by class id.
    """
    if not hasattr(vocabulary, "__getitem__"):
        raise TypeError(
            "`vocabulary` must hold the text of each class id, as a list or a dict; got"
            f" {type(vocabulary).__name__}"
        )
    if isinstance(vocabulary, Mapping):
        _check_ids(vocabulary)
    return vocabulary


def check_vocabulary(
    vocabulary: Any, num_classes: int | None
) -> tuple[str, ...] | None:
    """Return one name per class, or raise.

    num_classes: None while it is not known how many there will be.

    Raises:
        TypeError: it is neither a sequence nor a mapping, or its names are no strings.
        ValueError: it is a sequence of another length.
    """
    if vocabulary is None:
        return None
    is_sequence = isinstance(vocabulary, Sequence | np.ndarray)
    is_sequence = is_sequence and not isinstance(vocabulary, bytes | bytearray)
    if not is_sequence and not isinstance(vocabulary, Mapping):
        hint = ""
        if isinstance(vocabulary, Set):
            hint = ". A set has no order: which class is called what?"
        raise TypeError(
            "`vocabulary` must be the names of the classes in the order of their ids,"
            " as a list or a string of letters, or a mapping from ids to names; got"
            f" {type(vocabulary).__name__}{hint}"
        )
    is_mapping = isinstance(vocabulary, Mapping)
    if is_mapping:
        _check_ids(vocabulary)
    names: list[Any] = list(vocabulary.values() if is_mapping else vocabulary)
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise TypeError(
            f"`vocabulary` must name classes by strings; got {odd[0]!r}"
            f" ({type(odd[0]).__name__}) among the names"
        )
    if num_classes is None:
        return None
    if isinstance(vocabulary, Mapping):  # ids that it lacks are written as they are
        return tuple(str(vocabulary.get(c, c)) for c in range(num_classes))
    if len(names) != num_classes:
        raise ValueError(
            f"`vocabulary` must name all V={num_classes} classes, blank included; got"
            f" {len(names)} names"
        )
    return tuple(names)


def _check_ids(vocabulary: Mapping[Any, Any]) -> None:
    """Raise where keys are text: tokenizers map text to ids, and JSON has no others."""
    if not vocabulary or not all(isinstance(key, str) for key in vocabulary):
        return
    key, value = next(iter(vocabulary.items()))
    is_inside_out = isinstance(value, int | np.integer)
    fix = (
        "It is inside out: pass {id: text for text, id in vocabulary.items()}"
        if is_inside_out
        else "Pass {int(id): text for id, text in vocabulary.items()}"
    )
    raise TypeError(
        "`vocabulary` must map class ids to their texts; got text as keys, such as"
        f" {key!r}: {value!r}. {fix}"
    )
