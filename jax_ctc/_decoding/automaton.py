"""Many phrases looked for at once, each with its worth (Aho and Corasick's automaton).

It reads unit after unit, and is always in the longest beginning of a phrase that these
end with. With reward(m) for the phrases that end in node m, and promise(n) for the part
of one that has been begun there, a step from n to m gains

    reward(m) + promise(m) - promise(n)

Along any units the promises cancel. Once the last one is taken back, what is left is
the worth of each phrase that has occurred, as often as it has, and nothing else.

References:
    A. V. Aho and M. J. Corasick, "Efficient string matching: an aid to bibliographic
    search", Communications of the ACM 18 (1975).
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np


class Phrase(NamedTuple):
    """What is looked for, and what each of its units is worth."""

    units: tuple[Hashable, ...]
    worth: tuple[float, ...]


class Automaton(NamedTuple):
    """N nodes, the first being that of nothing; the last column is any other unit.

    Several of `once` in a row count as one: a node that ends in it is not left by it.
    """

    columns: dict[Hashable, int]
    targets: np.ndarray  # [N, A + 1] int32
    reward: np.ndarray  # [N] float64
    promise: np.ndarray  # [N] float64
    once: Hashable
    ends_in_once: np.ndarray  # [N] bool

    def walk(self, units: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
        """Return, of every node, what these units gain and where they lead."""
        node = np.arange(len(self.reward), dtype=np.int32)
        gain = -self.promise
        for unit in units:
            target = self.targets[:, self.columns.get(unit, len(self.columns))][node]
            stays = self.ends_in_once[node] & (unit == self.once)
            gain = gain + np.where(stays, 0, self.reward[target])
            node = np.where(stays, node, target)
        return gain + self.promise[node], node


def build(phrases: Sequence[Phrase], once: Hashable = None) -> Automaton:
    """Return the automaton that looks for these.

    once: a unit of which several in a row count as one.
    """
    columns = {unit: 0 for phrase in phrases for unit in phrase.units}
    columns = {unit: number for number, unit in enumerate(columns)}
    children: list[dict[int, int]] = [{}]
    reward, promise, ends_in_once = [0.0], [0.0], [False]
    for phrase in phrases:
        node, so_far = 0, 0.0
        for place, (unit, worth) in enumerate(
            zip(phrase.units, phrase.worth, strict=True), start=1
        ):
            column = columns[unit]
            if column not in children[node]:
                children[node][column] = len(children)
                children.append({})
                reward.append(0.0)
                promise.append(0.0)
                ends_in_once.append(unit == once)
            node, so_far = children[node][column], so_far + worth
            if place < len(phrase.units):
                promise[node] = max(promise[node], so_far)
        reward[node] += so_far
    targets = np.zeros((len(children), len(columns) + 1), np.int32)
    fall, queue = [0] * len(children), [0]
    for node in queue:  # the shorter ones first
        if node:
            # What its longest ending that is a beginning would do, and its own.
            back = fall[node]
            targets[node] = targets[back]
            reward[node] += reward[back]
            promise[node] = max(promise[node], promise[back])
        for column, child in children[node].items():
            fall[child] = int(targets[node, column])
            targets[node, column] = child
            queue.append(child)
    return Automaton(
        columns,
        targets,
        np.array(reward),
        np.array(promise),
        once,
        np.array(ends_in_once),
    )
