"""The report as one HTML page that needs no file, font or script from elsewhere."""

import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jax_ctc._diagnose.batch import Given
from jax_ctc._diagnose.text import COLUMNS, cells, evidence, headline, who
from jax_ctc._output.visible import visible
from jax_ctc._pictures.utterance import draw

_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem;
       padding: 0 1rem; color: #1b1b1b; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem;
         border-bottom: 1px solid #ddd }
th { background: #f6f6f6; white-space: nowrap }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.evidence { white-space: pre-line }
tr.flagged td { background: #fff7f5 }
.code { font-weight: 600; font-family: ui-monospace, monospace }
.error { color: #b3261e } .warning { color: #8a5a00 } .note { color: #0b6b8a }
figure { margin: 1.5rem 0 } img { max-width: 100% }
figcaption { font-size: 14px; margin-bottom: .3rem }
"""


def build(
    report: Any,
    given: Given | None,
    track: Callable[[Sequence[int]], Iterable[int]] | None = None,
) -> str:
    """Return the page, with a picture of each utterance that a finding names.

    A report that was made by hand has no batch to draw. `track` is told of the pictures
    to draw, and yields their indices as they are wanted: a progress bar.
    """
    codes: dict[int, list[str]] = {}
    for finding in report.findings:
        if finding.severity != "note":
            for index in finding.utterances:
                codes.setdefault(index, []).append(finding.code)
    pictured = sorted(codes) if given else []
    figures = [
        _figure(report, given, index, codes[index])
        for index in (track(pictured) if track and pictured else pictured)
        if given
    ]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>jax_ctc: why is my CTC loss wrong?</title><style>{_STYLE}</style>",
        "</head><body><h1>Why is my CTC loss wrong?</h1>",
        f"<p>{html.escape(headline(report))}</p>",
        _findings(report),
        "<h2>Utterances</h2>",
        _table(report, codes, set(pictured)),
        "<h2>Flagged utterances</h2>" if pictured else "",
        *figures,
    ]
    return "\n".join(parts) + "\n</body></html>\n"


def _findings(report: Any) -> str:
    if not report.findings:
        return "<p>Nothing to report.</p>"
    rows = "".join(
        f'<tr><td class="{f.severity}">{f.severity}</td>'
        f'<td class="code {f.severity}">{f.code}</td>'
        f"<td>{html.escape(visible(f.message))}</td>"
        f'<td class="evidence">{html.escape(evidence(f.evidence))}</td>'
        f"<td>{who(f.utterances)}</td></tr>"
        for f in report.findings
    )
    heads = ("severity", "code", "what is wrong, and what to change", "evidence")
    head = _head((*heads, "utterances"))
    return f'<div class="scroll"><table id="findings">{head}{rows}</table></div>'


def _table(report: Any, codes: dict[int, list[str]], pictured: set[int]) -> str:
    rows = []
    for utterance in report.utterances:
        index, *others = map(html.escape, cells(utterance))
        if utterance.index in pictured:
            index = f'<a href="#utterance-{index}">{index}</a>'
        style = ' class="flagged"' if utterance.index in codes else ""
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in others[:7])
        words = "".join(f"<td>{cell}</td>" for cell in others[7:])
        rows.append(f"<tr{style}><td>{index}</td>{numbers}{words}</tr>")
    return (
        f'<div class="scroll"><table id="utterances">{_head(COLUMNS)}'
        f"{''.join(rows)}</table></div>"
    )


def _figure(report: Any, given: Given, index: int, codes: list[str]) -> str:
    utterance = report.utterances[index]
    caption = visible(
        f"utterance {index}: {', '.join(codes)}; to be read"
        f" “{utterance.labels}”, decoded “{utterance.decoded}”"
    )
    return (
        f'<figure id="utterance-{index}"><figcaption>{html.escape(caption)}'
        f'</figcaption><img alt="{html.escape(caption)}" src="{draw(given, index)}">'
        "</figure>"
    )


def _head(names: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in names)}</tr>"
