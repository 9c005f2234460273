"""What would act on a terminal, a page or a picture is shown instead."""

import json

import pytest

from jax_ctc._output.visible import DIRECTIONS, visible, visible_json

SHOWN = {
    "\x1b[2J": r"\x1b[2J",
    "\x00": r"\x00",
    "\x9b2J": r"\x9b2J",  # one character that terminals take for ESC [
    "\x7f": r"\x7f",
    "a\nb": r"a\nb",
    "\u202egnp.exe": r"\u202egnp.exe",
    "\u2066": r"\u2066",
    "\u2028": r"\u2028",
    "\udc80": r"\udc80",
    "\uffff": r"\uffff",
}
# Persian joins by ZWNJ, an emoji by ZWJ, and a soft hyphen is a letter of a word.
KEPT = ("né", "می\u200cخواهم", "👩\u200d🚀", "co\u00adop", "\u00a0", "▁日本", "\\x1b")


@pytest.mark.parametrize("text", SHOWN)
def test_what_acts_is_written_out(text):
    assert visible(text) == SHOWN[text]
    assert visible(text, keep=text) == text


@pytest.mark.parametrize("text", KEPT)
def test_what_is_spelling_stays(text):
    assert visible(text) == text


def test_directions_are_all_that_reach():
    assert len(DIRECTIONS) == 9


@pytest.mark.parametrize("text", [*SHOWN, *KEPT])
def test_json_says_the_same(text):
    """Nothing acts, and whoever parses it finds the text as it was."""
    written = visible_json({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert visible(written, keep="\n") == written
    assert visible_json(text, indent=None) == visible_json(text)
