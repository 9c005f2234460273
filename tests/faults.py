"""Faults to inject into a clean batch: one line of wrong code each, at some strengths.

A fault is a function (batch, strength, rng) -> batch; batches are dictionaries of the
arguments of `diagnose`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.special import log_softmax, softmax


@dataclasses.dataclass(frozen=True)
class Fault:
    """A mistake by its code, and whether an untrained model gives it away."""

    code: str
    strengths: tuple
    inject: Callable
    untrained: bool = False
    square: bool = False  # needs as many utterances as frames, and no more classes
    reader: bool = False  # needs a model that inserts few labels
    faint: bool = False  # says too little in a batch of a few short lines
    least: int = 1  # utterances that it takes, where it is about many

    @property
    def name(self) -> str:
        """What the mistake is called."""
        return self.inject.__name__.replace("_", " ")


def _change(batch, **arrays):
    return {**batch, **arrays}


def _rows(batch, share, rng):
    """Pick a share of the utterances, two at least."""
    count = len(batch["labels"])
    return rng.permutation(count)[: max(2, round(share * count))]


def too_few_frames(batch, which, rng):
    """Subsampled until there are fewer frames than labels, in one utterance or all."""
    logits, lengths = batch["logits"].copy(), batch["logit_lengths"].copy()
    rows = range(len(lengths)) if which == "all" else [rng.integers(len(lengths))]
    for row in rows:
        fewer = max(1, batch["label_lengths"][row] - 1)
        places = np.linspace(0, lengths[row] - 1, fewer).astype(int)
        logits[row] = 0
        logits[row, :fewer] = batch["logits"][row, places]
        lengths[row] = fewer
    return _change(batch, logits=logits, logit_lengths=lengths)


def id_beyond(batch, distance, rng):
    """An unknown character in the middle of a few transcripts."""
    labels = batch["labels"].copy()
    for row in _rows(batch, 0.2, rng):
        labels[row, 0] = batch["logits"].shape[2] + distance
    return _change(batch, labels=labels)


def blank_inside(batch, where, rng):
    """A blank put between labels, in a few transcripts."""
    labels = batch["labels"].copy()
    for row in _rows(batch, 0.2, rng):
        labels[row, where] = batch.get("blank_id", 0)
    return _change(batch, labels=labels)


def bad_length(batch, excess, rng):
    """A length beyond the array, in one utterance."""
    lengths = batch["logit_lengths"].copy()
    lengths[rng.integers(len(lengths))] = batch["logits"].shape[1] + excess
    return _change(batch, logit_lengths=lengths)


def nonfinite(batch, value, rng):
    """One bad number."""
    logits = batch["logits"].copy()
    logits[rng.integers(len(logits)), 3, 1] = value
    return _change(batch, logits=logits)


def masked(batch, share, rng):
    """A class that transcripts need is masked out."""
    logits = batch["logits"].copy()
    for row in _rows(batch, share, rng):
        logits[row, :, batch["labels"][row, 0]] = -np.inf
    return _change(batch, logits=logits)


def probabilities(batch, temperature, rng):
    """A model that ends in a softmax."""
    return _change(batch, logits=softmax(batch["logits"] / temperature, axis=2))


def unnormalised(batch, offset, rng):
    """Logits, or log-probabilities with something added, passed as log_probs."""
    logits = batch["logits"]
    if offset:
        logits = log_softmax(logits, axis=2) + np.float32(offset)
    return _change(batch, logits=logits, inputs="log_probs")


def wrong_blank(batch, kind, rng):
    """First for last: labels number around it, or do not, or it is the call's fault."""
    if kind == "first":  # the last class is used by nobody
        return _change(batch, blank_id=batch["logits"].shape[2] - 1)
    logits, labels = batch["logits"], batch["labels"]
    if kind == "last, labels from 1":
        return _change(batch, logits=np.roll(logits, -1, axis=2))
    return _change(
        batch,
        logits=np.roll(logits, -1, axis=2),
        labels=np.where(labels > 0, labels - 1, labels),
    )


def shifted(batch, shift, rng):
    """Ids of one vocabulary, scores of another."""
    labels = batch["labels"]
    return _change(batch, labels=np.where(labels > 0, labels + shift, labels))


