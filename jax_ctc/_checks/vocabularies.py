"""What the classes are called, and where words begin and end in their texts."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from jax_ctc._checks.given import Vocabulary
from jax_ctc._checks.options import check_blank_id


class Piece(NamedTuple):
    """The text of a class within a word, and whether that begins or ends with it."""

    text: str  # empty: the class only parts words
    begins: bool
    ends: bool


def piece(text: str, separator: str) -> Piece:
    """Read a class's text by the way its vocabulary marks words.

    | separator   | marks                                                  |
    |-------------|--------------------------------------------------------|
    | "##"        | pieces that begin with it and go on with a word        |
    | "@@"        | pieces that end with it, whose word goes on            |
    | "</w>"      | pieces that end with it, and a word with them          |
    | another     | pieces that begin with it, and a word with them: "▁",  |
    |             | or " " and "|" where they are classes of their own     |
    """
    if separator == "##":
        return Piece(text.removeprefix("##"), not text.startswith("##"), False)
    if separator == "@@":
        return Piece(text.removesuffix("@@"), False, not text.endswith("@@"))
    if separator == "</w>":
        return Piece(text.removesuffix("</w>"), False, text.endswith("</w>"))
    return Piece(text.removeprefix(separator), text.startswith(separator), False)


def text_of(label: Any, vocabulary: Any) -> str:
    """Return the text of a class, or raise."""
    try:
        return str(vocabulary[int(label)])
    except LookupError:
        raise ValueError(
            f"`vocabulary` must have a text for every class among the labels; class"
            f" {int(label)} is not among its {len(vocabulary)} entries"
        ) from None


def joined(texts: Iterable[str], separator: str | None) -> str:
    """Return what labels say: side by side, or as words with a blank between them."""
    if separator is None:
        return "".join(texts)
    words = [""]
    for text in texts:
        one = piece(text, separator)
        words += [""] * one.begins
        words[-1] += one.text
        words += [""] * one.ends
    return " ".join(filter(None, words))


def check_separator(separator: Any) -> str:
    """Return the separator, or raise."""
    if not isinstance(separator, str) or separator == "":
        raise ValueError(
            "`separator` must be the text that parts words, at least one character;"
            f" got {separator!r}"
        )
    return separator


def class_texts(vocabulary: Vocabulary, blank_id: Any) -> list[str | None]:
    """Return the text of every class, None for the blank, or raise."""
    if isinstance(vocabulary, str):
        texts: list[Any] = list(vocabulary)
    elif isinstance(vocabulary, Mapping):
        missing = sorted(set(range(len(vocabulary))) - set(vocabulary))
        if missing:
            raise ValueError(
                "`vocabulary` must have a text for each class, 0 to"
                f" {len(vocabulary) - 1} of its {len(vocabulary)} entries;"
                f" {missing[0]} is missing"
            )
        texts = [vocabulary[k] for k in range(len(vocabulary))]
    else:
        try:
            texts = list(vocabulary)
        except TypeError:
            texts = [None]
    blank = check_blank_id(blank_id, len(texts)) if texts else 0
    for k, text in enumerate(texts):
        if k != blank and not isinstance(text, str):
            raise TypeError(
                "`vocabulary` must hold the text of each class id, as a list or a"
                f" dict; got {text!r} for class {k} in a {type(vocabulary).__name__}"
            )
    return [None if k == blank else text for k, text in enumerate(texts)]


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
