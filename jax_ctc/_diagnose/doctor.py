"""The examination: structure first, then rival readings, then the plain facts."""

import dataclasses
import math

import numpy as np

from jax_ctc._diagnose import facts, lengths, squashed, structure, tail
from jax_ctc._diagnose.alternatives import Alternative, alternatives
from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.frames import cut
from jax_ctc._diagnose.judge import Verdict, cheaper, compare
from jax_ctc._diagnose.odds import LOG_EVEN, LOG_ODDS
from jax_ctc._diagnose.pairs import one_off, shuffled
from jax_ctc._diagnose.reading import Reading
from jax_ctc._diagnose.renamed import constant, renamed
from jax_ctc._diagnose.report import ERROR, Finding
from jax_ctc._diagnose.unsaid import unsaid

# Mistakes come in pairs now and then; each is looked for on top of the ones found.
_ROUNDS = 3

_IMPOSSIBLE = 1e6  # nats, where a sum has to stay a number


def examine(given: Given, status: np.ndarray) -> tuple[Finding, ...]:
    """Return everything found, causes before symptoms; `status` [B] as passed.

    What a transcript with holes leaves out would be held against every reading of it:
    of those only the status is told, and causes are looked for in the others.
    """
    if given.holes is None:
        return _examine(given, status)
    has_some = given.holes.has_some
    whole = np.flatnonzero(~has_some)
    found = [_renumbered(x, whole) for x in _examine(given.only(whole), status[whole])]
    return *found, *facts.status_bits(given, np.where(has_some, status, 0), [])


def _renumbered(finding: Finding, who: np.ndarray) -> Finding:
    """Return a finding of some utterances by their numbers in the batch."""
    evidence = dict(finding.evidence)
    if "in_utterance" in evidence:
        evidence["in_utterance"] = int(who[evidence["in_utterance"]])
    utterances = tuple(int(who[number]) for number in finding.utterances)
    return dataclasses.replace(finding, utterances=utterances, evidence=evidence)


def _examine(given: Given, status: np.ndarray) -> tuple[Finding, ...]:
    if given.scores.size == 0 or given.labels.size == 0:
        return tuple(facts.status_bits(given, status, []))
    is_usable = structure.usable(given)
    reading = structure.first_reading(given, is_usable)
    mended = _structure(given, reading, is_usable)
    steps = [(None, reading.status), *((m.finding, m.reading.status) for m in mended)]
    reading = structure.tempered(mended[-1].reading if mended else reading)
    causes = [m.finding for m in mended]
    is_lost = bool(mended) and mended[-1].is_lost
    for _ in range(0 if is_lost else _ROUNDS):
        best = _best(given, reading, is_usable)
        if best is None or best[0].code in {finding.code for finding in causes}:
            break
        causes.append(best[0])
        reading = best[1]
        steps.append((best[0], reading.status))
    return (
        *_in_order(causes, len(mended)),
        *facts.status_bits(given, status, steps),
        *facts.tight(reading),
        *facts.all_blank(reading),
    )


def _in_order(causes: list[Finding], proven: int) -> list[Finding]:
    """Put errors first; the first `proven`, which the arrays prove, as they were found.

    They are what the others were found on top of. Those follow by what they explain.
    """

    def rank(place: int) -> tuple[bool, int, float]:
        nats = causes[place].evidence.get("nats", math.inf)
        return causes[place].severity != ERROR, min(place, proven), -nats

    return [causes[place] for place in sorted(range(len(causes)), key=rank)]


def _structure(
    given: Given, reading: Reading, is_usable: np.ndarray
) -> list[structure.Mended]:
    """Mend what the arrays give away, one mistake on top of another."""
    found = []
    for test in (
        lambda r: squashed.softmax_axis(given, r, is_usable),
        lambda r: squashed.relu(given, r, is_usable),
        lambda r: structure.scale(given, r, is_usable),
        lengths.labels_third,
        lengths.swapped_lengths,
        lambda r: lengths.length_units(given, r),
        lambda r: structure.counted_padding(given, r),
        lambda r: tail.left_out(given, r),
        constant,
    ):
        mended = test(reading)
        if mended is not None:
            found.append(mended)
            reading = mended.reading
            if mended.is_lost:
                break
    return found


def _best(
    given: Given, base: Reading, is_usable: np.ndarray
) -> tuple[Finding, Reading] | None:
    """Return the alternative with the most evidence, if the odds are met."""
    found = []
    for alternative in alternatives(given, base):
        rival, reading = alternative.rival or base, alternative.reading
        if not cheaper(rival, reading):
            continue
        verdict = compare(rival, reading, is_shorter=alternative.is_shorter)
        if _is_believed(rival, alternative, verdict):
            found.append((_finding(alternative, verdict), alternative.reading))
    others = (
        *(shuffled(base), one_off(base), cut(base, is_usable)),
        *(unsaid(base), renamed(base)),
    )
    found += [x for x in others if x is not None]
    most = max((finding.evidence["nats"] for finding, _ in found), default=0.0)
    # Of those that nothing tells apart, the one that explains the batch.
    close = [x for x in found if x[0].evidence["nats"] >= most - LOG_EVEN]
    if len(close) < 2:
        return close[0] if close else None
    return max(close, key=lambda x: np.maximum(x[1].log_p, -_IMPOSSIBLE).sum())


def _is_believed(base: Reading, alternative: Alternative, verdict: Verdict) -> bool:
    """Hold the evidence against the prior odds, paid once per alternative tried.

    Where it makes more than half of the unscorable utterances scorable, and leaves none
    unscorable that was not, something is known to be wrong already.
    """
    unscorable = base.log_p == -np.inf
    broken = (alternative.reading.log_p == -np.inf) & ~unscorable
    explains = unscorable.any() and verdict.cleared * 2 > unscorable.sum()
    odds = LOG_EVEN if explains and not broken.any() else LOG_ODDS
    odds += math.log(alternative.tries)
    return verdict.per_class + alternative.pattern > odds and verdict.nats > odds


def _finding(alternative: Alternative, verdict: Verdict) -> Finding:
    return Finding(
        alternative.code,
        ERROR,
        tuple(np.flatnonzero(verdict.gain > 0).tolist()),
        {
            "nats": round(verdict.nats, 1),
            "nats_each_class_once": round(verdict.per_class, 1),
            **alternative.evidence,
        },
        alternative.message,
    )
