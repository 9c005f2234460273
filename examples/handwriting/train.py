"""Training with `jax_ctc`, Flax NNX and Optax: one jitted step, one jitted read."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from examples.handwriting.lines import Digits, Lines, compose_lines
from examples.handwriting.model import LineReader
from examples.handwriting.score import score_lines
from jax_ctc import (
    ctc_loss_with_status,
    linear_ctc_loss_with_status,
    raise_if,
    reduce_loss,
)

BATCH_SIZE = 64
PEAK_LEARNING_RATE = 6e-3
WARMUP_STEPS = 100
MAX_GRADIENT_NORM = 1.0
EVALUATE_EVERY = 25
EVALUATE_EVERY_EARLY = 5  # the all-blank plateau is short: look closely
EARLY_STEPS = 100


class Evaluation(NamedTuple):
    """What the model read of the held-out lines after `step` updates."""

    step: int
    digit_error_rate: float
    digits_read: float


@dataclass
class History:
    """What has happened so far; whoever watches may read it at any time.

    Attributes:
        losses: mean nats per line of each step's batch, before its update.
        evaluations: scores on the held-out lines, oldest first.
    """

    losses: list[float] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)


def train(
    model: LineReader,
    digits: Digits,
    held_out: Lines,
    *,
    steps: int,
    seed: int,
    history: History,
    on_step: Callable[[History], None],
) -> None:
    """Trains `model` in place on lines composed of `digits`.

    Args:
        model: the reader to train.
        digits: single digits to compose training lines of.
        held_out: lines to evaluate on; they never reach the gradient.
        steps: number of updates, at least 1.
        seed: decides which lines are composed.
        history: appended to after every step.
        on_step: called after every step, to show progress.

    Raises:
        ValueError: a training line was malformed; the message names it.
    """
    optimizer = make_optimizer(model, steps)
    rng = np.random.default_rng(seed)
    status_so_far = np.zeros(BATCH_SIZE, np.int32)
    lines = compose_lines(rng, digits, BATCH_SIZE)
    for step in range(1, steps + 1):
        loss, status = train_step(model, optimizer, lines)
        # JAX returns before the step is done: compose the next lines meanwhile.
        lines = compose_lines(rng, digits, BATCH_SIZE)
        # A status is a set of bits, so OR keeps every fault seen. Looking at it now
        # and then is enough: a faulty line adds nothing to the gradient.
        status_so_far |= np.asarray(status)
        history.losses.append(float(loss))
        if is_evaluated(step, steps):
            raise_if(status_so_far)
            history.evaluations.append(evaluate(model, held_out, step))
        on_step(history)


def is_evaluated(step: int, steps: int) -> bool:
    """Says whether the held-out lines are read after `step` of `steps` updates."""
    every = EVALUATE_EVERY_EARLY if step <= EARLY_STEPS else EVALUATE_EVERY
    return step % every == 0 or step == steps


def make_optimizer(model: LineReader, steps: int) -> nnx.Optimizer:
    """Returns Adam with a warm-up, a cosine decay over `steps`, clipped gradients."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=PEAK_LEARNING_RATE,
        warmup_steps=min(WARMUP_STEPS, steps // 10),  # a short run warms up briefly
        decay_steps=steps,
    )
    clipped_adam = optax.chain(
        optax.clip_by_global_norm(MAX_GRADIENT_NORM), optax.adam(schedule)
    )
    return nnx.Optimizer(model, clipped_adam, wrt=nnx.Param)


# By name: the loss of a batch from the logits, and without them.
LossName = Literal["ctc_loss", "linear_ctc_loss"]


@functools.partial(nnx.jit, static_argnames="loss_name")
def train_step(
    model: LineReader,
    optimizer: nnx.Optimizer,
    lines: Lines,
    loss_name: LossName = "ctc_loss",
) -> tuple[jax.Array, jax.Array]:
    """Makes one update; returns the mean loss [] and the status [BATCH_SIZE]."""

    def mean_loss(model: LineReader) -> tuple[jax.Array, jax.Array]:
        features = model.features(lines.images, lines.widths, training=True)
        answers = lines.labels, lines.widths, lines.lengths
        if loss_name == "ctc_loss":
            loss, status = ctc_loss_with_status(model.scores(features), *answers)
        else:  # the one line that a large vocabulary changes
            loss, status = linear_ctc_loss_with_status(
                features, *model.last_layer(), *answers
            )
        return reduce_loss(loss, status=status), status

    (loss, status), gradients = nnx.value_and_grad(mean_loss, has_aux=True)(model)
    optimizer.update(model, gradients)
    return loss, status


@nnx.jit
def read_lines(model: LineReader, lines: Lines) -> jax.Array:
    """Returns the logits [N, T, NUM_CLASSES] of `lines`, without dropout."""
    return model(lines.images, lines.widths)


def evaluate(model: LineReader, held_out: Lines, step: int) -> Evaluation:
    """Scores `model` on the held-out lines."""
    score = score_lines(read_lines(model, held_out), held_out)
    return Evaluation(step, score.digit_error_rate, score.digits_read)
