"""Wildcards: every reading of the lattice against a list of all paths, in float64."""

import functools

import jax
import numpy as np
import pytest

import jax_ctc
from tests.alignment.wildcards import ANY, log_sum, weighted_paths
from tests.oracle import log_softmax

pytestmark = pytest.mark.usefixtures("both_ends")

IMPLEMENTATIONS = ("blocked", "both_ends", "scan")
ANYTHING = 9
ROWS = [
    [1, ANYTHING, 2],
    [1, ANYTHING, 1],
    [ANYTHING, 1],
    [2, ANYTHING],
    [1, ANYTHING, ANYTHING, 2],
    [ANYTHING, 1, ANYTHING, 1],
    [ANYTHING],
    [ANYTHING, 1, 2, ANYTHING],
    [1, 2],
    [],
]
FRAMES = [5, 5, 5, 4, 5, 5, 3, 5, 5, 2]
COUNTS = np.array([len(row) for row in ROWS], np.int32)
LABELS = np.array([row + [ANYTHING] * (4 - len(row)) for row in ROWS], np.int32)
LENGTHS = np.array(FRAMES, np.int32)
T, U, V = 5, 4, 3


@pytest.fixture(scope="module")
def logits():
    """Return logits in which the blank is now above a wildcard at -1, now below."""
    return np.random.default_rng(3).normal(size=(len(ROWS), T, V)) * 1.5


@functools.cache
def program(inputs):
    """Return the one program that reads everything, and differentiates the losses."""
    options = {"wildcard_id": ANYTHING, "inputs": inputs}
    loss = jax_ctc.ctc_loss
    if inputs == "log_probs":
        loss = jax_ctc.ctc_loss_from_log_probs

    @jax.jit
    def read(scores, log_prob):
        batch = scores, LABELS, LENGTHS, COUNTS
        more = options | {"wildcard_log_prob": log_prob}

        def total(scores, log_prob, implementation):
            losses = loss(
                scores,
                LABELS,
                LENGTHS,
                COUNTS,
                wildcard_id=ANYTHING,
                wildcard_log_prob=log_prob,
                implementation=implementation,
            )
            return losses.sum(), losses

        slopes = jax.grad(total, argnums=(0, 1), has_aux=True)
        return {
            **{name: slopes(scores, log_prob, name) for name in IMPLEMENTATIONS},
            "posteriors": jax_ctc.ctc_posteriors(*batch, **more),
            "align": jax_ctc.ctc_align(*batch, **more),
            "entropy": jax_ctc.alignment_entropy(*batch, **more),
            "samples": jax_ctc.sample_alignments(
                jax.random.key(1), *batch, num_samples=4, **more
            ),
        }

    return read


def listed(scores, row, frames, log_prob):
    """Return each path, its states and its log p, and log p of all together."""
    paths = weighted_paths(scores[:frames], row, ANYTHING, log_prob)
    return paths, log_sum(paths)


def shown(paths, log_z, takes, frames):
    """Return what is probable in each frame: classes, the wildcard, and states."""
    classes, anything = np.zeros((T, V)), np.zeros(T)
    states = np.zeros((T, 2 * U + 1))
    for path, of_frames, score in paths:
        weight = np.exp(score - log_z)
        for t in range(frames):
            states[t, of_frames[t]] += weight
            if path[t] == ANY and takes[t]:
                anything[t] += weight
            else:
                classes[t, 0 if path[t] == ANY else path[t]] += weight
    return classes, anything, states


@pytest.mark.parametrize("log_prob", [0.0, -1.0])
@pytest.mark.parametrize(
    "inputs", ["logits", pytest.param("log_probs", marks=pytest.mark.exhaustive)]
)
def test_against_enumeration(inputs, log_prob, logits, x64):
    """Losses and gradients by all recursions; posteriors, paths, entropy, draws."""
    scores = logits if inputs == "logits" else 0.7 * np.asarray(log_softmax(logits))
    log_probs = np.asarray(log_softmax(logits)) if inputs == "logits" else scores
    found = jax.tree.map(np.asarray, program(inputs)(scores, log_prob))
    slope_of_log_prob = 0.0
    for b, (row, frames) in enumerate(zip(ROWS, FRAMES, strict=True)):
        paths, log_z = listed(log_probs[b], row, frames, log_prob)
        takes = log_prob > log_probs[b, :, 0]
        classes, anything, states = shown(paths, log_z, takes, frames)
        gradient = -classes
        if inputs == "logits":
            gradient[:frames] += np.exp(log_probs[b])[:frames] * (
                1 - anything[:frames, None]
            )
        slope_of_log_prob -= anything.sum()
        for name in IMPLEMENTATIONS:
            (slope, _), losses = found[name]
            np.testing.assert_allclose(losses[b], -log_z, atol=1e-12)
            np.testing.assert_allclose(slope[b], gradient, atol=1e-12)
        check_posteriors(found, b, row, frames, takes, states, log_z)
        check_paths(found, b, row, frames, takes, paths, log_prob)
        weights = np.array([score for *_, score in paths]) - log_z
        entropy = -(np.exp(weights) * weights).sum()
        np.testing.assert_allclose(found["entropy"][b], entropy, atol=1e-12)
    for name in IMPLEMENTATIONS:
        np.testing.assert_allclose(found[name][0][1], slope_of_log_prob, atol=1e-11)


