"""What it costs to rank a data set, and whether its mistakes come first.

    python -m benchmarks.ranking

Makes scores like those of a trained recogniser, which mishears a label in ten, and puts
the transcripts of something else beside some of them. Everything is timed, with what
compiles: nothing is read from a cache.
"""

import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import jax_ctc
from tests import emissions


@dataclasses.dataclass(frozen=True)
class Options:
    """The data set, and how it comes."""

    utterances: int = 1000
    frames: int = 400
    """At most, of an utterance."""
    labels: int = 60
    """At most, of a transcript."""
    classes: int = 32
    batch: int = 32
    wrong: float = 0.02
    """Share of the transcripts that belong to something else."""
    ragged: bool = False
    """Cut each batch to its own longest utterance and transcript."""
    page: Path | None = None
    """Where to save the page."""


def main(options: Options) -> int:
    """Rank, draw, and print what it took."""
    jax.config.update("jax_enable_compilation_cache", False)
    rng = np.random.default_rng(0)
    data, wrong = data_set(rng, options)
    start = time.perf_counter()
    ranking = jax_ctc.rank_utterances(batches(data, options))
    ranked = time.perf_counter()
    page = ranking.to_html()
    drawn = time.perf_counter()
    if options.page:
        options.page.write_text(page, encoding="utf-8")
    first = ranking.utterances[: len(wrong)]
    found = sum(row.name in wrong for row in first)
    print(
        f"{len(ranking.utterances)} utterances in {ranking.num_batches} batches ranked"
        f" in {ranked - start:.1f} s, {ranking.num_examined} batches examined; page of"
        f" {len(page) / 1e6:.1f} MB drawn in {drawn - ranked:.1f} s; {found} of"
        f" {len(wrong)} wrong transcripts are the first {len(wrong)}"
    )
    return 0


def data_set(
    rng: np.random.Generator, options: Options
) -> tuple[dict[str, np.ndarray], set[str]]:
    """Return all utterances, and the names of those with a wrong transcript."""
    data: dict[str, Any] = emissions.batch(
        "peaky",
        rng,
        count=options.utterances,
        num_classes=options.classes,
        frames=options.frames,
        most=options.labels,
    )
    data["names"] = np.array([f"utterance {n}" for n in range(options.utterances)])
    frames, counts = data["logit_lengths"], data["label_lengths"]
    count = round(options.wrong * options.utterances)
    wrong = rng.choice(options.utterances, count, replace=False)
    for row in wrong:
        length = min(counts[row], frames[row] // 2)
        data["labels"][row] = -1
        data["labels"][row, :length] = rng.integers(1, options.classes - 1, length)
        counts[row] = length
    return data, set(data["names"][wrong].tolist())


def batches(data: dict[str, np.ndarray], options: Options) -> Iterator[dict[str, Any]]:
    """Yield the batches, padded alike, or each as far as it needs."""
    for start in range(0, options.utterances, options.batch):
        batch = {k: v[start : start + options.batch] for k, v in data.items()}
        if options.ragged:
            batch["logits"] = batch["logits"][:, : batch["logit_lengths"].max()]
            batch["labels"] = batch["labels"][:, : batch["label_lengths"].max()]
        yield batch


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
