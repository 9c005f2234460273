"""Which texts can be drawn: a class whose script the font lacks is drawn by its id."""

import functools


def can_draw(text: str) -> bool:
    """Tell whether matplotlib's fonts have every letter: names are written bold, too.

    Without a glyph it would draw an empty box, and warn.
    """
    from matplotlib.font_manager import FontProperties, findfont

    letters = {ord(letter) for letter in text}
    for weight in ("normal", "bold"):
        glyphs: set[int] = set()
        for family in FontProperties().get_family():
            font = FontProperties(family=[family], weight=weight)
            glyphs |= _glyphs(str(findfont(font)))
        if not letters <= glyphs:
            return False
    return True


@functools.cache
def _glyphs(path: str) -> frozenset[int]:
    """Return the characters of a font file."""
    from matplotlib.font_manager import get_font

    return frozenset(get_font(path).get_charmap())
