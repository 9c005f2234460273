"""What a compiled program sends between devices, read from its optimised text."""

import math
import re
from typing import NamedTuple

_COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|all-to-all|reduce-scatter|ragged-all-to-all"
    r"|collective-permute|collective-broadcast)(?:-start)?\("
)
_ARRAY = re.compile(r"\b(?:pred|[a-z]+\d+\w*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One exchange between devices: its name, and the elements of each array."""

    name: str
    sizes: tuple[int, ...]


def collectives(text):
    """List every collective of a compiled program's text."""
    return [
        Collective(
            name,
            tuple(
                math.prod(int(n) for n in dims.split(",") if n)
                for dims in _ARRAY.findall(result)
            ),
        )
        for result, name in _COLLECTIVE.findall(text)
    ]


def names(text):
    """List the collectives' names."""
    return [collective.name for collective in collectives(text)]
