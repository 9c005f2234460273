"""One training on 1 x 1, 1 x 4 and 2 x 2 processes x devices, the last one killed.

    python -m examples.sharded.curves

Starts all three on this machine's CPU, kills the third with SIGKILL after its first
checkpoint and some steps more, and starts it again; prints how far the losses differ,
and draws docs/images/pods_training.png. It takes a few minutes.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from examples.handwriting.pictures import BLUE, GREY, RED, STYLE
from examples.sharded import launch
from examples.sharded.checkpoints import read_log

CLUSTERS = {"1 × 1": (1, 1), "1 × 4": (1, 4), "2 × 2, killed and resumed": (2, 2)}
COLOURS = dict(zip(CLUSTERS, (GREY, BLUE, RED), strict=True))
COMPARED = 50  # steps
AGREED = 1e-4  # relative
NO_DIFFERENCE = 1e-8  # less than a rounding: where a difference of 0 is drawn


@dataclass(frozen=True)
class Options:
    """Compares one training on three clusters, and draws the curves."""

    steps: int = 300
    """Training steps of each run."""
    checkpoint_every: int = 100
    """The third run is killed some time after the first checkpoint."""
    out: Path = Path("docs/images/pods_training.png")
    """The picture."""


def main(options: Options) -> int:
    """Runs, compares, draws; returns 1 if the first 50 losses differ by over 1e-4."""
    logs, killed_at = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for name, cluster in CLUSTERS.items():
            out = Path(folder) / name
            settings = {
                "steps": options.steps,
                "checkpoint_every": options.checkpoint_every,
                "out": out,
            }
            if "killed" in name:
                saved = options.checkpoint_every
                with launch.start(*cluster, **settings) as processes:
                    processes.kill_after(out, saved, saved * 7 // 5)
                killed_at = read_log(out)[-1]["step"]
            with launch.start(*cluster, **settings) as processes:
                if any(processes.finish()):
                    print(f"{name} failed:\n{processes.errors()}", file=sys.stderr)
                    return 1
            logs[name] = read_log(out)
    worst = report(logs, killed_at)
    draw(options, logs, killed_at)
    print(f"saved {options.out}")
    return int(worst > AGREED)


def differences(logs: dict[str, list[dict]]) -> dict[str, np.ndarray]:
    """Returns, per run, each loss's relative difference from the first run's."""
    losses = {
        name: np.array([row["loss"] for row in rows]) for name, rows in logs.items()
    }
    truth = next(iter(losses.values()))
    return {name: np.abs(loss - truth) / truth for name, loss in losses.items()}


def report(logs: dict[str, list[dict]], killed_at: int) -> float:
    """Prints a row per run; returns the largest difference in the first steps."""
    table = Table("processes × devices", "killed at", f"first {COMPARED} steps, up to")
    table.add_column("all steps, up to")
    table.add_column("digit error rate")
    found = differences(logs)
    for name, difference in found.items():
        table.add_row(
            name,
            str(killed_at) if "killed" in name else "",
            f"{difference[:COMPARED].max():.1e}",
            f"{difference.max():.1e}",
            f"{logs[name][-1]['error_rate']:.1f} %",
        )
    Console().print(table)
    return max(difference[:COMPARED].max() for difference in found.values())


def draw(options: Options, logs: dict[str, list[dict]], killed_at: int) -> None:
    """Draws the losses above their differences."""
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(8, 5.2), layout="constrained")
        top, bottom = figure.subplots(2, sharex=True)
        for width, (name, rows) in zip((5, 2.5, 1), logs.items(), strict=True):
            steps = [row["step"] for row in rows]
            losses = [row["loss"] for row in rows]
            top.plot(steps, losses, color=COLOURS[name], linewidth=width, label=name)
        top.set_title("Loss (nats per line): three clusters, one curve")
        top.set_yscale("log")
        top.yaxis.set_major_formatter("{x:g}")
        top.legend(title="processes × devices")
        for name, difference in list(differences(logs).items())[1:]:
            shown = np.maximum(difference, NO_DIFFERENCE)
            steps = np.arange(1, len(shown) + 1)
            bottom.plot(steps, shown, color=COLOURS[name], linewidth=1, label=name)
        bottom.plot((0, COMPARED), (AGREED, AGREED), color="black", linewidth=1.5)
        bottom.text(0, AGREED, " promised for the first 50 steps", va="bottom")
        bottom.set_yscale("log")
        bottom.set_ylim(NO_DIFFERENCE / 2, 10 * AGREED)
        bottom.set_title("Relative difference of the loss from 1 × 1 (0 at the bottom)")
        bottom.set_xlabel("step")
        for axes in (top, bottom):
            axes.axvspan(options.checkpoint_every, killed_at, color=RED, alpha=0.15)
        top.text(
            killed_at,
            30,
            f" kill −9 at step {killed_at},\n"
            f" resumed from step {options.checkpoint_every}",
            color=RED,
        )
        bottom.set_xlim(0, options.steps)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.out)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m examples.sharded.curves")))
