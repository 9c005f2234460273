"""What does a language model know that the reader does not? Dates, read and mended.

Trains the demo's reader briefly, writes dates (24121987) in digits that it never saw,
and reads them three ways: greedily, by beam search, and by beam search with an n-gram
model of dates, whose weight and bonus are tuned on other dates first. Prints the error
rates and one line's hypotheses, and draws these.

    python -m examples.decode --steps 120 --out out
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.front_door import explain_missing
from examples.handwriting.interrupt import on_interrupt

if TYPE_CHECKING:
    import jax
    import numpy as np

    from examples.handwriting.lines import Lines
    from jax_ctc import BeamHypotheses, NGram

PICTURE = "beam.png"
ORDER = 6  # of the n-gram model
NUM_MODEL_DATES, NUM_LINES = 5_000, 300
FIRST_YEAR, NUM_DAYS = 1_950, 36_525
BEAM_WIDTH, NUM_SHOWN = 16, 5
WEIGHTS, BONUSES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5), (0.0, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Options:
    """Reads dates with and without a language model of dates."""

    steps: int = 120
    """Training steps of 64 lines each: few, so that there is something to mend."""
    seed: int = 0
    """Decides the initial parameters and the training lines."""
    out: Path = Path("out")
    """Directory for the picture; made if it is not there."""


def main() -> int:
    """Runs the example; returns 0, 1 (a package is missing) or 2 (a bad option)."""
    on_interrupt(lambda: "stopped; nothing was saved")
    try:
        import tyro

        from examples.handwriting import demo
    except ModuleNotFoundError as error:
        return explain_missing(error)
    options = tyro.cli(Options, prog="python -m examples.decode")
    fault = demo.find_fault(options.steps, options.seed, options.out, [PICTURE])
    if fault:
        print(fault, file=sys.stderr)
        return 2
    run(options)
    return 0


def run(options: Options) -> None:
    """Trains, tunes on some dates, reads others, draws one of them."""
    import jax
    import numpy as np
    from rich.console import Console

    from examples.handwriting import lines as line_data
    from examples.handwriting import pictures
    from examples.handwriting.demo import trained_reader
    from examples.handwriting.score import score_labels, score_lines
    from examples.handwriting.train import read_lines

    console = Console()
    model, _ = trained_reader(console, options.steps, options.seed)
    rng = np.random.default_rng(line_data.HELD_OUT_SEED)
    held_out = line_data.load_split()[1]
    half = len(held_out.values) // 2
    # Two halves of the digits, so that nothing is tuned on what is examined.
    tuning, examined = (
        line_data.write_lines(rng, line_data.Digits(*some), dates(rng, NUM_LINES))
        for some in (
            (held_out.images[:half], held_out.values[:half]),
            (held_out.images[half:], held_out.values[half:]),
        )
    )
    language_model = model_of(dates(rng, NUM_MODEL_DATES))
    decode = make_decoder(language_model)
    weight, bonus = tune(decode, read_lines(model, tuning), tuning)
    print(f"tuned on {NUM_LINES} dates: lm_weight {weight}, label_bonus {bonus}")

    logits = read_lines(model, examined)  # [N, T, NUM_CLASSES]
    found = {
        "beam search": decode(logits, examined.widths, 0.0, 0.0),
        f"with a {ORDER}-gram of dates": decode(logits, examined.widths, weight, bonus),
    }
    print(f"{'digit errors':>38} {'exact lines':>12}")
    greedy = score_lines(logits, examined)
    scores = {"greedy": greedy}
    for name, hypotheses in found.items():
        best = np.asarray(hypotheses.labels[:, 0]), np.asarray(hypotheses.lengths[:, 0])
        scores[name] = score_labels(*best, examined)
    for name, score in scores.items():
        rates = f"{score.digit_error_rate:10.1f} % {score.exact_lines:10.1f} %"
        print(f"{name:26}{rates}")

    mended = list(scores.values())[-1]
    index = line_to_show(greedy.texts, mended.texts, mended.truths)
    one = jax.tree.map(lambda x: np.asarray(x)[index], hypotheses)
    print(f"written {mended.truths[index]}, read {greedy.texts[index]} greedily; now:")
    for text, log_prob, score in zip(
        line_data.spell(np.asarray(one.labels), np.asarray(one.lengths)),
        one.log_prob,
        one.score,
        strict=True,
    ):
        print(f"  {text:10} log p {log_prob:8.3f}, score {score:8.3f}")
    path = options.out / PICTURE
    width = examined.widths[index]
    pictures.save_beam(
        path,
        np.asarray(jax.nn.softmax(logits[index, :width])),
        examined.images[index, :, :width],
        one,
        f"Written {mended.truths[index]}: the hypotheses, best first, where each has"
        " its digits",
    )
    print(f"saved {path}")


def dates(rng: "np.random.Generator", count: int) -> list[str]:
    """Draws dates as they are filled in on forms: day, month, year."""
    import datetime

    first = datetime.date(FIRST_YEAR, 1, 1)
    days = rng.integers(NUM_DAYS, size=count).tolist()
    return [(first + datetime.timedelta(day)).strftime("%d%m%Y") for day in days]


def model_of(texts: list[str]) -> "NGram":
    """Counts n-grams, writes them as an ARPA file, and reads that as a user would."""
    from examples.handwriting.lines import CLASS_TEXTS
    from examples.handwriting.ngrams import write_arpa
    from jax_ctc import NGram

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dates.arpa"
        write_arpa(path, texts, ORDER)
        return NGram.from_arpa(path, CLASS_TEXTS)


def make_decoder(language_model: "NGram") -> Callable[..., "BeamHypotheses"]:
    """Returns one program that decodes lines with any weight and bonus."""
    import jax

    from jax_ctc import beam_search_decode

    @jax.jit
    def decode(logits: Any, widths: Any, lm_weight: Any, label_bonus: Any) -> Any:
        return beam_search_decode(
            logits,
            widths,
            beam_width=BEAM_WIDTH,
            num_hypotheses=NUM_SHOWN,
            max_labels=2 * len("DDMMYYYY"),
            language_model=language_model,
            lm_weight=lm_weight,
            label_bonus=label_bonus,
            rerank=True,
            times=True,
        )

    return decode


def tune(
    decode: Callable[..., "BeamHypotheses"], logits: "jax.Array", lines: "Lines"
) -> tuple[float, float]:
    """Returns the weight and the bonus with the fewest errors: no new compilation."""
    from jax_ctc import label_errors

    def errors(weight: float, bonus: float) -> int:
        found = decode(logits, lines.widths, weight, bonus)
        best = found.labels[:, 0], found.lengths[:, 0]
        return int(label_errors(*best, lines.labels, lines.lengths).errors.sum())

    pairs = [(weight, bonus) for weight in WEIGHTS for bonus in BONUSES]
    return min(pairs, key=lambda pair: errors(*pair))


def line_to_show(read: list[str], mended: list[str], truths: list[str]) -> int:
    """Returns a line that was misread and is right now, the first if there is none."""
    return next(
        (
            index
            for index, texts in enumerate(zip(read, mended, truths, strict=True))
            if texts[0] != texts[2] == texts[1]
        ),
        0,
    )


if __name__ == "__main__":
    sys.exit(main())
