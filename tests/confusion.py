"""The doctor's confusion matrix: which code comes first when a fault is injected.

    python -m tests.confusion                              # lines of digits, made up
    python -m tests.confusion --model speech print --batch 3 8 16

trains the readers of the examples, and one of printed English; keeps one of handwriting
that is not trained, and injects every fault of `tests/faults.py` at every strength into
batches of what they read and were not trained on; then the same for the made-up models
of `tests/emissions.py`, which have other habits. The readers of sentences take minutes
to train. `tests/diagnose/test_faults.py` runs a part of it.
"""

import collections
import dataclasses
import functools
import sys
import time
from typing import Literal

import numpy as np
import tyro

import jax_ctc
from jax_ctc._checks.status import Status
from jax_ctc._diagnose.batch import read_batch
from jax_ctc._diagnose.doctor import examine
from jax_ctc._loss.losses import ctc_loss_with_status
from tests import emissions
from tests.faults import FAULTS, pairs_shuffled
from tests.readers import (
    BATCH,
    NUM_SENTENCES,
    STAGES,
    STEPS,
    handwriting,
    lefts,
    printed,
    some,
    speech,
)

# Lines, and frames that hold them, where two axes have to be of one size.
SQUARE = 56
NOTHING = "-"


def findings(batch):
    """Return the findings without the report around them: nothing else is compiled."""
    options = {"blank_id": 0, "inputs": "logits", **batch}
    arrays = [
        options.pop(name)
        for name in ("logits", "labels", "logit_lengths", "label_lengths")
    ]
    given = read_batch(tuple(arrays), **{"vocabulary": None, **options})
    _, status = ctc_loss_with_status(
        given.scores,
        given.labels,
        given.logit_lengths,
        given.label_lengths,
        blank_id=given.blank_id,
    )
    return examine(given, np.asarray(status))


def lines_batch(steps, seed, count=BATCH, width=None):
    """Return `count` random held-out lines, cut to `width` frames that hold them."""
    return some(handwriting()[steps], seed, count, width)


def first_digits(steps, seed, digits, count=BATCH):
    """Return a batch of lines that end before digit number `digits`."""
    lines = handwriting()[steps]
    starts = np.pad(lefts(), ((0, 0), (0, digits)), constant_values=-1)[:, digits]
    ends = np.where(starts < 0, lines["logit_lengths"], starts)
    counts = np.minimum(lines["label_lengths"], digits)
    return some(lines | {"logit_lengths": ends, "label_lengths": counts}, seed, count)


def read_batch_of(reader, seed, count=BATCH, width=None):
    """Return `count` random utterances of the reader of speech or of print."""
    return some(reader(), seed, count, width)


def square_of(reader, seed):
    """Return n utterances of at most n frames, for the least n that has so many.

    How long speech is depends on what speaks here.
    """
    lengths = np.sort(reader()["logit_lengths"])
    size = 1 + int(np.flatnonzero(lengths <= np.arange(len(lengths)) + 1)[0])
    return read_batch_of(reader, seed, size, size)


def made_up(kind, seed, wrong=0.0, count=8):
    """Return a batch of a made-up model."""
    return emissions.batch(kind, np.random.default_rng(seed), count, wrong=wrong)


def inject(
    source, seeds, *, faults=FAULTS, is_trained=True, is_reader=True, squares=None
):
    """Return {fault: Counter of first codes} over faults, strengths and seeds."""
    matrix = {}
    for fault in faults:
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


def seconds(batch):
    """Return the processor's and the wall's seconds of a whole diagnosis."""
    processor, wall = time.process_time(), time.perf_counter()
    jax_ctc.diagnose(**batch)
    return time.process_time() - processor, time.perf_counter() - wall


def misread(batch):
    """Return the share of labels that the best path has wrong, added or left out."""
    heard = jax_ctc.greedy_decode(batch["logits"], batch["logit_lengths"])
    truth = batch["labels"], batch["label_lengths"]
    counts = jax_ctc.label_errors(heard.labels, heard.lengths, *truth)
    return float(counts.errors.sum() / counts.total.sum())


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


def plain(matrix):
    """Return the matrix without the mistakes that are faint."""
    return {fault: counts for fault, counts in matrix.items() if not fault.faint}


def pooled(matrices):
    """Say how many of all runs are named first, and how many with every faint one."""
    said = []
    for each in ([plain(matrix) for matrix in matrices], matrices):
        right = sum(n[fault.code] for matrix in each for fault, n in matrix.items())
        runs = sum(n.total() for matrix in each for n in matrix.values())
        said.append(f"{right} of {runs}, {right / runs:.1%}")
    return f"{said[0]}; {said[1]} with the faint ones"


def without_bits(matrix):
    """Return it without status bits, which need no evidence."""
    bits = Status.__members__
    return {fault: counts for fault, counts in matrix.items() if fault.code not in bits}


def table(matrices):
    """Return text: a row per mistake, a column per size, and what came first instead.

    matrices: {B: matrix}.
    """
    lines = []
    for fault in dict.fromkeys(fault for m in matrices.values() for fault in m):
        each = [
            matrix.get(fault, collections.Counter()) for matrix in matrices.values()
        ]
        columns = ""
        for counts in each:
            found = f"{counts[fault.code]} of {counts.total():>2}" if counts else "-"
            columns += f"{found:>10}"
        others = [
            f"{'nothing' if code == NOTHING else code} "
            + "/".join(str(counts[code]) for counts in each)
            for code in dict.fromkeys(code for counts in each for code in counts)
            if code != fault.code
        ]
        others += ["(faint)"] if fault.faint else []
        row = f"  {fault.code:<24}{fault.name:<19}{columns}  {', '.join(others)}"
        lines.append(row.rstrip())
    return "\n".join(lines)


