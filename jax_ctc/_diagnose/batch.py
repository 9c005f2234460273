"""The batch as it was passed: on the host, flat, checked, nothing repaired."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jax_ctc._checks.arrays import check_inputs
from jax_ctc._checks.labels import is_wildcard, is_within, narrow, to_the_left
from jax_ctc._checks.options import (
    check_blank_id,
    check_option,
    check_wildcard_id,
    check_wildcard_log_prob,
)
from jax_ctc._checks.vocabularies import check_vocabulary
from jax_ctc._numbers.precision import accumulator

_MASKED = 80.0  # nats: exp(-80) is nothing beside 1, at any number of classes

_NAMES = ("logits", "labels", "logit_lengths", "label_lengths")


@dataclasses.dataclass(frozen=True, eq=False)
class Holes:
    """Transcripts with wildcards, as they were passed."""

    labels: np.ndarray  # [B, U] int32
    label_lengths: np.ndarray  # [B] int32
    has_some: np.ndarray  # [B] bool
    wildcard_id: int
    log_prob: float


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """What the caller passed, as host arrays; leading axes flattened row-major."""

    scores: np.ndarray  # [B, T, V] float32
    labels: np.ndarray  # [B, U] int32, wildcards taken out
    logit_lengths: np.ndarray  # [B] int32
    label_lengths: np.ndarray  # [B] int32
    blank_id: int
    inputs: str  # "logits" or "log_probs"
    is_half: bool  # is, or once was, in half precision: tolerances follow
    fractions: tuple[str, ...]  # names of lengths that were shares of the whole
    names: tuple[str, ...] | None  # [V] what each class is called
    holes: Holes | None = None  # None: no label is a wildcard

    def spell(self, labels: Any) -> str:
        """Write labels as text."""
        ids = [int(label) for label in labels]
        if self.names is None:
            return " ".join(map(str, ids))
        known = [self.names[i] if 0 <= i < len(self.names) else f"<{i}>" for i in ids]
        return ("" if all(len(name) <= 1 for name in self.names) else " ").join(known)

    def transcript(self, index: int) -> np.ndarray:
        """Return the labels of one utterance, wildcards included."""
        given = self.holes or self
        return given.labels[index, : np.clip(given.label_lengths[index], 0, None)]

    def spell_transcript(self, index: int) -> str:
        """Write one utterance's labels as text, wildcards as "*"."""
        labels = self.transcript(index).tolist()
        if self.holes is None:
            return self.spell(labels)
        pieces, piece = [], []
        for label in labels:
            if label == self.holes.wildcard_id:
                pieces += [self.spell(piece), "*"]
                piece = []
            else:
                piece.append(label)
        return " ".join(filter(None, [*pieces, self.spell(piece)]))

    def only(self, who: np.ndarray) -> "Given":
        """Return some utterances, none of which has a wildcard."""
        arrays = ("scores", "labels", "logit_lengths", "label_lengths")
        rows = {name: getattr(self, name)[who] for name in arrays}
        return dataclasses.replace(self, holes=None, **rows)

    def name(self, label: int) -> str:
        """Write one class: its id, and its name where there is one."""
        if self.names is None or not 0 <= label < len(self.names):
            return str(label)
        return f"{label} ({self.names[label]!r})"


