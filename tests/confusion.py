"""The doctor's confusion matrix: which code comes first when a fault is injected.

    python -m tests.confusion

trains the demo's line reader for a few seconds, keeps one that is not trained, and
injects every fault of `tests/faults.py` at every strength into batches of held-out
lines; then the same for the made-up models of `tests/emissions.py`, which have other
habits than a reader of handwriting. `tests/diagnose/test_faults.py` runs a part of it.
"""

import collections
import functools
import sys

import numpy as np
from flax import nnx

from examples.handwriting.lines import compose_lines, load_split
from examples.handwriting.model import LineReader
from examples.handwriting.train import make_optimizer, read_lines, train_step
from jax_ctc._checks.status import Status
from jax_ctc._diagnose.batch import read_batch
from jax_ctc._diagnose.doctor import examine
from jax_ctc._loss.losses import ctc_loss_with_status
from tests import emissions
from tests.faults import FAULTS, pairs_shuffled

STEPS = 150  # enough to read nineteen digits of twenty; a few seconds
STAGES = (0, 5, 20, 40, 80, STEPS)
NUM_LINES, BATCH, SQUARE = 384, 16, 56
NOTHING = "-"


def findings(batch):
    """Return the findings without the report around them: nothing else is compiled."""
    options = {"blank_id": 0, "inputs": "logits", **batch}
    arrays = [
        options.pop(name)
        for name in ("logits", "labels", "logit_lengths", "label_lengths")
    ]
    given = read_batch(tuple(arrays), vocabulary=None, **options)
    _, status = ctc_loss_with_status(
        given.scores,
        given.labels,
        given.logit_lengths,
        given.label_lengths,
        blank_id=given.blank_id,
    )
    return examine(given, np.asarray(status))


@functools.cache
def handwriting(seed=0):
    """Return {steps: [N, T, 12] logits} of a reader as it learns, and the N lines.

    The lines are held out; the last of the classes is one that nobody uses.
    """
    training, held_out = load_split()
    model = LineReader(rngs=nnx.Rngs(seed))
    optimizer = make_optimizer(model, STEPS)
    rng = np.random.default_rng(seed)
    lines = compose_lines(np.random.default_rng(1), held_out, NUM_LINES)
    logits = {}
    for step in range(STEPS + 1):
        if step in STAGES:
            read = np.asarray(read_lines(model, lines))
            unused = read.mean(2, keepdims=True) - 5
            logits[step] = np.concatenate([read, unused], axis=2)
        train_step(model, optimizer, compose_lines(rng, training, 64))
    return logits, lines


def lines_batch(steps, seed, count=BATCH, width=None):
    """Return `count` random held-out lines, cut to `width` frames that hold them."""
    stages, lines = handwriting()
    logits = stages[steps]
    fits = np.flatnonzero(lines.widths <= (width or logits.shape[1]))
    rows = np.random.default_rng(seed).permutation(fits)[:count]
    return {
        "logits": logits[rows, :width],
        "labels": lines.labels[rows],
        "logit_lengths": lines.widths[rows],
        "label_lengths": lines.lengths[rows],
    }


def first_digits(steps, seed, digits, count=BATCH):
    """Return a batch of lines that end before digit number `digits`."""
    stages, lines = handwriting()
    rows = np.random.default_rng(seed).permutation(len(lines.lengths))[:count]
    lefts = np.pad(lines.lefts, ((0, 0), (0, digits)), constant_values=-1)
    lefts = lefts[rows, digits]
    return {
        "logits": stages[steps][rows],
        "labels": lines.labels[rows],
        "logit_lengths": np.where(lefts < 0, lines.widths[rows], lefts),
        "label_lengths": np.minimum(lines.lengths[rows], digits),
    }


def made_up(kind, seed, wrong=0.0, count=8):
    """Return a batch of a made-up model."""
    return emissions.batch(kind, np.random.default_rng(seed), count, wrong=wrong)


def inject(source, seeds, *, is_trained=True, is_reader=True, squares=None):
    """Return {fault: Counter of first codes} over faults, strengths and seeds."""
    matrix = {}
    for fault in FAULTS:
        if (not is_trained and not fault.untrained) or (fault.square and not squares):
            continue
        if fault.reader and not is_reader:
            continue
        make = squares if fault.square else source
        counts = matrix[fault] = collections.Counter()
        for strength in fault.strengths:
            for seed in seeds:
                rng = np.random.default_rng(seed)
                found = findings(fault.inject(make(seed), strength, rng))
                counts[found[0].code if found else NOTHING] += 1
    return matrix


def clean(source, seeds):
    """Return a Counter of the codes above note that healthy batches got."""
    counts = collections.Counter()
    for seed in seeds:
        found = findings(source(seed))
        codes = sorted({f.code for f in found if f.severity != "note"})
        counts[" ".join(codes) or NOTHING] += 1
    return counts


