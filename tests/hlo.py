"""What a compiled program sends between devices, read from its optimised text."""

import math
import re
from typing import NamedTuple

_COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|all-to-all|reduce-scatter|ragged-all-to-all"
    r"|collective-permute|collective-broadcast)(-start)?\("
)
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One exchange between devices: its name, and the elements of each array."""

    name: str
    sizes: tuple[int, ...]
    num_bytes: int


# Where these start, the operands are listed beside the results.
_DOUBLE = {"all-gather-start", "collective-permute-start"}


def collectives(text: str) -> list[Collective]:
    """List every collective of a compiled program's text."""
    found = []
    for result, name, start in _COLLECTIVE.findall(text):
        sizes, num_bytes = [], 0
        for _, bits, dims in _ARRAY.findall(result):
            sizes.append(math.prod(int(n) for n in dims.split(",") if n))
            num_bytes += sizes[-1] * int(bits or 8) // 8
        if name + start in _DOUBLE:
            num_bytes //= 2
        found.append(Collective(name, tuple(sizes), num_bytes))
    return found
