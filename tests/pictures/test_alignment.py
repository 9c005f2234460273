"""The picture of an alignment: what is drawn, where, and clear refusals."""

import dataclasses
import io
import subprocess
import sys
import xml.etree.ElementTree

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import jax_ctc
from tests.alignments import flagged, problem

LABELS = jnp.array([1, 2])


def records(best=(0, 1, 1, 0, 2, 0), frames=None):
    """Return posteriors and alignment of one utterance."""
    logits = 5.0 * jnp.eye(3)[jnp.array(best)]
    return (
        jax_ctc.ctc_posteriors(logits, LABELS, frames),
        jax_ctc.ctc_align(logits, LABELS, frames),
    )


def test_texts_stand_above_their_frames():
    """The axis is in frames, or in seconds."""
    figure = jax_ctc.plot_alignment(*records(), vocabulary="-ab")
    [axes] = figure.axes
    places = {text.get_text(): text.xy[0] for text in axes.texts}
    assert list(places) == ["a", "b"]
    np.testing.assert_allclose(list(places.values()), [2, 4.5])
    assert axes.get_xlim() == (0, 6)
    assert axes.get_xlabel() == "frame"
    figure = jax_ctc.plot_alignment(*records(), frame_rate=2, title="t")
    [axes] = figure.axes
    np.testing.assert_allclose([text.xy[0] for text in axes.texts], [1, 2.25])
    assert (axes.get_xlabel(), axes.get_title(loc="left")) == ("seconds", "t")


def test_a_label_whose_script_the_font_lacks_is_drawn_by_its_id():
    """As on the doctor's page: an empty box says nothing."""
    figure = jax_ctc.plot_alignment(*records(), vocabulary=["-", "字", "b"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "b"]


def test_picture_is_stretched_over_the_frames_and_spans_are_tinted():
    """A spectrogram of ten columns a frame; padded frames are cut off."""
    picture = np.zeros((20, 50))
    figure = jax_ctc.plot_alignment(*records(frames=5), picture)
    top, bottom = figure.axes
    [image] = bottom.images
    assert tuple(image.get_extent()) == (0, 5, 20, 0)
    spans = [patch.get_extents() for patch in bottom.patches]
    edges = [bottom.transData.inverted().transform(box)[:, 0] for box in spans]
    np.testing.assert_allclose(edges, [[1, 3], [4, 5]], atol=1e-6)
    assert top.get_xlim() == (0, 5)


def test_it_can_be_saved(tmp_path):
    """A file that is a picture, of more than one colour."""
    path = tmp_path / "a.png"
    jax_ctc.plot_alignment(*records(), np.eye(6)).savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    pixels = np.asarray(_pixels(path))
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20


@pytest.mark.parametrize("fonttype", ["path", "none"])
def test_an_svg_is_xml_whatever_labels_are_called(fonttype):
    """No NUL, and nothing that turns the rest of a line round."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": fonttype}):
        jax_ctc.plot_alignment(
            *records(), vocabulary=["-", "\x00\x1b", "\u202eb"], title="\x00 of\nall"
        ).savefig(file, format="svg")
    texts = "".join(xml.etree.ElementTree.fromstring(file.getvalue()).itertext())
    if fonttype == "none":
        for needle in (r"\x00\x1b", r"\u202eb", r"\x00 of"):
            assert needle in texts
    assert "\u202e" not in file.getvalue()


def _pixels(path):
    import matplotlib.image

    return matplotlib.image.imread(path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p, a: (a, a), TypeError, "`posteriors` must be a CTCPosteriors"),
        (lambda p, a: (p, p), TypeError, "`alignment` must be a CTCAlignment"),
        (
            lambda p, a: (jax.tree.map(lambda x: x[None], p), a),
            ValueError,
            "one utterance is drawn at a time",
        ),
        (lambda p, a: (p, records((1, 2))[1]), ValueError, "of the same utterance"),
        (lambda p, a: (p, a, np.zeros(6)), ValueError, r"`picture` must be \[height"),
        (lambda p, a: (p, a, np.zeros((0, 6))), ValueError, "`picture` must be"),
        (lambda p, a: (p, a, np.array([["x"]])), ValueError, "`picture` must be"),
        (
            lambda p, a: (dataclasses.replace(p, log_likelihood=-np.inf), a),
            ValueError,
            "flagged .posteriors.log_likelihood",
        ),
    ],
)
def test_mistakes(change, error, message):
    """Designed messages."""
    with pytest.raises(error, match=message):
        jax_ctc.plot_alignment(*change(*records()))


def test_flagged_and_traced():
    """Nothing to draw, or nothing known yet."""
    batch = flagged()
    posteriors, alignment = jax_ctc.ctc_posteriors(*batch), jax_ctc.ctc_align(*batch)
    one = [jax.tree.map(lambda x: x[0], r) for r in (posteriors, alignment)]
    with pytest.raises(ValueError, match="the utterance was flagged"):
        jax_ctc.plot_alignment(*one)
    with pytest.raises(TypeError, match="plot outside"):
        jax.jit(jax_ctc.plot_alignment)(*records())


def test_no_frames_is_nothing_to_draw():
    """No frames, and no label that would need one."""
    empty = jnp.zeros((4, 3)), LABELS, 0, 0
    with pytest.raises(ValueError, match="nothing to draw"):
        jax_ctc.plot_alignment(
            jax_ctc.ctc_posteriors(*empty), jax_ctc.ctc_align(*empty)
        )


def test_many_labels_do_not_make_an_endless_picture():
    """A width that can be saved and opened."""
    labels = np.tile([1, 2], 400)
    logits = 5.0 * np.eye(3, dtype=np.float32)[np.repeat(labels, 2)]
    figure = jax_ctc.plot_alignment(
        jax_ctc.ctc_posteriors(logits, labels), jax_ctc.ctc_align(logits, labels)
    )
    assert figure.get_figwidth() == 60


def test_an_empty_label_is_all_blank():
    """Grey only."""
    logits, labels, frames, counts = problem(np.float32)
    row = logits[3], labels[3], frames[3], counts[3]
    figure = jax_ctc.plot_alignment(
        jax_ctc.ctc_posteriors(*row), jax_ctc.ctc_align(*row)
    )
    assert not figure.axes[0].texts


def test_without_matplotlib_it_says_what_to_install():
    """A clear message, not a traceback from the middle of nowhere."""
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import jax_ctc\n"
        "try: jax_ctc.plot_alignment(None, None)\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "plot_alignment needs matplotlib: pip install 'jax_ctc[plot]'" in run.stdout
