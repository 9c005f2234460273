"""What can be wrong with one utterance: a bit each, and a sentence a person can use."""

import enum
from typing import Any

import numpy as np
from jax.core import Tracer


class Status(enum.IntFlag):
    """Why an utterance has no usable loss. Bits combine; 0 means it is fine.

    Under `jit` nothing can be raised, so the functions of this library return an int32
    array of these bits, one per utterance. Any bit means: gradient exactly 0 for that
    utterance, and its neighbours are untouched. `explain` says them as sentences.

    Attributes:
        OK: nothing is wrong.
        INFEASIBLE: fewer frames than labels plus adjacent repeats: no path exists.
        LABEL_OUT_OF_RANGE: a label inside label_lengths is negative or no class.
        BLANK_IN_LABELS: a label inside label_lengths is the blank.
        BAD_LENGTH: logit_lengths is outside 0..T, or label_lengths outside 0..U.
        NONFINITE_LOGITS: a frame inside logit_lengths holds NaN or +inf, or only -inf.
        ZERO_PROBABILITY: every path needs a class whose logit is -inf there.
        BAD_GRAPH: an open arc of a `Graph` names a state or a class that is not there.
    """

    OK = 0
    INFEASIBLE = 1
    LABEL_OUT_OF_RANGE = 2
    BLANK_IN_LABELS = 4
    BAD_LENGTH = 8
    NONFINITE_LOGITS = 16
    ZERO_PROBABILITY = 32
    BAD_GRAPH = 64


_SENTENCES = {
    Status.INFEASIBLE: (
        "INFEASIBLE: fewer frames than labels plus adjacent repeats (each repeat needs"
        " a blank in between), so no path exists; subsample less, or drop it"
        " (minimum_frames tells which)"
    ),
    Status.LABEL_OUT_OF_RANGE: (
        "LABEL_OUT_OF_RANGE: a label id inside label_lengths is negative or >= V;"
        " check the vocabulary size; labels padded with -1 or -100 need their lengths,"
        " label_lengths=(labels >= 0).sum(-1)"
    ),
    Status.BLANK_IN_LABELS: (
        "BLANK_IN_LABELS: the blank id occurs among the labels; labels must not contain"
        " blanks, so check blank_id, or shorten label_lengths if blank is the padding"
    ),
    Status.BAD_LENGTH: (
        "BAD_LENGTH: logit_lengths is outside 0..T or label_lengths outside 0..U;"
        " lengths count frames and labels, not samples or fractions"
    ),
    Status.NONFINITE_LOGITS: (
        "NONFINITE_LOGITS: a frame inside logit_lengths holds NaN or +inf, or -inf for"
        " every class; the fault lies upstream of the loss"
    ),
    Status.ZERO_PROBABILITY: (
        "ZERO_PROBABILITY: there are enough frames, but every path needs a class whose"
        " logit is -inf there; check the masks on the logits"
    ),
    Status.BAD_GRAPH: (
        "BAD_GRAPH: an open arc of the graph comes from or leads to a state outside"
        " 0..S-1, or emits a class outside 0..V-1; arcs that pad need log_weight -inf;"
        " ctc_graph marks so a label that is the blank or negative, and a length"
        " outside 0..U"
    ),
}
_KNOWN_BITS = int(sum(_SENTENCES))


def explain(status: Any) -> list[list[str]]:
    """Say in words what each utterance's status bits mean.

    Args:
        status: [...] integer bits of `Status`, as `ctc_loss_with_status` and
            `check_batch` return them.

    Returns:
        One list per utterance, in row-major order, with one sentence per bit set;
        an empty list where the utterance is fine.

    Raises:
        TypeError: `status` is traced (call it outside `jit`), or is not integer.
        ValueError: `status` has bits that `Status` does not define.

    Example:
        >>> import jax_ctc
        >>> [reasons] = jax_ctc.explain([jax_ctc.Status.BLANK_IN_LABELS])
        >>> reasons[0].split(":")[0]
        'BLANK_IN_LABELS'
        >>> jax_ctc.explain([0])
        [[]]
    """
    return [_sentences(bits) for bits in _on_host(status, "explain").ravel().tolist()]


def raise_if(status: Any) -> None:
    """Raise one error that names every flagged utterance and its reasons.

    Args:
        status: [...] integer bits of `Status`, on the host or on a device.

    Raises:
        ValueError: some utterance has a bit set; or a bit that `Status` lacks.
        TypeError: `status` is traced (call it outside `jit`), or is not integer.

    Example:
        >>> import jax_ctc
        >>> jax_ctc.raise_if([0, 0])
        >>> jax_ctc.raise_if([0, 1])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: 1 of 2 utterances cannot be scored:
          [1] INFEASIBLE: fewer frames than labels ...
    """
    bits = _on_host(status, "raise_if")
    flagged = np.argwhere(bits != 0)
    if not len(flagged):
        return
    rows = [
        f"  {index.tolist()} {sentence}"
        for index in flagged
        for sentence in _sentences(int(bits[tuple(index)]))
    ]
    noun = "utterance" if bits.size == 1 else "utterances"
    raise ValueError(
        f"{len(flagged)} of {bits.size} {noun} cannot be scored:\n" + "\n".join(rows)
    )


def _sentences(bits: int) -> list[str]:
    return [text for flag, text in _SENTENCES.items() if bits & flag]


def _on_host(status: Any, caller: str) -> np.ndarray:
    """Fetch the bits, or say why that cannot be."""
    if isinstance(status, Tracer):
        raise TypeError(
            f"`{caller}` reads concrete status bits, but `status` is traced"
            f" ({status.aval}): return the status from the jitted function and call"
            f" `{caller}` on it outside"
        )
    bits = np.asarray(status)
    if bits.size == 0:
        return bits.astype(np.int32)
    if not np.issubdtype(bits.dtype, np.integer):
        raise TypeError(
            f"`status` must be integer bits of `Status`; got dtype {bits.dtype}."
            " Pass the second result of `ctc_loss_with_status`"
        )
    unknown = np.unique(bits[(bits & ~_KNOWN_BITS) != 0])
    if unknown.size:
        raise ValueError(
            f"`status` has values outside the bits of `Status` (0..{_KNOWN_BITS}): "
            f"{unknown.tolist()}. Is it really a status array?"
        )
    return bits
