"""Training: bfloat16, accumulated gradients, checkpoints, and a watch beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx

from examples.sharded.checkpoints import Checkpoints, Log
from examples.speech.features import Batch, augment
from examples.speech.model import SpeechReader
from examples.speech.sounds import LETTERS, SPACE_ID
from jax_ctc import (
    ctc_loss_with_status,
    greedy_decode,
    label_errors,
    reduce_loss,
    watch,
)

MICRO_BATCH = 16  # utterances that are in memory at once
ACCUMULATE = 2  # micro-batches per update
PEAK_LEARNING_RATE = 4e-3
WARMUP_UPDATES = 30
MAX_GRADIENT_NORM = 1.0


@dataclass
class Progress:
    """How far a run has come; whoever watches may read it at any time."""

    update: int = 0
    loss: float | None = None
    word_error_rate: float | None = None
    on_update: Callable[[], None] = lambda: None


def make_optimizer(model: SpeechReader, updates: int) -> nnx.Optimizer:
    """Returns Adam that moves once per ACCUMULATE micro-batches, by their mean."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=PEAK_LEARNING_RATE,
        warmup_steps=min(WARMUP_UPDATES, updates // 10),  # a short run warms up briefly
        decay_steps=updates,
    )
    # Inside `MultiSteps`, what is clipped is the mean, and the schedule counts updates.
    adam = optax.chain(
        optax.clip_by_global_norm(MAX_GRADIENT_NORM), optax.adamw(schedule)
    )
    every = optax.MultiSteps(adam, every_k_schedule=ACCUMULATE)
    return nnx.Optimizer(model, every.gradient_transformation(), wrt=nnx.Param)


@nnx.jit
def micro_step(
    model: SpeechReader, optimizer: nnx.Optimizer, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Adds a micro-batch's gradient to the others'; the last one moves the model.

    Returns the mean loss [] and, for the watch, status [B], logits and their lengths.
    """

    def mean_loss(model: SpeechReader) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        features = augment(key, batch.features, batch.frames)
        logits, frames = model(features, batch.frames, training=True)
        loss, status = ctc_loss_with_status(logits, batch.labels, frames, batch.lengths)
        return reduce_loss(loss, status=status), (status, logits, frames)

    (loss, seen), gradient = nnx.value_and_grad(mean_loss, has_aux=True)(model)
    optimizer.update(model, gradient)
    return loss, *seen


@nnx.jit
def read(model: SpeechReader, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Returns logits [B, T, V] and their lengths [B], without dropout."""
    return model(batch.features, batch.frames)


def train(
    training: Batch,
    held_out: Batch,
    out: Path,
    progress: Progress,
    *,
    updates: int,
    seed: int,
    checkpoint_every: int,
) -> SpeechReader:
    """Trains from the last checkpoint in `out`, or from the start, to `updates`.

    Args:
        training: utterances that micro-batches are drawn of.
        held_out: utterances that the word error rate is of, at each checkpoint.
        out: directory of checkpoints and log.
        progress: kept up to date.
        updates: of the parameters, in all.
        seed: decides the parameters, and with the update's number the micro-batches:
            a run that was resumed goes on as it would have without the break.
        checkpoint_every: updates between checkpoints.
    """
    model = SpeechReader(rngs=nnx.Rngs(seed))
    trained = model, make_optimizer(model, updates)
    checkpoints = Checkpoints(out)
    start = progress.update = checkpoints.start
    if start:
        nnx.update(trained, checkpoints.restore(start, nnx.state(trained)))
    log = Log(out, start)
    progress.on_update()
    # It says on stderr which utterances have no loss, and why; no step waits for it.
    with watch(vocabulary=LETTERS) as look:
        for update in range(start + 1, updates + 1):
            losses = []
            for part in range(ACCUMULATE):
                batch, key = draw(training, seed, update, part)
                loss, status, logits, frames = micro_step(*trained, batch, key)
                look(status, logits, batch.labels, frames, batch.lengths)
                losses.append(loss)
            progress.update, progress.loss = update, float(np.mean(losses))
            row: dict[str, float] = {"step": update, "loss": progress.loss}
            is_looked_at = update % checkpoint_every == 0 or update == updates
            if is_looked_at:
                logits, frames = read(model, held_out)
                found = greedy_decode(logits, frames)
                rates = error_rates(found.labels, found.lengths, held_out)
                progress.word_error_rate = row["error_rate"] = rates[1]
            log.append(row)
            if is_looked_at:
                checkpoints.save(update, nnx.state(trained))
            progress.on_update()
    checkpoints.close()
    return model


def draw(training: Batch, seed: int, update: int, part: int) -> tuple[Batch, jax.Array]:
    """Draws a micro-batch, and the key of its augmentation, from numbers alone."""
    rng = np.random.default_rng((seed, update, part))
    chosen = rng.choice(len(training.frames), MICRO_BATCH)
    return training.rows(chosen), jax.random.key(rng.integers(2**31))


def error_rates(
    labels: jax.Array, lengths: jax.Array, batch: Batch
) -> tuple[float, float]:
    """Returns letter and word error rates of labels [B, L], lengths [B], in percent."""
    truth = batch.labels, batch.lengths
    letters = label_errors(labels, lengths, *truth)
    words = label_errors(labels, lengths, *truth, separator_id=SPACE_ID)
    letter_rate, word_rate = (
        100 * float(counts.errors.sum() / counts.total.sum())
        for counts in (letters, words)
    )
    return letter_rate, word_rate
