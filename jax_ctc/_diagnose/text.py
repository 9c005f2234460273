"""The report in a terminal, by `rich`."""

import math
from typing import Any

from jax_ctc._output.visible import visible

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_MOST_ROWS = 32

_NUMBERS = 8  # the first columns hold one number each
COLUMNS = (
    *("#", "loss", "/label", "/frame", "spare", "blank", "entropy", "best"),
    *("labels", "decoded", "status"),
)


def need(
    package: str, *, of: str = "doctor", result: str = "report"
) -> ModuleNotFoundError:
    """Return the error for an extra that is not installed."""
    return ModuleNotFoundError(
        f"this output of the {of} needs {package}: pip install 'jax_ctc[doctor]'"
        f" (str({result}) and {result}.to_json() need nothing)",
        name=package,
    )


def render(report: Any) -> Any:
    """Return what `rich` prints: the findings, then the utterances."""
    try:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError as error:
        raise need("rich") from error
    parts: list[Any] = [Text(headline(report), style="bold")]
    if report.findings:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True)
        table.add_column("finding", no_wrap=True)
        table.add_column("what is wrong, and what to change", ratio=3)
        table.add_column("evidence", ratio=2)
        for finding in report.findings:
            style = STYLES[finding.severity]
            table.add_row(
                Text(f"{finding.code}\n{finding.severity}", style=style),
                Text(visible(finding.message)),
                Text(f"utterances: {who(finding.utterances)}\n")
                + Text(evidence(finding.evidence)),
            )
        parts.append(table)
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in COLUMNS[:_NUMBERS]:
        rows.add_column(name, justify="right", no_wrap=True)
    for name in COLUMNS[_NUMBERS:-1]:
        rows.add_column(name, overflow="ellipsis", no_wrap=True)
    rows.add_column(COLUMNS[-1], min_width=18)  # the longest name of a bit
    for utterance in _first(report):
        rows.add_row(*(Text(cell) for cell in cells(utterance)))
    parts.append(rows)
    rest = len(report.utterances) - _MOST_ROWS
    if rest > 0:
        parts.append(Text(f"and {rest} more utterances: see --json or --html"))
    return Group(*parts)


def headline(report: Any) -> str:
    """Return one line: how large the batch is, and what is wrong with it."""
    size = ", ".join(f"{name} = {value}" for name, value in report.passed.items())
    count = len(report.findings)
    if not count:
        return f"nothing to report ({size})"
    return f"{count} finding{'s' if count > 1 else ''} ({size})"


def who(utterances: tuple[int, ...], most: int = 8) -> str:
    """Write a few indices, and how many more there are."""
    rest = len(utterances) - most
    shown = ", ".join(map(str, utterances[:most]))
    return shown + (f" and {rest} more" if rest > 0 else "")


def evidence(numbers: dict[str, Any]) -> str:
    """Write name and number, a line each."""
    return "\n".join(
        f"{name.replace('_', ' ')}: {_short(value)}" for name, value in numbers.items()
    )


def cells(utterance: Any) -> tuple[str, ...]:
    """Write one utterance, in the order of COLUMNS."""
    spare = utterance.spare_frames
    return (
        str(utterance.index),
        number(utterance.loss),
        number(utterance.loss_per_label),
        number(utterance.loss_per_frame),
        "?" if spare is None else str(spare),
        f"{utterance.blank_share:.0%}" if utterance.blank_share >= 0 else "nan",
        number(utterance.alignment_entropy),
        f"{utterance.best_path_share:.0%}",
        _cut(utterance.labels),
        _cut(utterance.decoded),
        " ".join(utterance.status) or "ok",
    )


def number(value: float) -> str:
    """Write a number in four digits, whole where it has more."""
    return (
        f"{value:.4g}"
        if abs(value) < 1e4
        else f"{value:.0f}"
        if math.isfinite(value)
        else str(value)
    )


def _first(report: Any) -> list[Any]:
    """Return as many utterances as a terminal should show, flagged ones first."""
    flagged = {i for f in report.findings if f.severity != "note" for i in f.utterances}
    ordered = sorted(report.utterances, key=lambda u: (u.index not in flagged, u.index))
    return sorted(ordered[:_MOST_ROWS], key=lambda u: u.index)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        pairs = [f"{a} → {b}" for a, b in list(value.items())[:6]]
        return ", ".join(pairs) + (" …" if len(value) > 6 else "")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return number(value) if isinstance(value, float) else visible(str(value))


def _cut(text: str, most: int = 40) -> str:
    text = visible(text)
    return text if len(text) <= most else text[: most - 1] + "…"
