"""What a compiled program sends and launches, read from its optimised text."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|all-to-all|reduce-scatter|ragged-all-to-all"
    r"|collective-permute|collective-broadcast)(-start)?\("
)
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_LAYOUT = re.compile(r"\{[^{}]*\}|/\*.*?\*/")
_WHILE = re.compile(r" while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)")
_CALLED = re.compile(
    r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.-]+)"
    r"|(?:branch_computations|called_computations)=\{([^}]*)\}"
)
_TRIPS = re.compile(r'known_trip_count\W+n\W+(\d+)"')
_CONSTANT = re.compile(r"%?([\w.-]+) = s32\[\]\S* constant\((\d+)\)")
_BELOW = re.compile(r"ROOT .* compare\([^,]*, %?([\w.-]+)\), direction=LT")
_LAUNCHED = re.compile(
    r" (?:fusion|copy|custom-call|dynamic-update-slice|dynamic-slice|scatter|reduce"
    r"|sort|convert|transpose|concatenate|gather|select|pad|broadcast|iota)\("
)
_ESTIMATE = re.compile(r'"estimated_cycles":"(\d+)"')
_NAME = re.compile(r"%?([\w.-]+) = ")
# Where these start, the operands are listed before the results.
_OPERANDS_FIRST = {"all-gather-start", "collective-permute-start"}


class Collective(NamedTuple):
    """One exchange between devices: its name, and the elements of each array.

    `times` is how often one call does it: 1 outside of loops, None in a loop of which
    the program does not say how often it turns.
    """

    name: str
    sizes: tuple[int, ...]
    num_bytes: int
    times: int | None = 1


def collectives(text: str) -> list[Collective]:
    """List every collective of a compiled program's text."""
    bodies = _computations(text)
    found = []
    for computation, times in _calls(bodies):
        for line in bodies[computation]:
            match = _COLLECTIVE.search(line)
            if match:
                result, name, start = match.groups()
                if name + (start or "") in _OPERANDS_FIRST:
                    result = _second(result)
                found.append(Collective(name, *_sizes(result), times))
    return found


def bytes_sent(found: list[Collective]) -> tuple[int, bool]:
    """Add up the bytes of one call; and tell if that is all, or at least so much."""
    total = sum(each.num_bytes * (each.times or 1) for each in found)
    return total, all(each.times is not None for each in found)


class Launch(NamedTuple):
    """An operation that a device starts, how often, and its compiler's cycles."""

    name: str
    times: int
    cycles: int


def launches(text: str) -> list[Launch]:
    """List the operations that a program starts one by one.

    A fusion is one, whatever is in it. Of the branches of a conditional all are listed.

    Raises:
        ValueError: a loop does not say how often it turns.
    """
    bodies = _computations(text)
    found = []
    for computation, times in _calls(bodies, is_launched=True):
        for line in bodies[computation]:
            if _LAUNCHED.search(line):
                if times is None:
                    raise ValueError(f"how often does the loop of {line.strip()} turn?")
                cycles = _ESTIMATE.search(line)
                name = _NAME.search(line)
                found.append(
                    Launch(
                        name[1] if name else "",
                        times,
                        int(cycles[1]) if cycles else 0,
                    )
                )
    return found


def _computations(text: str) -> dict[str, list[str]]:
    """Split a program at its computations; what comes first is ENTRY's, as is ""."""
    bodies: dict[str, list[str]] = {"": []}
    name = ""
    for line in text.splitlines():
        match = _COMPUTATION.match(line.strip())
        if match:
            name = "" if match[1] else match[2]
            bodies.setdefault(name, [])
        else:
            bodies[name].append(line)
    return bodies


def _calls(
    bodies: dict[str, list[str]],
    name: str = "",
    times: int | None = 1,
    *,
    is_launched: bool = False,
) -> Iterator[tuple[str, int | None]]:
    """Yield each computation that ENTRY reaches, once per call, and how often it runs.

    Of the branches of a conditional all are counted. Those inside of a launched
    operation are left out where only launches are wanted.
    """
    yield name, times
    for line in bodies[name]:
        loop = _WHILE.search(line)
        if loop:
            trips = _trips(line, bodies.get(loop[1], []))
            inner = None if times is None or trips is None else times * trips
            yield from _calls(bodies, loop[2], inner, is_launched=is_launched)
            continue
        if is_launched and _LAUNCHED.search(line):
            continue
        for one, several in _CALLED.findall(line):
            for called in [one] if one else several.replace("%", "").split(", "):
                if called in bodies:
                    yield from _calls(bodies, called, times, is_launched=is_launched)


def _trips(line: str, condition: list[str]) -> int | None:
    """Tell how often a loop turns: the compiler's word, or the bound of its counter.

    The counter of a loop that JAX wrote starts at 0 and goes up by 1.
    """
    said = _TRIPS.search(line)
    if said:
        return int(said[1])
    constants = dict(found for row in condition for found in _CONSTANT.findall(row))
    for row in condition:
        below = _BELOW.search(row)
        if below and below[1] in constants:
            return int(constants[below[1]])
    return None


def _second(result: str) -> str:
    """Return the second part of a tuple, which may be a tuple itself."""
    parts, depth = [""], 0
    for letter in _LAYOUT.sub("", result).strip()[1:-1]:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts[1]


def _sizes(result: str) -> tuple[tuple[int, ...], int]:
    """Return the elements of each array, and the bytes of all."""
    sizes, num_bytes = [], 0
    for _, bits, dims in _ARRAY.findall(_LAYOUT.sub("", result)):
        sizes.append(math.prod(int(n) for n in dims.split(",") if n))
        num_bytes += sizes[-1] * int(bits or 8) // 8
    return tuple(sizes), num_bytes