def time_major(batch, kind, rng):
    """[T, B, V] where T = B, or [B, V, T] where T = V, of some utterances or of all."""
    logits = batch["logits"]
    if kind == "T = B":
        return _change(batch, logits=np.swapaxes(logits, 0, 1))
    # As many classes as frames: the last one is used by nobody, and neither are these.
    _, frames, classes = logits.shape
    more = np.repeat(logits[:, :, -1:], frames - classes, axis=2)
    logits = np.swapaxes(np.concatenate([logits, more], axis=2), 1, 2)
    if kind == "T = V, not B":
        logits = logits[: frames // 4]
    arrays = {name: array[: len(logits)] for name, array in batch.items()}
    return _change(arrays, logits=logits)


def lengths_swapped(batch, share, rng):
    """Third and fourth argument exchanged, or two columns in some of the rows."""
    count = len(batch["labels"])
    swapped = np.isin(np.arange(count), rng.permutation(count)[: round(share * count)])
    frames, labels = batch["logit_lengths"], batch["label_lengths"]
    return _change(
        batch,
        logit_lengths=np.where(swapped, labels, frames),
        label_lengths=np.where(swapped, frames, labels),
    )


def length_units(batch, factor, rng):
    """Samples, frames before subsampling, or fractions."""
    lengths = batch["logit_lengths"]
    if factor == "fraction":
        full = batch["logits"].shape[1]
        return _change(batch, logit_lengths=(lengths / full).astype(np.float32))
    if factor == "cast":  # no utterance is as long as T, so all become 0
        full = max(batch["logits"].shape[1], lengths.max() + 1)
        return _change(batch, logit_lengths=lengths // full)
    if factor == "cast, one full":
        return _change(batch, logit_lengths=lengths // lengths.max())
    return _change(batch, logit_lengths=lengths * factor)


def padding_counted(batch, pad, rng):
    """Every label row counted to its full width."""
    labels, lengths = batch["labels"].copy(), batch["label_lengths"]
    pads = {
        "-1": -1,
        "blank": 0,
        "last class": batch["logits"].shape[2] - 1,
        "a label": 4,
    }
    labels[np.arange(labels.shape[1])[None] >= lengths[:, None]] = pads[pad]
    return _change(
        batch, labels=labels, label_lengths=np.full_like(lengths, labels.shape[1])
    )


def frames_cut(batch, keep, rng):
    """Lengths that end before the speech does, in all utterances or in some."""
    lengths = batch["logit_lengths"].copy()
    rows = slice(None) if keep != "some" else _rows(batch, 0.4, rng)
    share = keep if keep != "some" else 0.5
    lengths[rows] = np.maximum(1, lengths[rows] * share).astype(np.int32)
    return _change(batch, logit_lengths=lengths)


def pairs_shuffled(batch, share, rng):
    """Transcripts change places: all rotate by one, or some among themselves."""
    count = len(batch["labels"])
    order = np.arange(count)
    rows = np.arange(count) if share == 1.0 else _rows(batch, share, rng)
    order[rows] = np.roll(rows, 1)
    return _change(
        batch,
        labels=batch["labels"][order],
        label_lengths=batch["label_lengths"][order],
    )


def reversed_order(batch, what, rng):
    """Labels, or frames, back to front inside their lengths."""
    name, size = ("labels", "label_lengths")
    if what == "time":
        name, size = ("logits", "logit_lengths")
    array = batch[name].copy()
    for row, length in zip(array, batch[size], strict=True):
        row[:length] = row[:length][::-1].copy()
    return _change(batch, **{name: array})


def tight(batch, spare, rng):
    """Subsampled to a frame or two more than the labels need."""
    labels, counts = batch["labels"], batch["label_lengths"]
    repeats = (labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] > 0)
    need = counts + repeats.sum(1)
    logits = np.zeros_like(batch["logits"])
    lengths = (need + spare).astype(np.int32)
    for row, length in enumerate(lengths):
        places = np.linspace(0, batch["logit_lengths"][row] - 1, length).astype(int)
        logits[row, :length] = batch["logits"][row, places]
    return _change(batch, logits=logits, logit_lengths=lengths)


def softmax_axis(batch, kind, rng):
    """A softmax over time or over the batch, or its logarithm."""
    function = log_softmax if "log" in kind else softmax
    axis = 1 if "time" in kind else 0
    return _change(batch, logits=function(batch["logits"], axis=axis))


def squashed(batch, by, rng):
    """A sigmoid or a ReLU on top of the last layer."""
    logits = batch["logits"]
    if by == "relu":
        return _change(batch, logits=np.maximum(logits, 0))
    return _change(batch, logits=(1 / (1 + np.exp(-logits))).astype(np.float32))


def negated(batch, factor, rng):
    """Distances, energies or negative log-probabilities."""
    return _change(batch, logits=-factor * batch["logits"])


def padded_left(batch, padding, rng):
    """Every utterance at the end of its row, behind zeros or what came there."""
    logits = batch["logits"].copy()
    for row, length in enumerate(batch["logit_lengths"]):
        rest = logits.shape[1] - length
        logits[row] = np.roll(logits[row], rest, axis=0)
        if padding == "zeros":
            logits[row, :rest] = 0
    return _change(batch, logits=logits)


def lengths_left_out(batch, how, rng):
    """Padded with zeros, or with noise that says nothing, and no lengths passed."""
    logits = batch["logits"].copy()
    for row, length in enumerate(batch["logit_lengths"]):
        logits[row, length:] = 0 if how == "zeros" else logits[row, -1] * 0.2 + 1
    return _change(batch, logits=logits, logit_lengths=None)


def lengths_in_a_bucket(batch, factor, rng):
    """Lengths from before subsampling, most of which fit into the padding."""
    logits, lengths = batch["logits"], batch["logit_lengths"]
    room = int(1.8 * lengths.max()) if factor == 2 else int(2.2 * lengths.max())
    padding = np.zeros((len(lengths), room, logits.shape[2]), np.float32)
    for row, length in enumerate(lengths):
        padding[row, :length] = logits[row, :length]
    return _change(batch, logits=padding, logit_lengths=lengths * int(factor))


def _relabelled(batch, labels_of):
    """Return the batch with other transcripts, padded alike."""
    labels, lengths = batch["labels"], batch["label_lengths"]
    new = np.full_like(labels, -1)
    sizes = np.zeros_like(lengths)
    for row, length in enumerate(lengths):
        text = labels_of(labels[row, :length])
        sizes[row] = len(text)
        new[row, : len(text)] = text
    return _change(batch, labels=new, label_lengths=sizes)


def labels_missing(batch, what, rng):
    """The first half of each transcript, or the first third."""
    part = {"first half": 2, "first third": 3}[what]
    return _relabelled(batch, lambda text: text[: max(1, len(text) // part)])


def middle_kept(batch, part, rng):
    """The second of three thirds, or of the quarters the two in the middle."""

    def shorten(text):
        start = len(text) // part
        return text[start : max(start + 1, len(text) - start)]

    return _relabelled(batch, shorten)


def labels_renamed(batch, what, rng):
    """A permutation of the ids, all of them or a third."""
    classes = np.arange(1, batch["logits"].shape[2])
    table = np.arange(batch["logits"].shape[2])
    some = rng.permutation(classes)
    if what == "a third":
        some = some[: max(3, len(some) // 3)]
    table[some] = np.roll(some, 1)
    return _relabelled(batch, lambda text: table[text])


def other_case(batch, which, rng):
    """Capitals in transcripts, which are classes that the model never writes."""
    logits, labels = batch["logits"], batch["labels"]
    letters = np.arange(1, logits.shape[2])
    unused = logits.min(2, keepdims=True) + np.zeros(len(letters), np.float32)
    # Behind the small ones, and in their order or in that of how frequent they are.
    capital = len(letters) + (
        letters if which == "alphabet" else rng.permutation(letters)
    )
    names = ["-", *(f"x{letter}" for letter in letters)] + [""] * len(letters)
    for small, place in zip(letters, capital, strict=True):
        names[place] = names[small].upper()
    is_changed = np.isin(labels, letters)
    if which == "first letters":
        is_changed &= np.arange(labels.shape[1]) == 0
    table = np.concatenate([[0], capital])
    return _change(
        batch,
        logits=np.concatenate([logits, unused], axis=2),
        labels=np.where(is_changed, table[np.where(is_changed, labels, 0)], labels),
        **({} if which == "no names" else {"vocabulary": names}),
    )


def labels_constant(batch, label, rng):
    """Every label an unknown token."""
    return _relabelled(batch, lambda text: np.full_like(text, label))


def start_symbol(batch, kind, rng):
    """An id that nobody uses in front of every transcript, or at both ends."""
    ends, symbol = {"<s>": 1, "both ends": 2}[kind], batch["logits"].shape[2] - 1
    labels = np.pad(batch["labels"], ((0, 0), (1, ends - 1)), constant_values=-1)
    lengths = batch["label_lengths"] + ends
    labels[:, 0] = symbol
    if ends == 2:
        labels[np.arange(len(labels)), lengths - 1] = symbol
    return _change(batch, labels=labels, label_lengths=lengths)


def scores_one_off(batch, shift, rng):
    """Scores of one batch element against labels and lengths of the next."""
    return _change(batch, logits=np.roll(batch["logits"], shift, axis=0))


def wrapped(batch, shift, rng):
    """Ids moved by one that come in again at the other end, or one that does not."""
    classes, labels = batch["logits"].shape[2], batch["labels"].copy()
    used = labels > 0
    if shift == "stray":
        labels[used] += 1
        rows = np.flatnonzero(batch["label_lengths"] > 1)
        labels[rows[0], 1] = 1  # nothing is shifted to this
        return _change(batch, labels=labels)
    moved = (labels - 1 + shift) % (classes - 1) + 1
    return _change(batch, labels=np.where(used, moved, labels))


def repeats_collapsed(batch, how, rng):
    """The text without its repeats, "aa" written as "a"; one in ten may keep them."""

    def merge(text):
        return text[np.r_[True, text[1:] != text[:-1]]]

    merged = _relabelled(batch, merge)
    have = np.flatnonzero(merged["label_lengths"] < batch["label_lengths"])
    if how == "one in ten kept" and len(have) > 1:
        kept = rng.permutation(have)[: max(1, len(have) // 10)]
        for name in ("labels", "label_lengths"):
            merged[name][kept] = batch[name][kept]
    return merged


def two_exchanged(batch, which, rng):
    """Two utterances with each other's transcripts."""
    order = np.arange(len(batch["labels"]))
    by_length = np.argsort(batch["label_lengths"], kind="stable")
    first, second = by_length[-2:] if which == "long" else rng.permutation(order)[:2]
    order[[first, second]] = second, first
    return _change(
        batch,
        labels=batch["labels"][order],
        label_lengths=batch["label_lengths"][order],
    )


FAULTS = (
    Fault("INFEASIBLE", ("one", "all"), too_few_frames, untrained=True),
    Fault("LABEL_OUT_OF_RANGE", (0, 7), id_beyond, untrained=True),
    Fault("BLANK_IN_LABELS", (0, 1), blank_inside, untrained=True),
    Fault("BAD_LENGTH", (1, -1000), bad_length, untrained=True),
    Fault("NONFINITE_LOGITS", (np.nan, np.inf), nonfinite, untrained=True),
    Fault("ZERO_PROBABILITY", (0.1, 0.5), masked, untrained=True),
    Fault("PROBABILITIES_AS_LOGITS", (1.0, 3.0), probabilities, untrained=True),
    Fault("NOT_NORMALISED", (0.0, 0.5), unnormalised, untrained=True),
    Fault("WRONG_BLANK", ("last", "first", "last, labels from 1"), wrong_blank),
    Fault("LABELS_SHIFTED", (-1, 1), shifted),
    Fault(
        "TIME_MAJOR", ("T = B", "T = B = V", "T = V, not B"), time_major, square=True
    ),
    Fault("LENGTHS_SWAPPED", (1.0, 0.5, 0.25), lengths_swapped, untrained=True),
    Fault(
        "LENGTH_UNITS",
        (2, 4, 320, "fraction", "cast", "cast, one full"),
        length_units,
        untrained=True,
    ),
    Fault("PADDING_COUNTED", ("-1", "blank", "last class", "a label"), padding_counted),
    Fault("FRAMES_CUT", (0.5, 0.75, "some"), frames_cut),
    Fault("PAIRS_SHUFFLED", (0.3, 1.0), pairs_shuffled),
    Fault("REVERSED", ("labels", "time"), reversed_order),
    Fault("TIGHT", (0, 2), tight, least=7),
    Fault(
        "SOFTMAX_AXIS",
        ("time", "batch", "log time", "log batch"),
        softmax_axis,
        untrained=True,
    ),
    Fault("LOGITS_SQUASHED", ("sigmoid", "relu"), squashed),
    Fault("LOGITS_NEGATED", (1.0, 3.0), negated),
    Fault("PADDED_LEFT", ("zeros", "what came there"), padded_left),
    Fault("LENGTHS_LEFT_OUT", ("zeros", "constant"), lengths_left_out),
    Fault("LENGTH_UNITS", (2, 2.0), lengths_in_a_bucket),
    Fault("LABELS_MISSING", ("first half", "first third"), labels_missing, reader=True),
    Fault("LABELS_MISSING", (3, 4), middle_kept, faint=True),
    Fault("LABELS_RENAMED", ("all", "a third"), labels_renamed, reader=True),
    Fault(
        "LABELS_RENAMED", ("alphabet", "frequency", "no names"), other_case, reader=True
    ),
    Fault("LABELS_CONSTANT", (1, 3), labels_constant),
    Fault("START_SYMBOL", ("<s>", "both ends"), start_symbol),
    Fault("PAIRS_SHUFFLED", (1, -1), scores_one_off),
    Fault("LABELS_SHIFTED", (1, -1, "stray"), wrapped),
    Fault(
        "REPEATS_COLLAPSED", ("all", "one in ten kept"), repeats_collapsed, faint=True
    ),
    Fault("PAIRS_SHUFFLED", ("long", "any"), two_exchanged, faint=True),
)
