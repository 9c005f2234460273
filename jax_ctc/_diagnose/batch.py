"""The batch as it was passed: on the host, flat, checked, nothing repaired."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jax_ctc._checks.arrays import check_inputs
from jax_ctc._checks.labels import narrow
from jax_ctc._checks.options import check_blank_id, check_option
from jax_ctc._checks.vocabularies import check_vocabulary
from jax_ctc._numbers.precision import accumulator

_MASKED = 80.0  # nats: exp(-80) is nothing beside 1, at any number of classes

_NAMES = ("logits", "labels", "logit_lengths", "label_lengths")


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """What the caller passed, as host arrays; leading axes flattened row-major."""

    scores: np.ndarray  # [B, T, V] float32
    labels: np.ndarray  # [B, U] int32
    logit_lengths: np.ndarray  # [B] int32
    label_lengths: np.ndarray  # [B] int32
    blank_id: int
    inputs: str  # "logits" or "log_probs"
    is_half: bool  # is, or once was, in half precision: tolerances follow
    fractions: tuple[str, ...]  # names of lengths that were shares of the whole
    names: tuple[str, ...] | None  # [V] what each class is called

    def spell(self, labels: Any) -> str:
        """Write labels as text."""
        ids = [int(label) for label in labels]
        if self.names is None:
            return " ".join(map(str, ids))
        known = [self.names[i] if 0 <= i < len(self.names) else f"<{i}>" for i in ids]
        return ("" if all(len(name) <= 1 for name in self.names) else " ").join(known)

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
    num_frames, num_labels = batch.scores.shape[-2], batch.labels.shape[-1]
    utterances = int(np.prod(batch.scores.shape[:-2], dtype=np.int64))
    limit = np.finfo(np.float32).max
    wide = np.asarray(jax.device_get(batch.scores))
    if accumulator(wide.dtype) == np.float64:  # finite must stay finite in float32
        wide = np.where(np.isfinite(wide), np.clip(wide, -limit, limit), wide)
    return Given(
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
