"""Where is each digit? Forced alignment of lines that the demo's reader never saw.

Trains the demo's reader briefly, aligns every held-out line with what is written in it,
prints where the digits of a few lines were found, and how often a digit was found in
its own columns: the lines are composed, so the truth is known.

    python -m examples.align --steps 300 --lines 5 --out out
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from examples.front_door import explain_missing
from examples.handwriting.interrupt import on_interrupt

if TYPE_CHECKING:
    from examples.handwriting.lines import Lines
    from jax_ctc import CTCAlignment, TokenSpan

FILES = PICTURE, TEXTGRID = "alignment.png", "alignment.TextGrid"


@dataclass(frozen=True)
class Options:
    """Aligns held-out lines of handwritten digits with what is written in them."""

    steps: int = 300
    """Training steps of 64 lines each, before the alignment."""
    lines: int = 5
    """Lines to print; the longest of them is drawn."""
    seed: int = 0
    """Decides the initial parameters and the training lines."""
    out: Path = Path("out")
    """Directory for the picture and the TextGrid; made if it is not there."""


def main() -> int:
    """Runs the example; returns 0, 1 (a package is missing) or 2 (a bad option)."""
    on_interrupt(lambda: "stopped; nothing was saved")
    try:
        import tyro

        from examples.handwriting import demo
    except ModuleNotFoundError as error:
        return explain_missing(error)
    options = tyro.cli(Options, prog="python -m examples.align")
    fault = demo.find_fault(options.steps, options.seed, options.out, FILES)
    if options.lines < 1:
        fault = f"--lines must be at least 1; got {options.lines}"
    if fault:
        print(fault, file=sys.stderr)
        return 2
    run(options)
    return 0


def run(options: Options) -> None:
    """Trains, aligns all lines at once, prints some, saves the longest of these."""
    import jax
    from rich.console import Console

    from examples.handwriting import lines as line_data
    from examples.handwriting import pictures
    from examples.handwriting.demo import trained_reader
    from examples.handwriting.train import read_lines
    from jax_ctc import ctc_align, token_spans, write_spans

    console = Console()
    model, held_out = trained_reader(console, options.steps, options.seed)
    logits = read_lines(model, held_out)  # [N, T, NUM_CLASSES]
    alignment = jax.device_get(
        ctc_align(logits, held_out.labels, held_out.widths, held_out.lengths)
    )
    # A frame is a pixel column: one frame a "second" gives times in columns.
    spans = token_spans(alignment, 1, vocabulary=line_data.CLASS_TEXTS)
    shown = spans[: options.lines]
    console.print(spans_table(shown, held_out))
    found = found_in_place(alignment, held_out)
    print(f"found in their own columns: {100 * found:.1f} % of all held-out digits")
    index = max(range(len(shown)), key=lambda line: len(shown[line]))
    truth = "".join(str(span.label) for span in shown[index])
    path = options.out / PICTURE
    pictures.save_alignment(
        path, logits, held_out, index, f"A held-out line, aligned with {truth}"
    )
    print(f"saved {path}")
    write_spans(
        shown[index], options.out / TEXTGRID, duration=float(held_out.widths[index])
    )
    print(f"saved {options.out / TEXTGRID}")


def spans_table(spans: "list[list[TokenSpan]]", lines: "Lines"):
    """Tabulates the digits of some lines: true columns, columns found, score."""
    from rich.table import Table

    from examples.handwriting.lines import DIGIT_SIZE

    table = Table(
        title=f"{len(spans)} held-out lines, in pixel columns", title_justify="left"
    )
    for heading in ("line", "digit", "written", "found", "score"):
        table.add_column(heading, justify="right")
    for number, (row, lefts) in enumerate(zip(spans, lines.lefts, strict=False)):
        for place, (span, left) in enumerate(zip(row, lefts, strict=False)):
            table.add_row(
                "" if place else str(number),
                str(span.label),
                f"{left}–{left + DIGIT_SIZE}",
                f"{span.start:.0f}–{span.end:.0f}",
                f"{span.score:.2f}",
            )
        table.add_section()
    return table


def found_in_place(alignment: "CTCAlignment", lines: "Lines") -> float:
    """Returns the share of digits whose span shares a column with the digit."""
    from examples.handwriting.lines import DIGIT_SIZE

    is_digit = lines.lefts >= 0
    touches = (alignment.start < lines.lefts + DIGIT_SIZE) & (
        alignment.end > lines.lefts
    )
    return float((touches & is_digit).sum() / is_digit.sum())


if __name__ == "__main__":
    sys.exit(main())
