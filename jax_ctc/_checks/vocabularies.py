"""What the classes are called, and where words begin and end in their texts."""

from collections.abc import Mapping
from typing import Any, NamedTuple

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
