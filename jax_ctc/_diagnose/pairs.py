r"""Transcripts of other utterances: the batch's own, matched anew.

Every utterance is scored against every transcript, and the best one-to-one matching is
taken. An utterance with a wrong transcript may find a better one by accident, above
all where transcripts are short or alike. A shuffle leaves more behind: the transcripts
have changed places, so following "whose transcript fits mine?" leads back to the start,
or most of the batch has moved.

A model that mishears does the same to transcripts that are alike: "nine" for "five",
and "five" for "nine". It errs label by label, with a probability e each, so it turns
one transcript into another at edit distance d with a probability of about e^d, however
sure it is of what it heard. Against that rival a row cannot say more than

    gain <= d log(1 / e)

Words that sound alike to it are taken for each other as a whole, this way and that. So
where two utterances have just exchanged their transcripts, what counts is words, not
labels: d / WORD, rounded up. Longer cycles are no such misunderstanding. How rare
errors are, the utterances that kept their transcripts show; e is 0.1 where they say
little. An exchange is one event: it pays for the pair that it is, of N (N - 1) / 2.

And a model that mishears does so every time: an exchange of two texts is one
observation, however many utterances show it. A batch of N utterances with K distinct
transcripts holds K draws, as in `judge.py`, and

    evidence = K / N * sum over distinct (own text, other text) of mean_b evidence_b

Which transcripts are whose is not known beforehand. A few utterances that changed
places are STRUCK one by one, and each could have got any of N transcripts: log N nats
to pay for each. If all of the batch was shuffled, the transcripts lie in one of

    N! / prod_k (number of utterances with text k)!

orders, and those who moved share its logarithm: a nat or more less for each, which is
what decides where transcripts are short.
"""

import dataclasses
import math

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln

from jax_ctc._checks.status import Status
from jax_ctc._diagnose.heard import hear, transcripts
from jax_ctc._diagnose.judge import gain_of, mixed
from jax_ctc._diagnose.odds import (
    LOG_ODDS,
    STRUCK,
    WORD,
    WRONG_TRANSCRIPTS,
    error_rate,
)
from jax_ctc._diagnose.reading import Reading, known
from jax_ctc._diagnose.report import ERROR, Finding

# Every pair is a lattice. Larger batches are tested on their first utterances.
MOST = 64


def shuffled(base: Reading) -> tuple[Finding, Reading] | None:
    """Find transcripts that belong to other utterances of the batch."""
    part = _first(base, MOST)
    # A transcript that is too long for the frames may be that of longer ones.
    alone = np.flatnonzero((part.status & ~int(Status.INFEASIBLE)) == 0)
    if len(alone) < 2:
        return None
    gain = _gain_matrix(part, alone)  # [N, N]: utterance, transcript
    same = _same_transcript(part, alone)
    gain = np.where(same, 0.0, gain)
    value = np.maximum(gain, -1e6)  # forbidden is expensive, not infinite
    _, match = linear_sum_assignment(value, maximize=True)
    place = np.arange(len(alone))
    moved = ~same[place, match] & (gain[place, match] > 0)
    moved = _in_cycles(match, moved) | (moved & (moved.sum() * 2 > len(alone)))
    nats = _evidence(part, alone, match, gain[place, match], moved)
    if nats <= LOG_ODDS:
        return None
    who = alone[moved]
    of = {int(b): int(j) for b, j in zip(who, alone[match[moved]], strict=True)}
    finding = Finding(
        "PAIRS_SHUFFLED",
        ERROR,
        tuple(sorted(of)),
        {"nats": round(nats, 1), "transcript_that_fits": of},
        f"{len(of)} utterances fit the transcripts of others in the batch better than"
        " their own: scores and labels were shuffled, sorted or filtered apart; keep"
        " them together from the data set to the loss",
    )
    source = np.arange(len(base.labels))
    source[who] = alone[match[moved]]
    return finding, dataclasses.replace(
        base, labels=base.labels[source], label_lengths=base.label_lengths[source]
    )


def _evidence(
    base: Reading,
    rows: np.ndarray,
    match: np.ndarray,
    gain: np.ndarray,
    moved: np.ndarray,
) -> float:
    """Return the nats that the moved rows say together, see above."""
    count = len(rows)
    names, of_name = _names(base, rows)
    gain, weight, is_exchange = _draws(base, rows, match, gain, moved)
    both = gain + np.where(moved[match], gain[match], gain)
    some = np.where(
        is_exchange,
        mixed(both - math.log(count * (count - 1) / 2), 1 - STRUCK) / 2,
        mixed(gain - math.log(count), 1 - STRUCK),
    )
    orders = gammaln(count + 1.0) - gammaln(of_name + 1.0).sum()
    whole = mixed(gain, WRONG_TRANSCRIPTS) - orders / max(1, moved.sum())
    each = (float((e * weight)[moved].sum()) for e in (some, whole))
    return max(each) - math.log(2)


