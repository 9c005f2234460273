"""Rewrite the tables of README.md and docs/performance.md from a committed record.

    make bench
    cp out/bench.jsonl benchmarks/results/cpu.jsonl
    python -m benchmarks.tables

The tables `gpu` and `sweeps` are made from records of their own, `gpu.jsonl` and
`sweeps.jsonl`.

Whatever stands between `<!-- benchmark: NAME -->` and `<!-- end -->` is replaced by the
table of that name. `--check` changes nothing, and exits with 1 where a page is not what
the record gives.
"""

import dataclasses
import json
import pathlib
import re
import sys
from typing import Any

import tyro

from benchmarks.markdown import TABLES
from jax_ctc._output.whole import write_whole

ROOT = pathlib.Path(__file__).parents[1]
RECORD = ROOT / "benchmarks/results/cpu.jsonl"
RECORD_OF_A_GPU = ROOT / "benchmarks/results/gpu.jsonl"
RECORD_OF_SWEEPS = ROOT / "benchmarks/results/sweeps.jsonl"
_BLOCK = re.compile(
    r"(?P<head><!-- benchmark: (?P<name>\w+) -->\n).*?(?P<tail><!-- end -->)", re.S
)


@dataclasses.dataclass
class Options:
    """Which record, and whether pages are written or only compared."""

    record: pathlib.Path = RECORD
    gpu: pathlib.Path = RECORD_OF_A_GPU
    sweeps: pathlib.Path = RECORD_OF_SWEEPS
    page: tuple[pathlib.Path, ...] = (ROOT / "README.md", ROOT / "docs/performance.md")
    check: bool = False


def main(options: Options) -> int:
    """Write or compare every page; 1 if one differs, 2 if nothing can be read."""
    try:
        rows = read(options.record)
        others = {"gpu": options.gpu, "sweeps": options.sweeps}
        pages = {
            path: (old := path.read_text(), fill(old, rows, others))
            for path in options.page
        }
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    stale = {path: new for path, (old, new) in pages.items() if new != old}
    for path, text in stale.items():
        if options.check:
            print(
                f"{path} is not what {options.record} gives: "
                f"python -m benchmarks.tables --record {options.record}",
                file=sys.stderr,
            )
        else:
            write_whole(path, text)
            print(f"wrote {path}")
    return 1 if options.check and stale else 0


def read(record: pathlib.Path) -> list[dict[str, Any]]:
    """Return the rows of a record."""
    if not record.exists():
        raise ValueError(
            f"no record at {record}: make bench, then cp out/bench.jsonl {record}"
        )
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    if not rows:
        raise ValueError(f"{record} is empty: the run that wrote it did not finish")
    if any(row.get("cold") for row in rows):
        raise ValueError(f"{record} is of cold runs; the tables are of a machine awake")
    return rows


def fill(page: str, rows: list[dict[str, Any]], others: dict[str, pathlib.Path]) -> str:
    """Return the page with every marked table made anew.

    rows: what a table is made of unless `others` has a record for it.
    """

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise ValueError(f"no table {name!r}; choose from {', '.join(TABLES)}")
        some = read(others[name]) if name in others else rows
        return f"{match['head']}\n{TABLES[name](some)}\n\n{match['tail']}"

    text, count = _BLOCK.subn(table, page)
    if not count:
        raise ValueError("a page has no line '<!-- benchmark: NAME -->' to fill")
    return text


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.tables")))
