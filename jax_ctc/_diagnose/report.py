"""What the doctor hands back: findings, one row per utterance, and their JSON."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.page import build
from jax_ctc._diagnose.text import headline, render, who
from jax_ctc._output.visible import plain, visible, visible_json

NOTE, WARNING, ERROR = "note", "warning", "error"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One cause, with what speaks for it.

    Attributes:
        code: a name from the table in docs/doctor.md, such as "WRONG_BLANK".
        severity: "error" (the loss is not the loss you mean), "warning" (it is, but
            something about the batch will hurt) or "note" (good to know, and normal).
        utterances: indices of the utterances that show it, row-major over the batch.
        evidence: the numbers behind it. "nats", where present, is a log-likelihood
            ratio: how much better the data are explained with this cause than without.
        message: one sentence, what is wrong and what to change.
    """

    code: str
    severity: str
    utterances: tuple[int, ...]
    evidence: dict[str, Any]
    message: str


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One row of the report's table, of the batch as it was passed.

    Attributes:
        index: place in the batch, row-major.
        loss: nats; inf or NaN where `status` is not empty.
        loss_per_label: loss over the number of labels (over 1 for an empty one).
        loss_per_frame: loss over the number of frames (over 1 for none).
        spare_frames: frames minus the fewest that the labels need; negative:
            infeasible. None where a length is bad.
        blank_share: share of the frames that the posterior gives to blank, 0..1.
        alignment_entropy: nats, how undecided the alignment is; 0 is one certain path.
        best_path_share: probability of the best path over that of all paths, 0..1.
        labels: what was to be read, as text if a vocabulary was given.
        decoded: what the best class per frame reads, written alike.
        status: names of the `Status` bits, empty if the utterance can be scored.
    """

    index: int
    loss: float
    loss_per_label: float
    loss_per_frame: float
    spare_frames: int | None
    blank_share: float
    alignment_entropy: float
    best_path_share: float
    labels: str
    decoded: str
    status: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """What `diagnose` found in one batch. Print it, or ask it.

    `print(report)` is plain text and `rich.print(report)` a pair of tables.

    Attributes:
        findings: most important first; empty if nothing is worth a word.
        utterances: one row per utterance, of the batch as it was passed.
        passed: B, T, V and U, the blank_id and the kind of inputs.
    """

    findings: tuple[Finding, ...]
    utterances: tuple[Utterance, ...]
    passed: dict[str, Any]
    _given: Given | None = dataclasses.field(default=None, repr=False, compare=False)

    def codes(self) -> set[str]:
        """Return the codes above note: empty for a healthy batch."""
        return {f.code for f in self.findings if f.severity != NOTE}

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the report as JSON; infinities and NaN become strings.

        Control characters in names of classes are escaped, so that it may be printed.
        """
        content = {
            "passed": self.passed,
            "codes": sorted(self.codes()),
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "utterances": [dataclasses.asdict(row) for row in self.utterances],
        }
        return visible_json(plain(content), indent)

    def to_html(
        self, *, track: Callable[[Sequence[int]], Iterable[int]] | None = None
    ) -> str:
        """Return one self-contained page; its pictures need matplotlib.

        Each flagged utterance has one. `track`, such as `rich.progress.track`, is
        called with their indices and shows how far the drawing is.
        """
        return build(self, self._given, track)

    def __str__(self) -> str:
        """Say the findings in plain text, a line each."""
        lines = [
            f"{f.severity} {f.code} [{who(f.utterances)}]: {visible(f.message)}"
            for f in self.findings
        ]
        return "\n".join([headline(self), *lines])

    def __rich__(self) -> Any:
        """Lay the report out for `rich.print`."""
        return render(self)
