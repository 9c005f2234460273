"""Arrays in the other byte order, as IDX, HTK, FITS and netCDF files have them.

Everything is run on arrays of this machine's order first: a compiled program would take
the others' bytes as they are.
"""

import jax
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import jax_ctc

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 6, 4)).astype(np.float32)
LABELS = np.array([[1, 2], [2, 3]], np.int32)
FRAMES, COUNTS = np.array([6, 5], np.int32), np.array([2, 1], np.int32)
STATUS = np.array([1, 256 // 8], np.int32)
BATCH = (LOGITS, LABELS, FRAMES, COUNTS)
KERNEL, BIAS = RNG.normal(size=(4, 5)), RNG.normal(size=5)
GRAPH = jax.device_get(jax_ctc.ctc_graph(LABELS, COUNTS))
HEAD = (LOGITS, KERNEL.astype("f4"), BIAS.astype("f4"), LABELS, FRAMES, COUNTS)


def swapped(array):
    """Return the same numbers in the other byte order."""
    other = array.astype(array.dtype.newbyteorder())
    assert not other.dtype.isnative
    return other


def watched(status, *batch):
    """Return what a watch reports of one step."""
    with jax_ctc.watch(every=1, on_report=lambda *_: None) as look:
        look(status, *batch)
    return [(step, report.to_json()) for step, report in look.reports]


def plotted(posteriors, alignment, picture):
    """Return every pixel of a plot."""
    figure = jax_ctc.plot_alignment(posteriors, alignment, picture)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def aligned():
    """Return records of one utterance, and a picture, on the host."""
    one = LOGITS[0], LABELS[0]
    records = jax_ctc.ctc_posteriors(*one), jax_ctc.ctc_align(*one)
    return *jax.device_get(records), np.linspace(0, 1, 60, dtype="f4").reshape(6, 10)


# Name of a function, what to call, and its arrays, or what makes them.
CALLS = {
    "ctc_loss": (jax_ctc.ctc_loss, BATCH),
    "ctc_loss_with_status": (jax_ctc.ctc_loss_with_status, BATCH),
    "ctc_loss_from_log_probs": (jax_ctc.ctc_loss_from_log_probs, BATCH),
    "check_batch": (jax_ctc.check_batch, BATCH),
    "ctc_align": (jax_ctc.ctc_align, BATCH),
    "ctc_posteriors": (jax_ctc.ctc_posteriors, BATCH),
    "alignment_entropy": (jax_ctc.alignment_entropy, BATCH),
    "sample_alignments": (
        lambda key, *batch: jax_ctc.sample_alignments(key, *batch, num_samples=3),
        (np.array([0, 7], np.uint32), *BATCH),
    ),
    "ctc_align_chunks": (
        lambda logits, labels: jax_ctc.ctc_align_chunks([logits, logits[:3]], labels),
        (LOGITS[0], LABELS[0]),
    ),
    "greedy_decode": (jax_ctc.greedy_decode, (LOGITS, FRAMES)),
    "beam_search_decode": (
        lambda *given: jax_ctc.beam_search_decode(*given, beam_width=2),
        (LOGITS, FRAMES),
    ),
    "beam_search_chunks": (
        lambda logits: jax_ctc.beam_search_chunks([logits, logits[:3]], beam_width=2),
        (LOGITS[0],),
    ),
    "ctc_graph": (jax_ctc.ctc_graph, (LABELS, COUNTS)),
    "ctc_loss_over_graph": (jax_ctc.ctc_loss_over_graph, (LOGITS, GRAPH, FRAMES)),
    "ctc_loss_over_graph_with_status": (
        jax_ctc.ctc_loss_over_graph_with_status,
        (LOGITS, GRAPH, FRAMES),
    ),
    "ctc_align_over_graph": (jax_ctc.ctc_align_over_graph, (LOGITS, GRAPH, FRAMES)),
    "label_errors": (jax_ctc.label_errors, (LABELS, COUNTS, LABELS[::-1], COUNTS)),
    "linear_ctc_loss": (jax_ctc.linear_ctc_loss, HEAD),
    "linear_ctc_loss_with_status": (jax_ctc.linear_ctc_loss_with_status, HEAD),
    "minimum_frames": (jax_ctc.minimum_frames, (LABELS, COUNTS)),
    "lengths_from_paddings": (
        jax_ctc.lengths_from_paddings,
        (np.array([[0, 0, 1], [0, 1, 1]], np.float32),),
    ),
    "reduce_loss": (
        lambda loss, status, weights, counts: jax_ctc.reduce_loss(
            loss, status=status, weights=weights, label_lengths=counts
        ),
        (LOGITS[:, 0, 0], np.array([0, 256], "i4"), np.array([1, 256], "i2"), COUNTS),
    ),
    "reduce_loss_and_weight": (
        lambda loss, weights: jax_ctc.reduce_loss_and_weight(loss, weights=weights),
        (LOGITS[:, 0, 0], np.array([1, 256], np.int16)),
    ),
    "explain": (jax_ctc.explain, (STATUS,)),
    "raise_if": (jax_ctc.raise_if, (np.zeros(2, np.int32),)),
    "diagnose": (lambda *batch: jax_ctc.diagnose(*batch).to_json(), BATCH),
    "diagnose, fractions": (
        lambda *batch: jax_ctc.diagnose(*batch).to_json(),
        (LOGITS, LABELS, np.array([1.0, 0.8], np.float32), COUNTS),
    ),
    "rank_utterances": (
        lambda *batch: jax_ctc.rank_utterances([batch]).to_json(),
        BATCH,
    ),
    "watch": (watched, (STATUS, *BATCH)),
    "token_spans": (lambda a: jax_ctc.token_spans(a, 25), lambda: aligned()[1:2]),
    "plot_alignment": (plotted, aligned),
}
WITHOUT = {"implementations", "write_spans"}  # they take no arrays


def test_no_function_is_left_out():
    functions = {
        name
        for name in jax_ctc.__all__
        if callable(getattr(jax_ctc, name))
        and not isinstance(getattr(jax_ctc, name), type)
    }
    assert functions - WITHOUT == {name.split(",")[0] for name in CALLS}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_the_other_byte_order_says_the_same(name):
    call, arguments = CALLS[name]
    arguments = arguments() if callable(arguments) else arguments
    expected = [call(*arguments) for _ in range(2)][1]  # compiled, and asked again
    leaves, tree = jax.tree.flatten(arguments)
    for place in (*range(len(leaves)), slice(None)):
        changed = list(leaves)
        if isinstance(place, slice):
            changed = list(map(swapped, leaves))
        else:
            changed[place] = swapped(leaves[place])
        found = call(*jax.tree.unflatten(tree, changed))
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_labels_of_every_width(dtype):
    labels = LABELS.astype(dtype)
    expected = jax_ctc.check_batch(LOGITS, LABELS)
    other = labels.astype(labels.dtype.newbyteorder())
    np.testing.assert_array_equal(jax_ctc.check_batch(LOGITS, labels), expected)
    np.testing.assert_array_equal(jax_ctc.check_batch(LOGITS, other), expected)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_scores_of_every_width(dtype, x64):
    logits = LOGITS.astype(dtype)
    expected = jax_ctc.ctc_loss(logits, LABELS)
    found = jax_ctc.ctc_loss(swapped(logits), LABELS)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_a_blank_may_be_any_integer():
    blank = swapped(np.array(3, np.int32))
    expected = jax_ctc.greedy_decode(LOGITS, blank_id=3)
    found = jax_ctc.greedy_decode(LOGITS, blank_id=blank)
    np.testing.assert_array_equal(found.labels, expected.labels)
