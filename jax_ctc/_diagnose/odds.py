"""The odds that evidence has to beat, in one place, each with its reason.

A finding is a likelihood ratio times prior odds. Nothing here was fitted to a model or
a data set.
"""

import math

# Most batches are healthy, and an alarm that is wrong costs more trust than one that is
# missing costs time: a mistake is believed when the data favour it a million to one.
# Where several alternatives are tried, each pays the logarithm of their number.
LOG_ODDS = math.log(1e6)

# A status bit has already shown that something is wrong; which of two explanations it
# is, needs no more than what statisticians ask for: twenty to one.
LOG_EVEN = math.log(20)

# The transcripts of a good corpus are wrong now and then, and an overconfident model
# charges without bound for each. Mixing one in ten "this one is wrong" into every
# utterance bounds what a single one can say against, at ln 10, and keeps the ratio one.
WRONG_TRANSCRIPTS = 0.1

# The share of utterances expected to show a mistake that strikes utterances one by one.
STRUCK = 0.1

# How often a model mistakes a label for another, one that is worth training on: its
# transcripts would be useless beyond that.
LABEL_ERRORS = 0.1

# How often an utterance cannot be scored for a reason of its own, and how often a
# length is a stray number: generous, so that the evidence errs low.
CHANCE_FAULT = 0.05
STRAY = 1e-3

# How sure a model may be of a frame: ten thousand to one, in the median. Beyond that it
# is tempered, for no reader of speech or handwriting is wrong less often.
LOG_SURE = math.log(1e4)

# Labels of one word that may be taken for another as a whole: half of the words of
# running text are as short. Longer ones that are taken for each other have parts alike.
WORD = 4


def error_rate(wrong: float | int, total: float | int) -> float:
    """Return how often a model errs: LABEL_ERRORS, or less where a batch shows it.

    wrong: errors among `total` labels.
    """
    return min(LABEL_ERRORS, (wrong + 1) / (total + 1 / LABEL_ERRORS))