def read_batch(
    arrays: tuple[Any, Any, Any, Any],
    *,
    blank_id: Any,
    inputs: Any,
    vocabulary: Any,
    wildcard_id: Any = None,
    wildcard_log_prob: Any = 0.0,
) -> Given:
    """Raise on what no loss could take; bring the rest to the host.

    Raises:
        TypeError: an argument is traced, a dtype is wrong, or `vocabulary` is neither a
            sequence nor a mapping of strings.
        ValueError: shapes disagree, or an option has an unknown value.
    """
    for name, value in zip(_NAMES, arrays, strict=True):
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
            raise TypeError(
                f"`diagnose` looks at concrete numbers on the host, but `{name}` is"
                " traced: return the batch from the jitted function and call"
                " `diagnose` outside, or let `jax_ctc.watch` do it while you train"
            )
    scores, labels, *lengths = arrays
    fractions = []
    for place, (name, full) in enumerate(
        (("logit_lengths", _size(scores, -2)), ("label_lengths", _size(labels, -1)))
    ):
        if full is not None and _are_fractions(lengths[place]):
            # Round half up, as the toolkits that count in fractions do.
            share = np.asarray(lengths[place], np.float64)
            lengths[place] = np.floor(share * full + 0.5).astype(np.int32)
            fractions.append(name)
    batch = check_inputs(scores, labels, *lengths)
    num_classes = batch.scores.shape[-1]
    blank = check_blank_id(blank_id, num_classes)
    kind = check_option(inputs, ("logits", "log_probs"), name="inputs")
    wildcard = check_wildcard_id(wildcard_id, blank)
    log_prob = check_wildcard_log_prob(wildcard_log_prob, wildcard)
    num_frames, num_labels = batch.scores.shape[-2], batch.labels.shape[-1]
    utterances = int(np.prod(batch.scores.shape[:-2], dtype=np.int64))
    limit = np.finfo(np.float32).max
    wide = np.asarray(jax.device_get(batch.scores))
    if accumulator(wide.dtype) == np.float64:  # finite must stay finite in float32
        wide = np.where(np.isfinite(wide), np.clip(wide, -limit, limit), wide)
    given = Given(
        scores=wide.astype(np.float32).reshape(utterances, num_frames, num_classes),
        labels=_host(batch.labels).reshape(utterances, num_labels),
        logit_lengths=_lengths(batch.logit_lengths, utterances, num_frames),
        label_lengths=_lengths(batch.label_lengths, utterances, num_labels),
        blank_id=blank,
        inputs=kind,
        is_half=batch.scores.dtype.itemsize == 2 or _was_half(wide),
        fractions=tuple(fractions),
        names=check_vocabulary(vocabulary, num_classes),
    )
    return given if wildcard is None else _parted(given, wildcard, float(log_prob))


def _parted(given: Given, wildcard_id: int, log_prob: float) -> Given:
    """Take the wildcards out of the labels; a length that is none stays as it is."""
    labels, lengths = given.labels, given.label_lengths
    is_wild = is_wildcard(labels, lengths, wildcard_id)
    is_wild = is_wild & is_within(lengths, labels.shape[1])[:, None]
    return dataclasses.replace(
        given,
        labels=to_the_left(np, labels, is_wild),
        label_lengths=(lengths - is_wild.sum(1)).astype(np.int32),
        holes=Holes(labels, lengths, is_wild.any(1), wildcard_id, log_prob),
    )


def live_frames(logit_lengths: np.ndarray, num_frames: int) -> np.ndarray:
    """Return [B, T] bool: frames inside the length; all of them if it is no length."""
    good = (logit_lengths >= 0) & (logit_lengths <= num_frames)
    lengths = np.where(good, logit_lengths, num_frames)
    return np.arange(num_frames)[None, :] < lengths[:, None]


def _was_half(scores: np.ndarray) -> bool:
    """Tell whether nothing would be lost by half precision: it was lost before.

    A class that was masked afterwards, by -1e9 or so, has no mass to be judged by.
    """
    scores = scores[scores > -_MASKED]
    with np.errstate(over="ignore"):
        halves = (scores.astype(half) for half in (np.float16, jnp.bfloat16))
        return any((half.astype(scores.dtype) == scores).all() for half in halves)


def _host(integers: Any) -> np.ndarray:
    return np.array(narrow(jnp.asarray(integers)))


def _lengths(lengths: Any, utterances: int, full: int) -> np.ndarray:
    if lengths is None:
        return np.full(utterances, full, np.int32)
    return _host(lengths).reshape(utterances)


def _size(array: Any, axis: int) -> int | None:
    """Return a size, or None for what is no array; `check_inputs` will say so."""
    try:
        return np.shape(array)[axis]
    except (ValueError, IndexError):
        return None


def _are_fractions(lengths: Any) -> bool:
    """Tell shares of the whole, such as 0.75, from lengths of a wrong dtype."""
    if lengths is None:
        return False
    try:
        values = np.asarray(lengths)
    except ValueError:
        return False
    if not jnp.issubdtype(values.dtype, jnp.floating) or values.size == 0:
        return False
    return bool(((values >= 0) & (values <= 1)).all() and (values > 0).any())
