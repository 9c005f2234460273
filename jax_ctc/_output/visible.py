r"""Text of somebody else's that is about to be shown: what would act is shown instead.

Labels, names of classes and names of files come from anywhere. A terminal runs what
follows an ESC, U+202E turns the rest of a line round, a NUL makes XML malformed. Such
characters are written as Python writes them, `\x1b`, which every font can draw.
"""

import functools
import json
import math
import unicodedata
from typing import Any

# Bidirectional embeddings, overrides and isolates reach beyond the text that they stand
# in. Other invisible characters, such as joiners, belong to the spelling of languages.
DIRECTIONS = "".join(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def visible(text: str, keep: str = "") -> str:
    """Return the text with control characters, but those of `keep`, written out."""
    return "".join(
        _written(letter) if _acts(letter) and letter not in keep else letter
        for letter in text
    )


def visible_json(value: Any, indent: int | None = 2) -> str:
    r"""Return JSON that says the same, and in which nothing acts: `\u202e`."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    # Line breaks are JSON's own; those of a string are escaped already.
    return "".join(
        f"\\u{ord(letter):04x}" if letter != "\n" and _acts(letter) else letter
        for letter in text
    )


def plain(value: Any) -> Any:
    """Return the value in what JSON has: infinities and NaN as strings."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


@functools.cache
def _acts(letter: str) -> bool:
    """Tell whether a character does something instead of being seen.

    Controls, halves of a surrogate pair (no file can hold one) and line separators; and
    the two characters that are none, which XML forbids.
    """
    return (
        unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")
        or letter in DIRECTIONS
        or letter in "\ufffe\uffff"
    )


def _written(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