def check_posteriors(found, b, row, frames, takes, states, log_z):
    """At the caller's own places, a wildcard's where it takes the frame."""
    posteriors = found["posteriors"]
    label, blank = np.zeros((T, U)), np.zeros((T, U + 1))
    left, is_free = (
        0,
        True,
    )  # labels that are left so far; is this the gap's first place?
    for n, token in enumerate([*row, None]):
        if is_free:
            blank[:frames, n] = states[:frames, 2 * left]
        if token == ANYTHING and is_free:
            label[:, n] = np.where(takes, blank[:, n], 0)
            blank[:, n] = np.where(takes, 0, blank[:, n])
        is_free = token != ANYTHING
        if token is not None and token != ANYTHING:
            label[:frames, n] = states[:frames, 2 * left + 1]
            left += 1
    np.testing.assert_allclose(posteriors.log_likelihood[b], log_z, atol=1e-12)
    np.testing.assert_allclose(posteriors.label[b], label, atol=1e-12)
    np.testing.assert_allclose(posteriors.blank[b], blank, atol=1e-12)


def check_paths(found, b, row, frames, takes, paths, log_prob):
    """The best path and its spans; drawn ones are paths, at their own log p."""
    known = {}
    for path, states, score in paths:
        tokens = [
            k if k != ANY else ANYTHING if takes[t] else 0 for t, k in enumerate(path)
        ]
        known[tuple(tokens + [-1] * (T - frames))] = score, states
    aligned, samples = found["align"], found["samples"]
    tokens = aligned.tokens[b].tolist()
    score, states = known[tuple(tokens)]
    np.testing.assert_allclose(score, max(score for *_, score in paths), atol=1e-12)
    np.testing.assert_allclose(aligned.log_prob[b], score, atol=1e-12)
    left, is_free = 0, True
    for n, token in enumerate(row):
        span = int(aligned.start[b, n]), int(aligned.end[b, n])
        here = [t for t in range(frames) if states[t] == 2 * left + (token != ANYTHING)]
        if token == ANYTHING:
            begin = int(np.sum(np.array(states) < 2 * left))
            here = [t for t in here if takes[t]] or [begin, begin - 1]
            assert span == ((here[0] if is_free else here[-1] + 1), here[-1] + 1)
            assert aligned.score[b, n] == 0
        else:
            assert span == (here[0], here[-1] + 1)
            left += 1
        is_free = token != ANYTHING
    assert (aligned.start[b, len(row) :] == -1).all()
    for tokens, drawn in zip(samples.tokens[b], samples.log_prob[b], strict=True):
        np.testing.assert_allclose(drawn, known[tuple(tokens.tolist())][0], atol=1e-12)


@pytest.fixture(scope="module")
def recording():
    """Return logits that say 20 labels over 100 frames, and the frame of each."""
    rng = np.random.default_rng(1)
    labels = 1 + np.cumsum(rng.integers(1, 7, 20)) % 7
    frames = 5 * np.arange(20) + rng.integers(0, 3, 20)
    best = np.zeros(100, int)
    best[frames] = labels
    best[frames + 1] = labels
    noise = rng.normal(size=(100, 8))
    return (6 * np.eye(8)[best] + noise).astype(np.float32), labels, frames


def test_a_fifth_of_a_recording(recording):
    """It is found where it belongs, in one piece and in blocks, and has its times."""
    logits, labels, frames = recording
    part = slice(8, 12)
    given = np.array([ANYTHING, *labels[part], ANYTHING, ANYTHING], np.int32)
    options = {"wildcard_id": ANYTHING, "wildcard_log_prob": -0.5}
    found = jax_ctc.ctc_align(logits, given, **options)
    assert found.start[1:-2].tolist() == frames[part].tolist()
    assert found.end[1:-2].tolist() == (frames[part] + 2).tolist()
    plain = jax_ctc.ctc_align(logits, labels[part])
    assert plain.start.tolist() != frames[part].tolist()

    blocks = np.split(logits, [30, 31, 77])
    pieces = jax_ctc.ctc_align_chunks(blocks, given, **options)
    for name in ("tokens", "start", "end"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(found, name))
    for name in ("log_prob", "score"):
        np.testing.assert_allclose(
            getattr(pieces, name), getattr(found, name), rtol=1e-5
        )
    short = jax_ctc.ctc_align_chunks([logits[:3]], given, **options)
    assert (float(short.log_prob), int(short.start[1])) == (-np.inf, -1)

    letters = "-abcdefg"
    said = [letters[label] for label in labels[part]]
    [spans] = jax_ctc.token_spans(found, 1, wildcard_id=ANYTHING, vocabulary=letters)
    assert [span.label for span in spans] == ["*", *said, "*"]
    # Silence is no wildcard's: the blank is better there.
    heard = frames[0], frames[-1] + 2
    assert (spans[0].start, spans[-1].end, spans[0].score) == (*heard, 0)
    [words] = jax_ctc.token_spans(
        found, 1, wildcard_id=ANYTHING, vocabulary=letters, separator="|"
    )
    assert [word.label for word in words] == ["*", "".join(said), "*"]
    [ids] = jax_ctc.token_spans(found, 1)
    assert [span.label for span in ids] == [ANYTHING, *labels[part], ANYTHING]
    posteriors = jax_ctc.ctc_posteriors(logits, given, **options)
    jax_ctc.plot_alignment(posteriors, found, vocabulary=letters, wildcard_id=ANYTHING)


def test_options_of_blocks(recording):
    """The blank is no wildcard, and what is traced cannot be read on the host."""
    logits, labels, _ = recording
    align = functools.partial(jax_ctc.ctc_align_chunks, [logits], labels)
    with pytest.raises(ValueError, match="another number than `blank_id`"):
        align(wildcard_id=0)
    with pytest.raises(TypeError, match="`wildcard_log_prob` of .* must be concrete"):
        jax.jit(lambda x: align(wildcard_id=9, wildcard_log_prob=x))(0.0)
