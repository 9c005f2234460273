"""Lines of printed English: words of Python's manual in the fonts of matplotlib.

Both come along with what is installed. Letters are doubled as often as English doubles
them, which neither digits nor playing cards do. Another Python has another manual.
"""

import pathlib
import pydoc_data.topics
import re
import textwrap

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from examples.speech.features import MELS as HEIGHT
from examples.speech.features import Batch
from examples.speech.sounds import LETTERS

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif"),
    *("STIXGeneral", "cmr10"),
)
SIZES = 24, 30  # pixels
FEWEST_LETTERS, MOST_LETTERS = 12, 32
NOISE = 0.3


def draw_texts(rng, count, *, held_out):
    """Return `count` pieces of the first three quarters of the manual, or of the last.

    Words are of a to y: nobody writes z, the last class. The manual repeats itself, so
    that of the last quarter only what the others do not say is held out.
    """
    words = re.findall(r"\b[a-y]+\b", " ".join(pydoc_data.topics.topics.values()))
    cut = len(words) * 3 // 4
    known = " ".join(words[:cut])
    words = words[cut:] if held_out else words[:cut]

    def piece():
        most = rng.integers(FEWEST_LETTERS, MOST_LETTERS + 1)
        start = rng.integers(len(words) - MOST_LETTERS)
        return textwrap.wrap(" ".join(words[start : start + most]), most)[0]

    pieces = []
    while len(pieces) < count:
        text = piece()
        if len(text) >= FEWEST_LETTERS and not (held_out and text in known):
            pieces.append(text)
    return pieces


def print_lines(rng, texts):
    """Return a batch as the speech example's reader takes it: columns for frames."""
    rows = [_printed(rng, text) for text in texts]
    images = np.zeros((len(rows), max(map(len, rows)), HEIGHT), np.float32)
    labels = np.full((len(rows), MOST_LETTERS), -1, np.int32)
    for row, text, image, label in zip(rows, texts, images, labels, strict=True):
        image[: len(row)] = row
        label[: len(text)] = [LETTERS.index(letter) for letter in text]
    widths, lengths = (
        np.array([len(x) for x in each], np.int32) for each in (rows, texts)
    )
    return Batch(images, widths, labels, lengths)


def _printed(rng, text):
    """Return [columns, HEIGHT] of mean 0: ink on noisy paper."""
    name = rng.choice(FONTS)
    folder = pathlib.Path(matplotlib.get_data_path()) / "fonts/ttf"
    font = ImageFont.truetype(folder / f"{name}.ttf", rng.integers(*SIZES))
    width = 8 + int(font.getlength(text))
    image = Image.new("L", (width, HEIGHT))
    place = 4, int(rng.integers(24, 34))  # where the first letter stands on the line
    ImageDraw.Draw(image).text(place, text, 255, font, anchor="ls")
    pixels = np.asarray(image, np.float32).T / 128
    pixels += NOISE * rng.standard_normal(pixels.shape, np.float32)
    return pixels - pixels.mean()
