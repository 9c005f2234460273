"""The report in a terminal: plain, or a table by `rich`."""

import collections
import functools
from typing import Any

from jax_ctc._diagnose.text import need as need_of
from jax_ctc._diagnose.text import number
from jax_ctc._output.visible import visible
from jax_ctc._report.heard import AGREED, BEYOND, HOLE, UNHEARD

_MOST_ROWS = 20
_MOST_LETTERS = 100

# How GNU wdiff marks what is only in the one and only in the other.
_MARKS = {AGREED: "{}", UNHEARD: "[-{}-]", BEYOND: "{{+{}+}}", HOLE: "{{*{}*}}"}
COLUMNS = ("name", "/label", "score", "beyond", "unheard", "found")


need = functools.partial(need_of, of="ranking", result="ranking")


def headline(ranking: Any) -> str:
    """Return one line: how much there is, and what is wrong with it."""
    rows = ranking.utterances
    flagged = sum(bool(row.status) for row in rows)
    differ = sum(bool(row.num_beyond or row.num_unheard) for row in rows)
    named = sum(bool(row.findings) for row in rows)
    return (
        f"{_count(len(rows), 'utterance')} in"
        f" {_count(ranking.num_batches, 'batch', 'es')}, worst first: {flagged} cannot"
        f" be scored, {differ} differ from what is heard, {named} named by the doctor"
        f" ({ranking.num_examined} of {ranking.num_batches} batches examined)"
    )


def causes(ranking: Any) -> list[tuple[str, str, str, str]]:
    """Return severity, code, message and where, a row for each code."""
    of_code: dict[str, list[Any]] = collections.defaultdict(list)
    for batch, finding in ranking.findings:
        of_code[finding.code].append((batch, finding))
    rows = []
    for code, found in of_code.items():
        utterances = sum(len(finding.utterances) for _, finding in found)
        where = f"{_count(utterances, 'utterance')} in"
        where += f" {_count(len({batch for batch, _ in found}), 'batch', 'es')}"
        batch, finding = max(found, key=lambda pair: len(pair[1].utterances))
        where += f"; the message is of batch {batch}"
        rows.append((finding.severity, code, visible(finding.message), where))
    return rows


def lines(ranking: Any) -> list[str]:
    """Return the causes, then the worst utterances, a line each."""
    found = [f"{a} {b} [{where}]: {text}" for a, b, text, where in causes(ranking)]
    rows = [COLUMNS, *(cells(row) for row in ranking.utterances[:_MOST_ROWS])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    marked = ["transcript and what is heard"]
    marked += [cut(written(row)) for row in ranking.utterances[:_MOST_ROWS]]
    table = [
        "  ".join([*map(str.ljust, row, widths), text]).rstrip()
        for row, text in zip(rows, marked, strict=True)
    ]
    return [*found, *(table if ranking.utterances else []), *_rest(ranking)]


def render(ranking: Any) -> Any:
    """Return what `rich` prints: causes and the worst utterances."""
    try:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError as error:
        raise need("rich") from error
    parts: list[Any] = [Text(headline(ranking), style="bold")]
    parts += [
        Text(f"{severity} {code} [{where}]: {message}", style="red")
        for severity, code, message, where in causes(ranking)
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in COLUMNS[:-1]:
        table.add_column(name, justify="left" if name == "name" else "right")
    table.add_column(COLUMNS[-1])
    table.add_column("transcript and what is heard", ratio=1)
    for row in ranking.utterances[:_MOST_ROWS]:
        table.add_row(*map(Text, cells(row)), Text(cut(written(row))))
    parts.append(table)
    return Group(*parts, *map(Text, _rest(ranking)))


def _rest(ranking: Any) -> list[str]:
    """Return a line that says how many are not shown; none if all are."""
    rest = len(ranking.utterances) - _MOST_ROWS
    return [f"and {rest} more: see to_json() or to_html()"] if rest > 0 else []


def cells(row: Any) -> tuple[str, ...]:
    """Write one utterance, in the order of COLUMNS."""
    return (
        visible(row.name),
        number(row.loss_per_label),
        "" if row.score is None else f"{row.score:.0%}",
        str(row.num_beyond),
        str(row.num_unheard),
        " ".join(dict.fromkeys((*row.status, *(row.findings or ())))),
    )


def written(row: Any) -> str:
    """Write the transcript with what is heard: `co[-u-]l{+l+}or`, holes `{*...*}`."""
    return visible("".join(_MARKS[kind].format(text) for kind, text in row.differences))


def cut(text: str) -> str:
    """Shorten a text for a line."""
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"


def _count(number: int, name: str, ending: str = "s") -> str:
    return f"{number} {name}{'' if number == 1 else ending}"
