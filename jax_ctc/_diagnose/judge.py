r"""How much better an alternative reading explains the batch, in nats.

For each utterance, with `knows` = log p(labels) - log guess (see `guess.py`):

    gain = min(log p' - log p, knows')

The first term alone would be fooled by anything that makes all transcripts cheaper, as
a blank that wins more often. The second alone would be fooled by a reading that makes
everything improbable, and the transcript a little less so. An alternative has to be
better than the batch as passed *and* better than guesswork, so whatever an untrained
model happens to prefer says nothing. An utterance whose labels cannot be labels is
compared with what is left of it without those ids; one that cannot be scored for
another reason has no p to beat.

With more frames or fewer labels every transcript changes its price, and p' and p no
longer compare; the guess has the same frames and labels, so

    gain = knows' - floor

does, where `floor` is what was known already, and not below 0.

Utterances are then added up, each allowed to be wrong:

    evidence = sum_b log((1 - w) exp(gain_b) + w)

Occurrences of one class are not independent. An untrained network knows no names: it
responds to a sound or a stroke in some way or other, all occurrences of the class
alike, and which class that favours is drawn by lot. So a batch of N labels with K
distinct ones holds K draws, not N, and the odds are held against evidence * K / N.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jax_ctc._diagnose.odds import WRONG_TRANSCRIPTS
from jax_ctc._diagnose.reading import Reading


class Alternative(NamedTuple):
    """A reading, and what to say if it is the right one."""

    code: str
    reading: Reading
    evidence: dict[str, Any]
    message: str
    tries: int  # how many of its kind were tried
    is_shorter: bool = False  # has fewer labels
    pattern: float = 0.0  # nats that the labels alone speak for it
    rival: Reading | None = None  # what it has to beat; None: the batch as passed


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """What speaks for an alternative."""

    gain: np.ndarray  # [B] nats
    nats: float  # evidence of the whole batch
    per_class: float  # the same, each class counted once
    cleared: int  # utterances that can be scored only in the alternative


def compare(base: Reading, other: Reading, *, is_shorter: bool = False) -> Verdict:
    """Weigh an alternative that concerns the batch as a whole.

    is_shorter: whether it has fewer labels.
    """
    if is_shorter:
        gain = other.knows - np.maximum(base.knows, 0)
    else:
        gain = gain_of(base.rival_log_p, other.log_p, other.knows)
    # Where both readings agree, or neither can be scored, nothing is said.
    considered = base.log_p != other.log_p
    nats = float(mixed(gain[considered], WRONG_TRANSCRIPTS).sum())
    total = int((other.inside & considered[:, None]).sum())
    distinct = int((other.share > 0).sum())
    return Verdict(
        gain,
        nats,
        nats * min(1.0, distinct / max(1, total)),
        int(((base.log_p == -np.inf) & (gain > 0)).sum()),
    )


def gain_of(
    log_p: np.ndarray, other_p: np.ndarray, other_knows: np.ndarray
) -> np.ndarray:
    """Return min(log p' - log p, knows'), elementwise."""
    with np.errstate(invalid="ignore"):
        likelier = np.where(log_p == -np.inf, np.inf, other_p - log_p)
    return np.where(other_p == -np.inf, -np.inf, np.minimum(likelier, other_knows))


def cheaper(base: Reading, other: Reading) -> bool:
    """Tell from the losses alone whether an alternative is worth a guess."""
    both = (base.log_p > -np.inf) & (other.log_p > -np.inf)
    cleared = (base.log_p == -np.inf) & (other.log_p > -np.inf)
    change = np.where(both, other.log_p - np.where(both, base.log_p, 0), 0)
    return bool(cleared.any() or mixed(change[both], WRONG_TRANSCRIPTS).sum() > 0)


def mixed(gain: np.ndarray, wrong: float) -> np.ndarray:
    """Return log((1 - wrong) exp(gain) + wrong), never below log(wrong)."""
    return np.logaddexp(gain + np.log1p(-wrong), np.log(wrong))
