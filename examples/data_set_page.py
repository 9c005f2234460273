"""The page of docs/clean_a_data_set.md, as a browser shows it.

Runs the snippets of docs/clean_a_data_set.md up to the page that is shown there, and
saves its upper part by a headless browser as docs/images/clean_a_data_set.png.

    python -m examples.data_set_page
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from examples.doctor_page import BROWSERS, ROOT, photograph, run_snippets
from examples.front_door import explain_missing

SHOWN = "page = ranking.to_html()"


@dataclass(frozen=True)
class Options:
    """Draws the page of docs/clean_a_data_set.md."""

    out: Path = ROOT / "docs/images/clean_a_data_set.png"
    """The picture."""


def main() -> int:
    """Runs the command; returns 0, 1 (a package is missing) or 2 (no browser)."""
    try:
        import tyro

        options = tyro.cli(Options, prog="python -m examples.data_set_page")
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            print(f"no browser on PATH: {', '.join(BROWSERS)}", file=sys.stderr)
            return 2
        names = run_snippets(ROOT / "docs/clean_a_data_set.md", SHOWN)
        photograph(browser, names["page"], options.out)
        print(f"saved {options.out}")
    except ModuleNotFoundError as error:
        return explain_missing(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
