"""What the check has found: records, a verdict, JSON and a table."""

import dataclasses
import json
from typing import Any

HOW_TO_SWITCH = (
    'ctc_loss(..., implementation="NAME") demands one, and raises where it declines.'
    " JAX_CTC_IMPLEMENTATION=NAME in the environment, read when jax_ctc is imported,"
    " prefers one: what it declines goes on elsewhere."
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One implementation on one batch.

    Attributes:
        batch: its name.
        loss_ulps: largest difference from float64, in units of float32's last place
            (of 1, where the loss is less).
        gradient_error: largest difference of an entry from float64.
        faults: what is wrong, in sentences; none if all is well.
    """

    batch: str
    loss_ulps: float
    gradient_error: float
    faults: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Checked:
    """One implementation, or a rival, which is timed only.

    Attributes:
        name: as `implementation=` takes it, or the rival's.
        is_rival: whether it is another library.
        is_default: whether a float32 batch gets it unasked.
        declines: why it does not run here; None if it does.
        has_run_on: the machine of its record; None: it runs by name only.
        comparisons: its batches.
        seconds: of value and gradient of the timed batch, each round; empty: not timed.
        compile_s: what compiling that program took.
        has_one_order: whether its sums have one, so that bits have to be the same.
    """

    name: str
    is_rival: bool = False
    is_default: bool = False
    declines: str | None = None
    has_run_on: str | None = None
    comparisons: tuple[Comparison, ...] = ()
    seconds: tuple[float, ...] = ()
    compile_s: float | None = None
    has_one_order: bool = True

    @property
    def faults(self) -> list[str]:
        """What is wrong, with the batch that showed it."""
        return [f"{c.batch}: {fault}" for c in self.comparisons for fault in c.faults]

    @property
    def milliseconds(self) -> float | None:
        """The fastest round: noise only ever adds."""
        return min(self.seconds) * 1e3 if self.seconds else None


@dataclasses.dataclass(frozen=True)
class Report:
    """All of them, and where they ran."""

    where: dict[str, str]
    checked: tuple[Checked, ...]

    @property
    def is_fine(self) -> bool:
        """Whether nothing that ran is wrong."""
        return not any(one.faults for one in self.checked)

    @property
    def verdict(self) -> str:
        """Say in sentences what follows."""
        ours = [one for one in self.checked if not one.is_rival]
        ran = [one for one in ours if one.comparisons]
        default = next((one.name for one in ours if one.is_default), None)
        parts = []
        for one in ran:
            if one.faults:
                parts.append(
                    f"{one.name} IS WRONG HERE ({one.faults[0]}). Do without it, by"
                    f" JAX_CTC_IMPLEMENTATION={_other(one, ran)}, and send this report."
                )
        good = [one.name for one in ran if not one.faults]
        if good:
            agree = "agrees" if len(good) == 1 else "agree"
            parts.append(
                f"{', '.join(good)} {agree} with float64, and every run gives the"
                " same bits."
            )
        any_order = [one.name for one in ran if not one.has_one_order]
        if any_order:
            parts.append(
                f"(Not of {', '.join(any_order)}: XLA adds in any order there.)"
            )
        parts.append(f"ctc_loss takes {default} here.")
        untried = [one.name for one in ran if one.has_run_on is None and not one.faults]
        if untried:
            parts.append(
                f"{', '.join(untried)} had never run on such a device: this report,"
                " sent in, makes it a default."
            )
        return " ".join([*parts, HOW_TO_SWITCH])

    def to_json(self) -> str:
        """Return the record: one JSON object."""
        body = {
            "where": self.where,
            "is_fine": self.is_fine,
            "verdict": self.verdict,
            "checked": [dataclasses.asdict(one) for one in self.checked],
        }
        return json.dumps(body, indent=2)

    def __str__(self) -> str:
        """Return the same for reading, without `rich`."""
        lines = [f"{key}: {value}" for key, value in self.where.items()]
        rows = [HEADINGS, *(cells(one) for one in self.checked)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            padded = (c.ljust(w) for c, w in zip(row, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
        return "\n".join([*lines, "", self.verdict])


HEADINGS = ("name", "ms", "compile, s", "loss, ulp", "gradient error", "note")


def cells(one: Checked) -> tuple[str, ...]:
    """Return a row of the table."""
    milliseconds, compared = one.milliseconds, one.comparisons
    note = one.declines or "; ".join(one.faults)
    if one.is_default:
        note = "; ".join(filter(None, ("the default here", note)))
    return (
        one.name,
        "" if milliseconds is None else f"{milliseconds:.2f}",
        "" if one.compile_s is None else f"{one.compile_s:.2f}",
        f"{max(c.loss_ulps for c in compared):.1f}" if compared else "",
        f"{max(c.gradient_error for c in compared):.1e}" if compared else "",
        note,
    )


def render(report: Report) -> Any:
    """Return what `rich` prints."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS[:-1]:
        table.add_column(
            heading, no_wrap=True, justify="left" if heading == "name" else "right"
        )
    table.add_column(HEADINGS[-1])
    for one in report.checked:
        style = "bold red" if one.faults else "dim" if one.declines else ""
        table.add_row(*(Text(cell, style=style) for cell in cells(one)))
    facts = Table.grid(padding=(0, 2))
    for key, value in report.where.items():
        facts.add_row(Text(key, style="cyan"), Text(value))
    style = "green" if report.is_fine else "bold red"
    return Group(facts, table, Text(report.verdict, style=style))


def _other(one: Checked, ran: list[Checked]) -> str:
    return next((o.name for o in ran if o is not one and not o.faults), "scan")