Model = Literal["handwriting", "speech", "print", "made-up"]
READERS = {"speech": speech, "print": printed}


@dataclasses.dataclass(frozen=True)
class Options:
    """Injects mistakes, and counts what the doctor says first, and of healthy batches.

    Exits with 1 if a healthy batch is flagged, or too few mistakes are found in the
    largest batches.
    """

    model: tuple[Model, ...] = ("handwriting", "made-up")
    """Whose scores."""
    batch: tuple[int, ...] = (BATCH,)
    """Utterances of a batch; what takes two axes of one size has its own."""
    seeds: int = 5
    """Batches that each mistake is made in, at each strength; of the made-up, two."""
    healthy: int = 40
    """Batches without a mistake, of each model at each size; of the made-up, half."""


def sources(models):
    """Return {name: (source, squares, what `inject` is told)} of batches to spoil."""
    found = {}
    if "handwriting" in models:
        for steps, name in ((STEPS, f"{STEPS} steps"), (0, "untrained")):
            source = functools.partial(lines_batch, steps)
            squares = functools.partial(source, count=SQUARE, width=SQUARE)
            told = {"is_trained": steps > 0}
            found[f"handwriting, {name}"] = source, squares if steps else None, told
    for name in [name for name in READERS if name in models]:
        source = functools.partial(read_batch_of, READERS[name])
        found[name] = source, functools.partial(square_of, READERS[name]), {}
    if "made-up" in models:
        for kind in emissions.TRAINED:
            told = {"is_reader": kind not in emissions.INSERTING}
            found[f"made up, {kind}"] = functools.partial(made_up, kind), None, told
    return found


def healthy(models):
    """Return {name: source} of batches without a mistake in the code."""
    found = {}
    if "handwriting" in models:
        for steps in STAGES:
            name = f"handwriting, {steps} steps"
            found[name] = functools.partial(lines_batch, steps)
    for name in [name for name in READERS if name in models]:
        found[name] = functools.partial(read_batch_of, READERS[name])
    if "made-up" in models:
        for kind in emissions.KINDS:
            for wrong in (0.0, 0.25):
                name = f"made up, {kind}, {wrong:.0%} wrong transcripts"
                found[name] = functools.partial(made_up, kind, wrong=wrong)
    return found


def matrices_of(source, squares, told, sizes, seeds):
    """Return {B: matrix}. The squares, which have a size of their own, are in one."""
    matrices = {}
    for size in sizes:
        matrix = inject(
            functools.partial(source, count=size),
            seeds,
            squares=squares if size == max(sizes) else None,
            **told,
        )
        matrices[size] = {f: c for f, c in matrix.items() if size >= f.least}
    return matrices


def main(options):
    """Print everything; return what the process is to exit with."""
    print_now = functools.partial(print, flush=True)
    is_good, learned = True, []
    for name, (source, squares, told) in sources(options.model).items():
        print_now(
            f"\n{name}: {misread(source(0, count=NUM_SENTENCES)):.1%} of labels misread"
        )
        batch = source(0, count=max(options.batch))
        shape = "×".join(map(str, (*batch["logits"].shape, batch["labels"].shape[1])))
        for which in ("first", "second"):
            processor, wall = seconds(batch)
            print_now(
                f"{which} diagnosis of {shape}: {processor:.1f} s of processor,"
                f" {wall:.1f} s"
            )
        seeds = range(2 if name.startswith("made up") else options.seeds)
        matrices = matrices_of(source, squares, told, options.batch, seeds)
        print_now(
            f"\n{name}: named first, {' and '.join(map(str, matrices))} in a batch"
        )
        for size, matrix in matrices.items():
            everything, hard = plain(matrix), plain(without_bits(matrix))
            runs = sum(counts.total() for counts in everything.values())
            print_now(
                f"  B = {size}: {rate(everything):.1%} of {runs},"
                f" {rate(hard):.1%} without status bits"
            )
        print_now(table(matrices))
        is_good &= rate(plain(matrices[max(matrices)])) >= 0.95
        if told.get("is_trained", True):
            learned += matrices.values()

    print_now(f"\nall that have learned: {pooled(learned)}")
    print_now("\nhealthy batches, and the codes above note that they got")
    flagged = total = 0
    for name, source in healthy(options.model).items():
        each = options.healthy // 2 if name.startswith("made up") else options.healthy
        counts = collections.Counter()
        for size in options.batch:
            counts += clean(functools.partial(source, count=size), range(each))
        total, flagged = total + counts.total(), flagged + counts.total()
        flagged -= counts[NOTHING]
        print_now(f"  {name}: {dict(counts)}")
    print_now(f"{flagged} of {total} flagged")

    if "handwriting" in options.model:
        print_now("\nlines of so many digits, shuffled as a whole: found")
        for digits in range(1, 5):
            shares = [
                f"{shuffles_found(digits, n, range(10)):.0%}" for n in (8, 16, 64)
            ]
            print_now(f"  {digits}: {', '.join(shares)} of batches of 8, 16, 64")
    return 0 if is_good and not flagged else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m tests.confusion")))
