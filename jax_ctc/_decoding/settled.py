"""Labels that no longer can change while a search goes on.

Whatever a search finds in the end begins with one of the prefixes that are in the beam
now. What all of these begin with is settled.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ctc._decoding import nbest
from jax_ctc._decoding.nbest import Nbest
from jax_ctc._decoding.records import SettledLabels
from jax_ctc._decoding.trace import unpack

# A window of frames, and its labels, are padded to a power of two, at least these: so
# few programs serve all of them.
_FEWEST_FRAMES = 64
_FEWEST_LABELS = 16


class Settled:
    """What has been given out of a recording, and what waits to be.

    suffixes: of each prefix in the beam, the labels after those given out.
    frames: the scores from the first frame of the last label given out, for its own
        path and those of the next labels go through it.
    """

    def __init__(self, width: int, num_classes: int, *, blank_id: int, normalise: bool):
        self.lattice = {"blank_id": blank_id, "normalise": normalise}
        self.num_classes = num_classes
        self.suffixes: list[list[int]] = [[] for _ in range(width)]
        self.last: list[int] = []  # the last label given out, if any
        self.frames: list[np.ndarray] = []
        self.first_frame = 0  # of `frames`, in the recording

    def read(
        self, kept: np.ndarray, is_alive: np.ndarray, best: int, frames: np.ndarray
    ) -> SettledLabels | None:
        """Take in what a search kept of some frames; return what has settled, if any.

        kept: [F, W]; is_alive: [W], whether a place in the beam holds a prefix; best:
        the place of the best one; frames: [t, V] scores.
        """
        self.frames.append(frames)
        place, added = np.arange(len(self.suffixes)), []
        for row in kept[::-1]:
            place, label = unpack(row[place], self.num_classes)
            added.append(label)
        added = np.stack(added[::-1], axis=1)  # [W, F]
        self.suffixes = [
            self.suffixes[source] + labels[labels >= 0].tolist()
            for source, labels in zip(place, added, strict=True)
        ]
        alive = [s for s, ok in zip(self.suffixes, is_alive, strict=True) if ok]
        count = _agreed(alive)
        if count == 0:
            return None
        labels = self.suffixes[best]
        found = self._times(labels)
        own = slice(len(self.last), len(self.last) + count)
        new: Any = np.array(labels[:count], np.int32)
        start: Any = np.asarray(found.start)[own] + np.int32(self.first_frame)
        end: Any = np.asarray(found.end)[own] + np.int32(self.first_frame)
        confidence: Any = np.asarray(found.confidence)[own]
        settled = SettledLabels(new, start, end, confidence)
        self._forget(labels[count - 1], count, int(start[-1]))
        return settled

    def _times(self, labels: list[int]) -> nbest.Times:
        """Find the labels, and the one before them, in the frames at hand."""
        labels, frames = self.last + labels, np.concatenate(self.frames)
        num_frames = _power_of_two(len(frames), _FEWEST_FRAMES)
        size = _power_of_two(len(labels), _FEWEST_LABELS)
        found = _times(
            jnp.pad(frames, ((0, num_frames - len(frames)), (0, 0))),
            np.int32(len(frames)),
            np.pad(np.array(labels, np.int32), (0, size - len(labels))),
            np.int32(len(labels)),
            **self.lattice,
        )
        return jax.tree.map(np.asarray, found)

    def _forget(self, last: int, count: int, start: int) -> None:
        """Drop what has been given out, and all frames before the last label of it."""
        self.suffixes = [suffix[count:] for suffix in self.suffixes]
        self.last = [last]
        frames = np.concatenate(self.frames)
        self.frames = [frames[start - self.first_frame :]]
        self.first_frame = start


def _agreed(sequences: list[list[int]]) -> int:
    """Count the labels that all sequences begin with."""
    count = 0
    for labels in zip(*sequences, strict=False):  # to the end of the shortest
        if len(set(labels)) > 1:
            break
        count += 1
    return count


def _power_of_two(number: int, least: int) -> int:
    return max(least, 1 << (number - 1).bit_length())


@functools.partial(jax.jit, static_argnames=("blank_id", "normalise"))
def _times(
    frames: Any, num_frames: Any, labels: Any, length: Any, **lattice: Any
) -> nbest.Times:
    found = nbest.times(
        Nbest(
            scores=frames[None],
            logit_lengths=num_frames[None],
            labels=labels[None, None],
            lengths=length[None, None],
            is_ok=jnp.ones((1, 1), bool),
        ),
        **lattice,
    )
    return jax.tree.map(lambda x: x[0, 0], found)
