"""The doctor's page of docs/doctor.md, as a browser shows it, and what a page costs.

Runs the snippets of docs/doctor.md up to the report whose page is shown there, saves
the page's upper part by a headless browser as docs/images/doctor_page.png, and prints
the size of a page of 64 flagged utterances, and the time that its pictures take.

    python -m examples.doctor_page
"""

import contextlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from examples.front_door import explain_missing

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SHOWN = '{"FRAMES_CUT"}'  # in the snippet whose page the docs show
WINDOW = (1100, 1200)
FLAGGED = 64


@dataclass(frozen=True)
class Options:
    """Draws the page of docs/doctor.md, and measures a larger one."""

    out: Path = ROOT / "docs/images/doctor_page.png"
    """The picture."""


def main() -> int:
    """Runs the command; returns 0, 1 (a package is missing) or 2 (no browser)."""
    try:
        import tyro

        options = tyro.cli(Options, prog="python -m examples.doctor_page")
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            print(f"no browser on PATH: {', '.join(BROWSERS)}", file=sys.stderr)
            return 2
        names = run_snippets(ROOT / "docs/doctor.md", SHOWN)
        photograph(browser, names["report"].to_html(), options.out)
        print(f"saved {options.out}")
        print(measured(names))
    except ModuleNotFoundError as error:
        return explain_missing(error)
    return 0


def run_snippets(page: Path, shown: str) -> dict:
    """Runs the page's snippets up to the one with `shown`; returns what they define."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    [last] = [n for n, block in enumerate(blocks) if shown in block]
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in blocks[: last + 1]:
            exec(block, names)
    return names


def photograph(browser: str, page: str, out: Path) -> None:
    """Saves what a window of the browser shows of the page."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(page, encoding="utf-8")
        subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu"),
                *("--hide-scrollbars", f"--user-data-dir={folder}/profile"),
                "--window-size={},{}".format(*WINDOW),
                f"--screenshot={out.resolve()}",
                file.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


def measured(names: dict) -> str:
    """Times the page of a batch of which every utterance is flagged: a wrong blank."""
    import jax_ctc

    arrays = ("blank_last", "from_zero", "logit_lengths", "label_lengths")
    batch = [names[name].repeat(FLAGGED // 8, axis=0) for name in arrays]
    report = jax_ctc.diagnose(*batch)
    flagged = {i for finding in report.findings for i in finding.utterances}
    report.to_html()  # what compiles, compiles here
    start = time.perf_counter()
    page = report.to_html()
    seconds = time.perf_counter() - start
    return (
        f"a page of {len(flagged)} flagged utterances: {len(page) / 1e6:.1f} MB,"
        f" {seconds:.1f} s, {1000 * seconds / len(flagged):.0f} ms each"
    )


if __name__ == "__main__":
    sys.exit(main())
