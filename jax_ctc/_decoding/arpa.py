r"""Reading n-gram models: ARPA files, plain or gzipped, in natural logarithms.

    \data\
    ngram 1=3

    \1-grams:
    -0.5<tab>word<tab>-0.3              log10 p, words, log10 back-off if any

    \end\

Whatever is none is refused with the number of the line: half a model would decode, and
worse.
"""

import gzip
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

_LN10 = math.log(10.0)
_BLANKS = re.compile(r"[ \t]+")
_SECTION = re.compile(r"\\(\d+-grams:|end\\)")
_COUNT = re.compile(r"ngram +(\d+) *= *(\d+)")

Words = tuple[str, ...]


class Gram(NamedTuple):
    """What a model says of one sequence of words."""

    log_prob: float  # nats, of the last word after the others
    log_backoff: float  # nats, for what follows


class Arpa(NamedTuple):
    """A model: its longest n, and its n-grams, the shorter ones first."""

    order: int
    grams: dict[Words, Gram]


def read_arpa(path: Any) -> Arpa:
    """Read a file; raise ValueError, with the line's number, where it is no ARPA file.

    OSError where it cannot be opened.
    """
    path = pathlib.Path(path)
    reader = _Reader(path)
    try:
        return reader.read()
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        reader.fail(f"the file cannot be read on: {error}")


class _Reader:
    """A file, and the line it is being read at."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.line = 0

    def fail(self, why: str) -> NoReturn:
        raise ValueError(
            f"{self.path}, line {self.line}: {why}. `path` must be an n-gram model in"
            " ARPA form, plain or .gz, as kenlm's lmplz and SRILM write it"
        )

    def lines(self) -> Iterator[str]:
        """Yield the lines that are not empty."""
        opener: Any = gzip.open if self.path.suffix == ".gz" else open
        with opener(self.path, "rt", encoding="utf-8") as file:
            self.line = 1
            for self.line, line in enumerate(file, start=1):  # noqa: B007
                line = line.strip(" \t\r\n")
                if line:
                    yield line

    def read(self) -> Arpa:
        """Read header and sections, each with as many n-grams as it should have."""
        lines = self.lines()
        if next(lines, "") != "\\data\\":
            self.fail("it should begin with \\data\\")
        counts, line = self._header(lines)
        grams: dict[Words, Gram] = {}
        for order, count in counts.items():
            if line != f"\\{order}-grams:":
                self.fail(f"the section \\{order}-grams: should begin here")
            before = len(grams)
            for line in lines:
                if line.startswith("\\") and (
                    _SECTION.match(line) or line == "\\end\\"
                ):
                    break
                words, gram = self._gram(line, order)
                if words in grams:
                    self.fail(f"{' '.join(words)!r} occurs twice")
                grams[words] = gram
            else:
                line = ""
            if len(grams) - before != count:
                self.fail(
                    f"{len(grams) - before} {order}-grams end here, but the header"
                    f" says {count}"
                )
        if line != "\\end\\":
            self.fail("\\end\\ is missing: the file is cut off")
        return Arpa(max(counts), grams)

    def _header(self, lines: Iterator[str]) -> tuple[dict[int, int], str]:
        """Return how many n-grams there are of each order, and the line after."""
        counts: dict[int, int] = {}
        line = ""
        for line in lines:
            match = _COUNT.fullmatch(line)
            if match is None:
                break
            if int(match[1]) != len(counts) + 1:
                self.fail(f"'ngram {len(counts) + 1}=' should come before {line!r}")
            counts[int(match[1])] = int(match[2])
        if not counts:
            self.fail("the header should say how many n-grams there are, 'ngram 1='")
        return counts, line

    def _gram(self, line: str, order: int) -> tuple[Words, Gram]:
        fields = _BLANKS.split(line)
        if len(fields) not in (order + 1, order + 2):
            self.fail(
                f"a {order}-gram is a number, {order} words and perhaps a number; got"
                f" {line!r}"
            )
        log_prob = self._number(fields[0])
        if log_prob > 0:
            self.fail(f"log10 p is at most 0; got {fields[0]}")
        backoff = self._number(fields[-1]) if len(fields) == order + 2 else 0.0
        return tuple(fields[1 : order + 1]), Gram(log_prob * _LN10, backoff * _LN10)

    def _number(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{text!r} is no finite number")
        return number