def _draws(
    base: Reading,
    rows: np.ndarray,
    match: np.ndarray,
    gain: np.ndarray,
    moved: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return [N] what rows gain at most, how much each counts, and who exchanged."""
    count = len(rows)
    text = np.where(base.inside, base.labels, -1)[rows]
    names, of_name = _names(base, rows)
    swap, back = names * count + names[match], names[match] * count + names
    is_exchange = np.isin(back, swap[moved])  # of texts, whoever has them
    errors = edit_distance(text, text[match])
    errors = np.where(is_exchange, -(-errors // WORD), errors)
    wrong, labels = _misheard(base, rows[~moved])
    of_label = error_rate(wrong, labels)
    of_word = error_rate(wrong / WORD, labels / WORD)
    rate = np.where(is_exchange, of_word, of_label)
    _, which, times = np.unique(swap[moved], return_inverse=True, return_counts=True)
    weight = np.zeros(count)
    weight[moved] = len(of_name) / count / times[which.reshape(-1)]
    return np.minimum(gain, -np.log(rate) * errors), weight, is_exchange


def _names(base: Reading, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return [N] which text each row has, and how many rows have each text."""
    text = np.where(base.inside, base.labels, -1)[rows]
    _, names, of_name = np.unique(text, axis=0, return_inverse=True, return_counts=True)
    return names.reshape(-1), of_name


def one_off(base: Reading) -> tuple[Finding, Reading] | None:
    """Find scores of the neighbour, against its labels and its lengths both.

    A loop that is a step ahead spares nobody, so nearly all must fit: a neighbour that
    reads alike, or that another is taken for, is none. Of two it is an exchange.
    """
    part = _first(base, MOST)
    rows = np.arange(len(part.labels))
    if len(rows) < 3:
        return None
    best: tuple[float, int] = (-np.inf, 0)
    for shift in (1, -1):
        other = dataclasses.replace(
            part, log_probs=np.roll(part.log_probs, shift, axis=0)
        )
        gain = gain_of(part.rival_log_p, other.log_p, other.knows)
        match = np.roll(rows, -shift)  # whose transcript these scores should have
        moved = ~_same_transcript(part, rows)[rows, match]
        fits = moved & (gain[match] > 0)
        if fits.sum() < (1 - 2 * WRONG_TRANSCRIPTS) * len(rows):
            continue
        gain, weight, _ = _draws(part, rows, match, gain[match], moved)
        each = mixed(gain, WRONG_TRANSCRIPTS) * weight
        best = max(best, (float(each[moved].sum()) - math.log(2), shift))
    nats, shift = best
    if nats <= LOG_ODDS:
        return None
    finding = Finding(
        "PAIRS_SHUFFLED",
        ERROR,
        tuple(range(len(base.labels))),
        {"nats": round(nats, 1), "scores_moved_by": shift},
        "scores are one utterance off against labels and lengths: they fit as"
        f" jnp.roll(logits, {shift}, axis=0); find the loop, or the cache, that is a"
        " step ahead",
    )
    return finding, dataclasses.replace(
        base, log_probs=np.roll(base.log_probs, shift, axis=0)
    )


def _misheard(base: Reading, rows: np.ndarray) -> tuple[float, float]:
    """Return how many labels of some utterances are misheard, and of how many."""
    some = rows.tolist()
    said, heard = transcripts(base, some), [h.labels for h in hear(base, some)]
    if not said:
        return 0.0, 0.0
    width = max(map(len, [*said, *heard]))
    text = np.full((2, len(said), max(1, width)), -1)
    for side, lists in enumerate((said, heard)):
        for row, labels in enumerate(lists):
            text[side, row, : len(labels)] = labels
    return float(edit_distance(*text).sum()), float(sum(map(len, said)))


def edit_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return [N] the fewest insertions, deletions and substitutions from a to b.

    a, b: [N, U], padded on the right with -1. With D[i, j] between a[:i] and b[:j],

        D[i, j] = min(D[i-1, j] + 1, D[i-1, j-1] + [a_i != b_j], D[i, j-1] + 1)

    and the last term, which runs along j, is a running minimum of D[i, j] - j.
    """
    size_a, size_b = (a >= 0).sum(1), (b >= 0).sum(1)
    place = np.arange(b.shape[1] + 1)
    row = np.broadcast_to(place, (len(b), len(place)))
    distance = np.where(size_a == 0, size_b, 0)
    for i in range(a.shape[1]):
        other = np.pad(row[:, :-1] + (b != a[:, i, None]), ((0, 0), (1, 0)))
        other[:, 0] = i + 1
        row = np.minimum(row + 1, other) - place
        row = np.minimum.accumulate(row, axis=1) + place
        last = np.take_along_axis(row, size_b[:, None], axis=1)[:, 0]
        distance = np.where(size_a == i + 1, last, distance)
    return distance


def _first(base: Reading, count: int) -> Reading:
    """Return the first utterances of a batch."""
    if len(base.labels) <= count:
        return base
    return Reading(
        base.log_probs[:count],
        base.labels[:count],
        base.logit_lengths[:count],
        base.label_lengths[:count],
        base.blank_id,
    )


def _gain_matrix(base: Reading, rows: np.ndarray) -> np.ndarray:
    """Return [N, N] nats, what utterance i gains by transcript j over its own."""
    gain = np.zeros((len(rows), len(rows)))
    source, place = np.arange(len(base.labels)), np.arange(len(rows))
    for step in range(1, len(rows)):
        source[rows] = np.roll(rows, -step)
        labels, counts = base.labels[source], base.label_lengths[source]
        other = dataclasses.replace(base, labels=labels, label_lengths=counts)
        # The guess depends on the utterance, not on the transcript: take the base's.
        knows = known(base, labels, counts, other.log_p)
        moved = gain_of(base.log_p, other.log_p, knows)[rows]
        gain[place, (place + step) % len(rows)] = moved
    return gain


def _same_transcript(base: Reading, rows: np.ndarray) -> np.ndarray:
    """Return [N, N] bool: which transcripts read the same, each with itself too."""
    text = np.where(base.inside, base.labels, -1)[rows]
    return (text[:, None, :] == text[None, :, :]).all(2)


def _in_cycles(match: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Mark the utterances on a cycle of the matching all of whose members moved."""
    keep = np.zeros_like(moved)
    for start in np.flatnonzero(moved):
        cycle, here = [int(start)], int(match[start])
        while here != start:
            cycle.append(here)
            here = int(match[here])
        keep[start] = moved[cycle].all()
    return keep
