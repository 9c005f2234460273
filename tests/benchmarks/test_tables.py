"""README and docs/performance.md claim what the committed record says, and no more."""

import json

import pytest

from benchmarks import tables
from benchmarks.markdown import TABLES

pytestmark = pytest.mark.fast


def rows_of(case, sizes, ratios, mode="value_and_grad", **facts):
    """Return a row per contender; ours takes 10 ms."""
    for name, ratio in ratios.items():
        row = {"case": case, "mode": mode, "impl": name, "ratio": ratio, **sizes}
        row |= {"seconds": [0.01 * ratio] * 3, "lower_s": 0.1, "compile_s": ratio - 0.1}
        row |= {"temporaries": int(1e6 * ratio), "gradient_error": 1e-7 * ratio}
        yield row | ABOUT | facts


ABOUT = {
    "device": "cpu",
    "cpu": "a processor",
    "cores": 2,
    "machine": "Linux",
    "python": "3.11",
    "versions": {"jax": "0.10", "torch": None},
    "commit": "abc",
}
SIZES = {"batch": 4, "frames": 30, "classes": 5, "labels": 7}


@pytest.fixture
def rows():
    """Return a record of two cases and one sweep."""
    return [
        *rows_of("short", SIZES, {"blocked": 1.0, "optax": 2.0, "torch": 4.0}),
        *rows_of("long", SIZES, {"blocked": 1.0, "optax": 8.0, "torch": 3.0}),
        *rows_of("long", SIZES, {"blocked": 1.0, "optax": 5.0}, mode="value"),
        *rows_of("T=30", SIZES, {"blocked": 1.0, "optax": 2.0}, sweep="T"),
        {
            **{"case": "T=60", "mode": "value_and_grad", "impl": "optax", "sweep": "T"},
            **SIZES,
            "frames": 60,
            "note": "needs 28.0 GB",
            **ABOUT,
        },
    ]


def test_cases(rows):
    """Ratios per rival, their geometric means, memory, precision and compiling."""
    text = TABLES["cases"](rows)
    for line in (
        "| case | B×T×V×U | ours, ms | Optax | PyTorch |",
        "| short | 4×30×5×7 | 10.0 | 2× | 4× |",
        "| geometric mean |  |  | 4× | 3.46× |",
        "| geometric mean, loss alone |  |  | 5× | – |",
        "| long | 1.0 | 8.0 | 1e-07 | 8e-07 | 3e-07 | 0.125× |",
        "| geometric mean |  | 4× ours |  |  |  | 0.25× |",
        "takes 2.45× our time in the geometric mean and 2× at least; 5× our time",
        "a processor, 2 cores (cpu, Linux), Python 3.11, jax 0.10; commit abc.",
    ):
        assert line in text, text


def test_on_a_gpu(rows):
    """What the device was busy is beside what was waited for."""
    rows = [row | {"device_ms": 1.25, "launches": 6.0} for row in rows]
    text = TABLES["gpu"](rows)
    assert "| case | B×T×V×U | ours, ms (on the device) | launches | Optax |" in text
    assert "(1.250) | 6 |" in text
    assert "| case | ours, MB | Optax, MB | ours, error | Optax, error |" in text


def test_full_and_sweeps(rows):
    text = TABLES["full"](rows)
    line = (
        "| long | value | optax | 50.0 (50.0–50.0) | 5× | 0.10 | 4.90 | 5.0 | 5e-07 |"
    )
    assert line in text
    assert "T=30" not in text
    text = TABLES["sweeps"](rows)
    assert "| T | blocked, ms | optax, ms | blocked, MB | optax, MB | note |" in text
    assert "| 30 | 10.0 | 20.0 | 1.0 | 2.0 |  |" in text
    assert "| 60 | – | – | – | – | optax: needs 28.0 GB |" in text


def test_pages_are_written_and_checked(rows, tmp_path, capsys):
    """What is around the markers stays; a page that was edited by hand is an error."""
    record, page = tmp_path / "cpu.jsonl", tmp_path / "page.md"
    record.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page.write_text("before\n<!-- benchmark: cases -->\nold\n<!-- end -->\nafter\n")
    write = tables.Options(record=record, page=(page,))
    check = tables.Options(record=record, page=(page,), check=True)
    assert tables.main(check) == 1
    assert f"{page} is not what {record} gives" in capsys.readouterr().err
    assert tables.main(write) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- benchmark: cases -->\n\nLoss and gradient")
    assert text.endswith("commit abc.\n\n<!-- end -->\nafter\n")
    assert tables.main(check) == 0
    page.write_text(text.replace("3.46×", "9.46×"))
    assert tables.main(check) == 1


@pytest.mark.parametrize(
    ("record", "page", "message"),
    [
        (None, "", "no record at"),
        ("", "", "is empty: the run that wrote it did not finish"),
        ("{}\n", "text", "no line '<!-- benchmark: NAME -->' to fill"),
        (
            "{}\n",
            "<!-- benchmark: case -->\n<!-- end -->",
            "no table 'case'; choose from cases, full, sweeps",
        ),
        (
            '{"case": "char", "mode": "value", "impl": "blocked"}\n',
            "<!-- benchmark: full -->\n<!-- end -->",
            "the record has no time of blocked on char, value and gradient",
        ),
    ],
)
def test_faults_are_clear(record, page, message, tmp_path, capsys):
    path, file = tmp_path / "cpu.jsonl", tmp_path / "page.md"
    if record is not None:
        path.write_text(record)
    file.write_text(page)
    assert tables.main(tables.Options(record=path, page=(file,))) == 2
    assert message in capsys.readouterr().err


def test_the_markers_are_in_their_places():
    """So that the record can be written into them."""
    readme, docs = (page.read_text() for page in tables.Options().page)
    assert tables._BLOCK.search(readme)["name"] == "cases"
    names = [match["name"] for match in tables._BLOCK.finditer(docs)]
    assert names == ["full", "sweeps", "gpu"]


def test_pages_are_what_the_record_gives(capsys):
    assert tables.main(tables.Options(check=True)) == 0, capsys.readouterr().err
