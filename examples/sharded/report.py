"""What process 0 shows on the terminal while all processes train."""

from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from examples.handwriting.report import progress_bar
from examples.sharded import train


def run(
    out: Path, progress: train.Progress, settings: dict[str, Any], *, is_first: bool
) -> None:
    """Trains on every device of every process; process 0 prints."""
    devices = jax.devices()
    if not is_first:
        train.train(devices, out, progress, **settings)
        return
    print(f"{jax.process_count()} processes, {len(devices)} devices", flush=True)
    with progress_bar(Console()) as bar:
        task = bar.add_task("training", total=settings["steps"], loss="-", rate="-")

        def on_step() -> None:
            loss, rate = progress.loss, progress.error_rate
            bar.update(
                task,
                completed=progress.step,
                loss="-" if loss is None else f"{loss:5.2f}",
                rate="-" if rate is None else f"{rate:5.1f} %",
            )

        progress.on_step = on_step
        score = train.train(devices, out, progress, **settings)
    print(f"digit error rate {score.digit_error_rate:.1f} %")
    print(f"exact lines {score.exact_lines:.1f} %")