def by_size(sources, seeds):
    """Return {name: (first, nothing, another code)} shares over the hypotheses.

    sources: {name: function of a seed}. Status bits need no evidence, so they are left
    out, and so are TIGHT, which takes many utterances by definition, and what is faint.
    """
    shares = {}
    for name, source in sources.items():
        matrix = {
            fault: counts
            for fault, counts in inject(source, seeds).items()
            if fault.code not in Status.__members__
            and fault.code != "TIGHT"
            and not fault.faint
        }
        runs = sum(counts.total() for counts in matrix.values())
        silent = sum(counts[NOTHING] for counts in matrix.values()) / runs
        first = rate(matrix)
        shares[name] = (first, silent, max(0.0, 1 - first - silent))
    return shares


def shuffles_found(digits, count, seeds):
    """Return how often a shuffle of a whole batch of so short lines is found."""
    [fault] = [fault for fault in FAULTS if fault.inject is pairs_shuffled]
    first = []
    for seed in seeds:
        batch = first_digits(STEPS, seed, digits, count)
        found = findings(fault.inject(batch, 1.0, np.random.default_rng(seed)))
        first.append(bool(found) and found[0].code == fault.code)
    return sum(first) / len(first)


def rate(matrix):
    """Return the share of runs whose first finding is the injected one.

    A faint mistake in which nothing is found counts for nothing.
    """
    right = sum(counts[fault.code] for fault, counts in matrix.items())
    runs = sum(
        counts.total() - (counts[NOTHING] if fault.faint else 0)
        for fault, counts in matrix.items()
    )
    return right / runs


def table(matrix):
    """Return the matrix as text: a row per mistake, and what came first in its runs."""
    lines = []
    for fault, counts in matrix.items():
        others = [
            f"{'nothing' if code == NOTHING else code} {n}"
            for code, n in counts.items()
            if code != fault.code
        ]
        others += ["(faint)"] if fault.faint else []
        found = f"{counts[fault.code]:>3} of {counts.total():>2}"
        row = f"  {fault.code:<24}{fault.name:<22}{found}  {', '.join(others)}"
        lines.append(row.rstrip())
    return "\n".join(lines)


def main():
    """Print everything; 1 if a clean batch is flagged or too few faults are found."""
    print_now = functools.partial(print, flush=True)
    seeds = range(5)
    rates = []

    def part(name, matrix):
        runs = sum(c.total() for fault, c in matrix.items() if not fault.faint)
        plain = {fault: c for fault, c in matrix.items() if not fault.faint}
        rates.append(rate(plain))
        print_now(f"\n{name}: {rates[-1]:.1%} of {runs} first\n{table(matrix)}")

    trained = functools.partial(lines_batch, STEPS)
    squares = functools.partial(lines_batch, STEPS, count=SQUARE, width=SQUARE)
    part(f"handwriting, {STEPS} steps", inject(trained, seeds, squares=squares))
    untrained = functools.partial(lines_batch, 0)
    part("handwriting, untrained", inject(untrained, seeds, is_trained=False))
    for kind in emissions.TRAINED:
        source = functools.partial(made_up, kind)
        is_reader = kind not in emissions.INSERTING
        part(f"made up, {kind}", inject(source, range(2), is_reader=is_reader))

    sources = {
        f"handwriting, {steps} steps": (functools.partial(lines_batch, steps), 40)
        for steps in STAGES
    }
    for kind in emissions.KINDS:
        for wrong in (0.0, 0.25):
            source = functools.partial(made_up, kind, wrong=wrong)
            sources[f"made up, {kind}, {wrong:.0%} wrong transcripts"] = source, 20
    print_now("\nhealthy batches, and the codes above note that they got")
    flagged = total = 0
    for name, (source, count) in sources.items():
        counts = clean(source, range(count))
        total, flagged = total + count, flagged + count - counts[NOTHING]
        print_now(f"  {name}: {dict(counts)}")
    print_now(f"{flagged} of {total} flagged")

    print_now("\nsmaller batches: the injected code first, nothing, another code")
    sizes = {
        f"handwriting, B = {n}": functools.partial(lines_batch, STEPS, count=n)
        for n in (2, 4, 8)
    } | {
        f"made up, peaky, B = {n}": functools.partial(made_up, "peaky", count=n)
        for n in (2, 4)
    }
    for name, shares in by_size(sizes, seeds).items():
        print_now(f"  {name}: {', '.join(f'{share:.0%}' for share in shares)}")
    print_now("\nlines of so many digits, shuffled as a whole: found")
    for digits in range(1, 5):
        shares = [f"{shuffles_found(digits, n, range(10)):.0%}" for n in (8, 16, 64)]
        print_now(f"  {digits}: {', '.join(shares)} of batches of 8, 16, 64")
    return 1 if flagged or min(rates) < 0.95 else 0


if __name__ == "__main__":
    sys.exit(main())
