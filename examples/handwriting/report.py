"""What the demo shows on the terminal: a progress bar and a table of lines."""

from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from examples.handwriting.train import History


def progress_bar(console: Console, rate: str = "error rate") -> Progress:
    """Returns a bar with loss and a named rate; off a terminal, one final line."""
    return Progress(
        TextColumn("training"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn(rate + " {task.fields[rate]}"),
        TimeElapsedColumn(),
        console=console,
    )


def progress_watcher(progress: Progress, steps: int) -> Callable[[History], None]:
    """Adds a task of `steps` to `progress`; returns what moves it."""
    task = progress.add_task("training", total=steps, loss="", rate="")

    def on_step(history: History) -> None:
        rate = "  -"
        if history.evaluations:
            rate = f"{history.evaluations[-1].digit_error_rate:5.1f} %"
        progress.update(
            task,
            completed=len(history.losses),
            loss=f"{history.losses[-1]:5.2f}",
            rate=rate,
        )

    return on_step


def lines_table(
    truths: Sequence[str], texts: Sequence[str], losses: Iterable[float]
) -> Table:
    """Tabulates held-out lines: truth, what was read, loss of the truth in nats."""
    table = Table(title=f"{len(truths)} held-out lines", title_justify="left")
    table.add_column("truth")
    table.add_column("read")
    table.add_column("loss (nats)", justify="right")
    for truth, text, loss in zip(truths, texts, losses, strict=True):
        style = "green" if text == truth else "red"
        table.add_row(truth, f"[{style}]{text}[/]", f"{loss:.3f}")
    return table
