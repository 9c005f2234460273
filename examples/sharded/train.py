"""Data-parallel training: the demo's model, optimizer and step, on a mesh.

Nothing in the step says that it is parallel. The batch lies on all devices, the
parameters lie whole on each; XLA adds up the gradients, and `reduce_loss` divides once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from examples.handwriting import lines as line_data
from examples.handwriting.model import LineReader
from examples.handwriting.score import Score, score_read
from examples.handwriting.train import make_optimizer, train_step
from examples.sharded import batches
from examples.sharded.checkpoints import Checkpoints, Log
from jax_ctc import Hypotheses, greedy_decode, raise_if


@dataclass
class Progress:
    """How far a run has come; whoever watches may read it at any time."""

    step: int = 0
    loss: float | None = None
    error_rate: float | None = None
    saved: int = 0  # the step of the last checkpoint
    on_step: Callable[[], None] = lambda: None


def train(
    devices: Sequence[Any],
    out: Path,
    progress: Progress,
    *,
    steps: int,
    seed: int,
    batch_size: int,
    checkpoint_every: int,
) -> Score:
    """Trains from the last checkpoint in `out`, or from the start, to `steps`.

    Args:
        devices: the devices of all processes; every process calls this.
        out: directory of checkpoints and log, the same for all processes.
        progress: kept up to date.
        steps: number of updates in all; the learning rate falls to 0 over them.
        seed: decides the parameters and the lines.
        batch_size: lines per step, a multiple of the number of devices.
        checkpoint_every: steps between checkpoints and evaluations.

    Returns:
        The score on the held-out lines after the last step.

    Raises:
        ValueError: a training line was malformed; the message names it.
    """
    mesh = batches.make_mesh(devices)
    digits, held_out_digits = line_data.load_split()
    held_out = line_data.held_out_lines(held_out_digits)
    spread = batches.held_out_batch(held_out, mesh)
    trained = model, optimizer = create(mesh, seed, steps)

    checkpoints = Checkpoints(out)
    start = progress.step = progress.saved = checkpoints.latest_step()
    if start:
        nnx.update(trained, checkpoints.restore(start, nnx.state(trained)))
    log = Log(out, start) if jax.process_index() == 0 else None
    progress.on_step()
    score = None
    for step in range(start + 1, steps + 1):
        lines = batches.training_batch(digits, batch_size, mesh, seed=seed, step=step)
        loss, status = train_step(model, optimizer, lines)
        row = {"step": step, "loss": float(loss)}
        progress.step, progress.loss = step, row["loss"]
        is_looked_at = step % checkpoint_every == 0 or step == steps
        if is_looked_at:
            raise_if(multihost_utils.process_allgather(status, tiled=True))
            score = evaluate(model, mesh, spread, held_out)
            progress.error_rate = row["error_rate"] = score.digit_error_rate
        if log:
            log.append(row)
        if is_looked_at:
            checkpoints.save(step, nnx.state(trained))
        progress.saved = checkpoints.latest_step()
        progress.on_step()
    checkpoints.close()
    return score or evaluate(model, mesh, spread, held_out)


def create(mesh: Mesh, seed: int, steps: int) -> tuple[LineReader, nnx.Optimizer]:
    """Draws the parameters on every device at once: none has to be sent."""

    def build() -> tuple[LineReader, nnx.Optimizer]:
        model = LineReader(rngs=nnx.Rngs(seed))
        return model, make_optimizer(model, steps)

    place = batches.everywhere(mesh)
    state = jax.jit(lambda: nnx.state(build()), out_shardings=place)()
    return nnx.merge(nnx.graphdef(nnx.eval_shape(build)), state)


def evaluate(
    model: LineReader, mesh: Mesh, spread: line_data.Lines, held_out: line_data.Lines
) -> Score:
    """Scores the held-out lines, read on all devices; every process gets the score."""

    @nnx.jit
    def read(model: LineReader, lines: line_data.Lines) -> Hypotheses:
        logits = model(lines.images, lines.widths)
        hypotheses = greedy_decode(logits, lines.widths)
        return jax.lax.with_sharding_constraint(hypotheses, batches.everywhere(mesh))

    read_lines = jax.device_get(read(model, spread))
    count = len(held_out.widths)
    return score_read(
        jax.tree.map(lambda x: np.asarray(x)[:count], read_lines), held_out
    )
