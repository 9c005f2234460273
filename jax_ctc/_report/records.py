"""What a data set's report holds: one record per utterance, the worst first."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jax_ctc._diagnose.report import Finding
from jax_ctc._output.visible import plain, visible_json
from jax_ctc._report.page import Pictured, build
from jax_ctc._report.text import headline, lines, render


@dataclasses.dataclass(frozen=True)
class RankedUtterance:
    """One utterance of a data set.

    Attributes:
        name: as given, or "batch:index".
        batch: which batch it came in, from 0.
        index: place in that batch, row-major.
        loss: nats; inf or NaN where `status` is not empty.
        loss_per_label: loss over the number of labels, wildcards not counted (over 1 if
            there are none).
        score: mean, over the labels, of the probability that each has in the frames
            where the best path puts it, 0..1. None without labels, or without a path.
        num_beyond: labels heard that the transcript has not.
        num_unheard: labels of the transcript that were not heard.
        labels: the transcript, as text if a vocabulary was given; a wildcard is "*".
        heard: what the best class per frame reads, written alike.
        differences: the two in one row: (kind, text) in the order of time, where kind
            is "agreed", "unheard" (in the transcript only), "beyond" (heard only) or
            "hole" (heard where a wildcard stands, maybe nothing). As many labels as can
            be agree; one that was heard as another is unheard, and the other is beyond.
        findings: codes above note that the doctor found in the utterance's batch and
            that name this utterance; None if it did not look at the batch.
        status: names of the `Status` bits, empty if the utterance can be scored.
    """

    name: str
    batch: int
    index: int
    loss: float
    loss_per_label: float
    score: float | None
    num_beyond: int
    num_unheard: int
    labels: str
    heard: str
    differences: tuple[tuple[str, str], ...]
    findings: tuple[str, ...] | None
    status: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What `rank_utterances` found in a data set. Print it, keep it, or open its page.

    `print(ranking)` is plain text and `rich.print(ranking)` a table, both of the worst.

    Attributes:
        utterances: all of them: those that cannot be scored, in their order, then by
            `loss_per_label`, the largest first.
        findings: (batch, finding) pairs, above note, of the batches that the doctor
            looked at.
        num_batches: how many there were.
        num_examined: how many of them the doctor looked at.
    """

    utterances: tuple[RankedUtterance, ...]
    findings: tuple[tuple[int, Finding], ...]
    num_batches: int
    num_examined: int
    _pictured: tuple[Pictured, ...] = dataclasses.field(
        default=(), repr=False, compare=False
    )

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return everything as JSON; infinities and NaN become strings.

        Control characters in names are escaped, so that it may be printed.
        """
        content = {
            "num_batches": self.num_batches,
            "num_examined": self.num_examined,
            "findings": [
                {"batch": batch, **dataclasses.asdict(finding)}
                for batch, finding in self.findings
            ],
            "utterances": [dataclasses.asdict(row) for row in self.utterances],
        }
        return visible_json(plain(content), indent)

    def to_html(
        self, *, track: Callable[[Sequence[Any]], Iterable[Any]] | None = None
    ) -> str:
        """Return one self-contained page, the worst first, with their pictures.

        Needs jinja2 and matplotlib: `pip install 'jax_ctc[doctor]'`. `track`, such as
        `tqdm.tqdm`, shows how far the drawing is; by default rich does, on a terminal.
        The table on the page ends after 1000 rows; JSON has all.
        """
        return build(self, self._pictured, track)

    def __str__(self) -> str:
        """Write the worst in plain text, a line each."""
        return "\n".join([headline(self), *lines(self)])

    def __rich__(self) -> Any:
        """Lay the worst out for `rich.print`."""
        return render(self)
