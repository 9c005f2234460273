"""What the site needs beside Sphinx: names are links, none is missing, lines fit.

A page writes a public name as code, `ctc_loss`, and so does a docstring. Both become
links to where the name is described. A public name that is described nowhere, or in two
places, is a warning, and so an error.
"""

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

import jax_ctc

_COMPAT = {
    f"compat.{module}.{name}"
    for module, names in {
        "optax": ["ctc_loss"],
        "torch": ["ctc_loss"],
        "keras": ["CTCLoss", "ctc_loss"],
    }.items()
    for name in names
}
NAMES = {f"jax_ctc.{name}" for name in {*jax_ctc.__all__, *_COMPAT}}
_SECTION = re.compile(r"[A-Z][a-z]+:$")
_RESULT = re.compile(r"^    ([a-z_]+): ")
_PAGE = re.compile(r"docs/(\w+)\.md")
_PART = re.compile(r".*?[_.=/(]+(?!$)|.+?$")
_PRIVATE = re.compile(r", _\w+=[^,]*?(?=, |\)$)")
_LONGEST_ROW = 120
_LONGEST_NUMBER = 24  # "256 × 752 × 1024 × 120"
_MANY_COLUMNS = 7
_SHORT_CODE = 16
_AS_IT_STANDS = ".. code-block:: text", ""
_log = logging.getLogger(__name__)


class LinkNames(SphinxTransform):
    """Turn code that is a public name into a link to it."""

    default_priority = 200  # before references are resolved

    def apply(self, **_: Any) -> None:
        """Replace literals; not in headings, and not in what is a link already."""
        for literal in list(self.document.findall(nodes.literal)):
            above = literal.parent
            while above and not isinstance(above, nodes.title | nodes.reference):
                if isinstance(above, addnodes.pending_xref | addnodes.desc_signature):
                    break
                above = above.parent
            name = self.public(literal.astext())
            if above is None and name:
                link = addnodes.pending_xref(
                    "",
                    refdomain="py",
                    reftype="obj",
                    reftarget=name,
                    refdoc=self.env.docname,
                    refexplicit=True,
                    refwarn=True,
                )
                literal.replace_self(link)
                link += literal

    def public(self, text: str) -> str | None:
        """Return the full name that the text stands for, if it is public."""
        text = text.removesuffix("()")
        return next((n for n in (text, f"jax_ctc.{text}") if n in NAMES), None)


class WrapSentences(SphinxTransform):
    """Mark what a program prints in lines too long for any page: sentences."""

    default_priority = 200

    def apply(self, **_: Any) -> None:
        """A class for the style sheet; a table's lines are shorter, and stay whole."""
        for block in self.document.findall(nodes.literal_block):
            longest = max(map(len, block.astext().splitlines()), default=0)
            if block.get("language") == "text" and longest > _LONGEST_ROW:
                block["classes"].append("prose")


class KeepCode(SphinxTransform):
    """Mark short code in sentences: an option does not break behind its dashes."""

    default_priority = 190  # while it is not part of a link

    def apply(self, **_: Any) -> None:
        """A class for the style sheet; what is longer has to fit on a phone."""
        for literal in self.document.findall(nodes.literal):
            if len(literal.astext()) <= _SHORT_CODE:
                literal["classes"].append("short")


class FitTables(SphinxTransform):
    """Mark cells that stay on a line, and tables of many columns."""

    default_priority = 200

    def apply(self, **_: Any) -> None:
        """Classes for the style sheet: a number keeps its unit, a shape its sizes."""
        for cell in self.document.findall(nodes.entry):
            text = cell.astext()
            if len(text) > _LONGEST_NUMBER:
                cell["classes"].append("words")
            elif any(map(str.isdigit, text)):
                cell["classes"].append("number")
        for group in self.document.findall(nodes.tgroup):
            if group["cols"] >= _MANY_COLUMNS:
                group.parent["classes"].append("many-columns")


class BreakNames(SphinxPostTransform):
    """Let names in tables break behind their parts, so that a phone shows the row."""

    default_priority = 900  # when all links are made
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Put <wbr> there: a browser breaks at it, and does not copy it."""
        for cell in self.document.findall(nodes.entry):
            for literal in cell.findall(nodes.literal):
                first, *more = _PART.findall(literal.astext())
                literal.clear()
                literal += nodes.Text(first)
                for part in more:
                    literal += nodes.raw("", "<wbr>", format="html")
                    literal += nodes.Text(part)


def as_restructured_text(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Say to Sphinx what a reader of the docstring sees.

    What is indented between paragraphs is a formula, and lines that begin with a bar
    are a table: both are shown as they stand. Several results are a list.
    """
    del app, what, name, obj, options
    text, above, in_results = list(lines), "", False
    lines.clear()
    for number, line in enumerate(text):
        starts = not number or not text[number - 1]
        if line.startswith("    ") and starts and _is_text(above):
            lines.extend([*_AS_IT_STANDS])
        if line.startswith("|"):
            if starts:
                lines.extend([*_AS_IT_STANDS])
            line = f"    {line}"
        if line and line[0] != " ":
            in_results = line == "Returns:" and bool(_RESULT.match(text[number + 1]))
            line = "Results:" if in_results else line
        elif in_results:
            is_first = _RESULT.match(line)
            line = _RESULT.sub(r"    * **\1**: ", line) if is_first else line[2:]
        line = _PAGE.sub(r":doc:`\1 </\1>`", line.replace(", *)", r", \*)"))
        lines.append(line)
        above = line or above


def without_private(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Leave a record's private fields out of what it is shown to be made of."""
    del app, what, name, obj, options
    return signature and _PRIVATE.sub("", signature), returns


def _is_text(line: str) -> bool:
    """Tell a paragraph from what announces something indented."""
    return bool(line) and line[0] != " " and not _SECTION.match(line)


def miss_none(app: Sphinx, env: Any) -> None:
    """Warn of a public name that no page describes."""
    del app
    found = set(env.domains["py"].objects)
    for name in sorted(NAMES - found):
        _log.warning("%s is public, and no page of the reference describes it", name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of it."""
    app.add_transform(LinkNames)
    app.add_transform(KeepCode)
    app.add_transform(WrapSentences)
    app.add_transform(FitTables)
    app.add_post_transform(BreakNames)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
    app.connect("autodoc-process-signature", without_private)
    app.connect("env-check-consistency", miss_none)
    return {"version": jax_ctc.__version__, "parallel_read_safe": True}
