"""Data-parallel training: the demo's model, optimizer and step, on a mesh.

Nothing in the step says that it is parallel. The batch lies on all devices, the
parameters lie whole on each; XLA adds up the gradients, and `reduce_loss` divides once.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from examples.handwriting import lines as line_data
from examples.handwriting.model import LineReader
from examples.handwriting.score import Score, score_read
from examples.handwriting.train import LossName, make_optimizer, train_step
from examples.sharded import batches
from examples.sharded.checkpoints import Checkpoints, Log
from jax_ctc import Hypotheses, greedy_decode, raise_if


@dataclass
class Progress:
    """How far a run has come; whoever watches may read it at any time."""

    step: int = 0
    loss: float | None = None
    error_rate: float | None = None
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
    loss: LossName = "ctc_loss",
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
        loss: from the logits, or without them.

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
    start = progress.step = checkpoints.start
    if start:
        nnx.update(trained, checkpoints.restore(start, nnx.state(trained)))
    log = Log(out, start) if jax.process_index() == 0 else None
    progress.on_step()
    read = make_reader(mesh)
    compose = functools.partial(batches.training_batch, digits, batch_size, mesh)
    lines = compose(seed=seed, step=start + 1)
    score, faults = None, None
    for step in range(start + 1, steps + 1):
        mean, status = train_step(model, optimizer, lines, loss)
        # JAX returns before the step is done: compose the next lines meanwhile.
        lines = compose(seed=seed, step=step + 1)
        # A status is a set of bits, so OR keeps every fault since the last look.
        faults = status if faults is None else faults | status
        row = {"step": step, "loss": float(mean)}
        progress.step, progress.loss = step, row["loss"]
        is_looked_at = step % checkpoint_every == 0 or step == steps
        if is_looked_at:
            raise_if(multihost_utils.process_allgather(faults, tiled=True))
            faults = None
            score = evaluate(read(model, spread), held_out)
            progress.error_rate = row["error_rate"] = score.digit_error_rate
        if log:
            log.append(row)
        if is_looked_at:
            checkpoints.save(step, nnx.state(trained))
        progress.on_step()
    checkpoints.close()
    return score or evaluate(read(model, spread), held_out)


def create(mesh: Mesh, seed: int, steps: int) -> tuple[LineReader, nnx.Optimizer]:
    """Draws the parameters on every device at once: none has to be sent."""

    def build() -> tuple[LineReader, nnx.Optimizer]:
        model = LineReader(rngs=nnx.Rngs(seed))
        return model, make_optimizer(model, steps)

    place = batches.everywhere(mesh)
    state = jax.jit(lambda: nnx.state(build()), out_shardings=place)()
    return nnx.merge(nnx.graphdef(nnx.eval_shape(build)), state)


def make_reader(mesh: Mesh) -> Callable[[LineReader, line_data.Lines], Hypotheses]:
    """Returns what reads lines on all devices; every process gets all of it."""

    @nnx.jit
    def read(model: LineReader, lines: line_data.Lines) -> Hypotheses:
        hypotheses = greedy_decode(model(lines.images, lines.widths), lines.widths)
        return jax.lax.with_sharding_constraint(hypotheses, batches.everywhere(mesh))

    return read


def evaluate(read: Hypotheses, held_out: line_data.Lines) -> Score:
    """Scores what was read of the held-out lines; padding lines are left out."""
    count = len(held_out.widths)
    fetched = jax.tree.map(lambda x: x[:count], jax.device_get(read))
    return score_read(fetched, held_out)
