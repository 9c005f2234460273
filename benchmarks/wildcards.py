"""Training on transcripts with holes: what wildcards keep of the full labels.

    python -m benchmarks.wildcards

Trains the reader of the handwriting demo on the same lines several times. A share of
the digits is missing from their transcripts, at places that are marked. The held-out
lines are read greedily: errors are of all their digits.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx

from examples.handwriting import lines as line_data
from examples.handwriting.lines import NUM_CLASSES, Lines
from examples.handwriting.model import LineReader
from examples.handwriting.score import score_lines
from examples.handwriting.train import BATCH_SIZE, make_optimizer, read_lines
from jax_ctc import ctc_loss_with_status, raise_if, reduce_loss

WILDCARD = NUM_CLASSES  # no class has this id


class Transcripts(NamedTuple):
    """What a line's transcript says, padded on the right."""

    labels: np.ndarray  # [N, U] int32
    lengths: np.ndarray  # [N] int32


# What becomes of labels [N, U], given which of them are missing, [N, U].
Change = Callable[[np.ndarray, np.ndarray], list[list[int]]]


def full(labels: np.ndarray, is_missing: np.ndarray) -> list[list[int]]:
    """All digits."""
    del is_missing
    return [row[row >= 0].tolist() for row in labels]


def marked(labels: np.ndarray, is_missing: np.ndarray) -> list[list[int]]:
    """A wildcard for each digit that is missing."""
    return full(np.where(is_missing & (labels >= 0), WILDCARD, labels), is_missing)


def dropped(labels: np.ndarray, is_missing: np.ndarray) -> list[list[int]]:
    """The digits that are there, as if they were all."""
    return full(np.where(is_missing, -1, labels), is_missing)


def everywhere(labels: np.ndarray, is_missing: np.ndarray) -> list[list[int]]:
    """The digits that are there, and a wildcard in every gap."""
    rows = dropped(labels, is_missing)
    return [[WILDCARD, *(x for y in row for x in (y, WILDCARD))] for row in rows]


@dataclasses.dataclass(frozen=True)
class Run:
    """A way to train: transcripts, and the price of a wildcard's frame in nats.

    It goes from the first price to the last one in equal steps.
    """

    name: str
    change: Change
    first: float = 0.0
    last: float = 0.0


RUNS = (
    Run("full labels", full),
    Run("wildcards, wildcard_log_prob 0", marked),
    Run("wildcards, wildcard_log_prob −1", marked, -1.0, -1.0),
    Run("wildcards, wildcard_log_prob from 0 to −1", marked, 0.0, -1.0),
    Run("what is left, plain CTC", dropped),
    Run("what is left, a wildcard in every gap", everywhere),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to train, and for how long."""

    steps: int = 600
    """Of 64 lines each."""
    missing: float = 1 / 3
    """Share of the digits that are missing."""
    seed: int = 0
    """Decides parameters, lines, and what is missing of them."""


def main(options: Options) -> int:
    """Train every way, and print a line of a table for each."""
    print(f"{options.missing:.0%} of the digits missing, {options.steps} steps\n")
    print("| trained on | errors | digits read |\n|---|--:|--:|")
    for run in RUNS:
        errors, read = error_rates(run, options)
        print(f"| {run.name} | {errors:.1f} % | {read:.0f} % |", flush=True)
    return 0


def error_rates(run: Run, options: Options) -> tuple[float, float]:
    """Return errors and digits read, in percent of the held-out digits."""
    digits, held_out_digits = line_data.load_split()
    held_out = line_data.held_out_lines(held_out_digits)
    model = LineReader(rngs=nnx.Rngs(options.seed))
    optimizer = make_optimizer(model, options.steps)
    rng = np.random.default_rng(options.seed)
    holes = np.random.default_rng(options.seed + 1)
    seen = np.zeros(BATCH_SIZE, np.int32)
    for step in range(options.steps):
        lines = line_data.compose_lines(rng, digits, BATCH_SIZE)
        is_missing = holes.random(lines.labels.shape) < options.missing
        transcripts = padded(run.change(lines.labels, is_missing))
        share = step / options.steps
        log_prob = jnp.float32(run.first + share * (run.last - run.first))
        seen |= np.asarray(train_step(model, optimizer, lines, transcripts, log_prob))
    raise_if(seen)
    score = score_lines(read_lines(model, held_out), held_out)
    return score.digit_error_rate, score.digits_read


def padded(rows: list[list[int]]) -> Transcripts:
    """Return rows of one length, the same for every run and step."""
    labels = np.full((len(rows), 2 * line_data.MAX_DIGITS + 1), -1, np.int32)
    for place, row in enumerate(rows):
        labels[place, : len(row)] = row
    return Transcripts(labels, np.array(list(map(len, rows)), np.int32))


@nnx.jit
def train_step(
    model: LineReader,
    optimizer: nnx.Optimizer,
    lines: Lines,
    transcripts: Transcripts,
    log_prob: jax.Array,
) -> jax.Array:
    """Make one update; return the status [N]."""

    def mean_loss(model: LineReader) -> tuple[jax.Array, jax.Array]:
        logits = model(lines.images, lines.widths, training=True)
        loss, status = ctc_loss_with_status(
            logits,
            transcripts.labels,
            lines.widths,
            transcripts.lengths,
            wildcard_id=WILDCARD,
            wildcard_log_prob=log_prob,
        )
        return reduce_loss(loss, status=status), status

    gradients, status = nnx.grad(mean_loss, has_aux=True)(model)
    optimizer.update(model, gradients)
    return status


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
