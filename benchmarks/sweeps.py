"""How cost grows with one size at a time, by powers of two, the others held."""

import dataclasses
from typing import Any

from tests.cases import Case

ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A size to double, from first to last, and what the other sizes are."""

    letter: str
    size: str  # the attribute of `Case` that grows
    first: int
    last: int
    others: dict[str, int]

    def cases(self) -> list[Case]:
        """Return full-length batches, smallest first."""
        sizes: dict[str, Any] = dict(self.others)
        cases = []
        value = self.first
        while value <= self.last:
            sizes[self.size] = value
            name = f"{self.letter}={value}"
            cases.append(Case(name, note="sweep", tags=frozenset(), **sizes))
            value *= 2
        return cases


SWEEPS = {
    sweep.letter: sweep
    for sweep in (
        Sweep("T", "frames", 2048, 131072, {"batch": 8, "classes": 32, "labels": 600}),
        Sweep("U", "labels", 16, 512, {"batch": 8, "frames": 1024, "classes": 64}),
        Sweep("V", "classes", 32, 32768, {"batch": 8, "frames": 256, "labels": 32}),
        Sweep("B", "batch", 1, 256, {"frames": 256, "classes": 64, "labels": 32}),
    )
}
