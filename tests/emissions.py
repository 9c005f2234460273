"""Scores as other models make them: speech and text, trained, half trained, untrained.

Handwriting is one model; thresholds that hold for it alone would be fitted to it. Here
every utterance has sounds, one per label, and a model that hears them more or less:

    peaky          a spike per label between long blanks, as trained speech models
    blurry         labels last as long as the sounds, and are never quite certain
    overconfident  wins by 30 nats, right or wrong
    half           knows a third of what is said, on top of what is frequent
    plateau        blank everywhere
    unigram        a constant: how frequent each class is
    untrained      a random projection of the sounds, with random biases
    lopsided       the same, with one class other than blank far ahead
"""

import numpy as np

TRAINED = ("peaky", "blurry", "overconfident")
UNTRAINED = ("half", "plateau", "unigram", "untrained", "lopsided")


def transcripts(rng, count, num_classes, most, *, words=200):
    """Return labels [B, U] padded with -1, and their lengths: words by Zipf's law."""
    letters = rng.permutation(np.arange(2, num_classes - 1))  # the last is unused
    weight = 1 / np.arange(1, len(letters) + 1)
    weight /= weight.sum()
    lexicon = [rng.choice(letters, rng.integers(1, 8), p=weight) for _ in range(words)]
    popular = 1 / np.arange(1, words + 1)
    popular /= popular.sum()
    labels, lengths = np.full((count, most), -1, np.int32), np.zeros(count, np.int32)
    for row in range(count):
        target, text = rng.integers(most // 3, most + 1), []
        while len(text) < target:  # class 1 stands between words
            text += [*lexicon[rng.choice(words, p=popular)].tolist(), 1]
        lengths[row] = target
        labels[row, :target] = text[:target]
    return labels, lengths


def batch(kind, rng, count=8, num_classes=32, frames=200, most=40, wrong=0.0):
    """Return the arguments of `diagnose` for a healthy batch.

    wrong: the share of utterances whose transcript is that of something else.
    """
    labels, lengths = transcripts(rng, count, num_classes, most)
    sounds = rng.normal(size=(num_classes, 16))
    projection = rng.normal(size=(16, num_classes)) / 4
    bias = rng.normal(size=num_classes)
    scale = float(10 ** rng.uniform(-1.5, 1))
    logits = np.zeros((count, frames, num_classes))
    ends = np.zeros(count, np.int32)
    share = np.bincount(labels[labels >= 0], minlength=num_classes) + 0.5
    for row in range(count):
        said = labels[row, : lengths[row]]
        starts, end = _places(rng, said, frames)
        ends[row] = end
        heard = np.zeros((frames, 16))
        for label, start, stop in zip(said, starts, [*starts[1:], end], strict=True):
            heard[start:stop] = sounds[label]
        heard += 0.3 * rng.normal(size=heard.shape)
        logits[row] = _SCORES[kind](
            rng, said, starts, end, heard, projection, bias, scale, share
        )
    for row in rng.permutation(count)[: round(wrong * count)]:
        other, length = transcripts(rng, 1, num_classes, lengths[row])
        labels[row, : length[0]], lengths[row] = other[0, : length[0]], length[0]
    return {
        "logits": logits.astype(np.float32),
        "labels": labels,
        "logit_lengths": ends,
        "label_lengths": lengths,
    }


def _places(rng, said, frames):
    """Return where each sound starts, two frames apart at least, and where all ends."""
    end = int(rng.integers(max(2 * len(said) + 2, frames // 2), frames + 1))
    spare = end - 2 * len(said)
    cuts = np.sort(rng.integers(0, spare + 1, len(said)))
    return (cuts + 2 * np.arange(len(said))).tolist(), end


def _spikes(rng, said, starts, num_classes, frames, gain, errors):
    """Blank everywhere, a label where each sound starts; some wrong, some missing."""
    scores = rng.normal(size=(frames, num_classes))
    scores[:, 0] += gain
    for label, start in zip(said, starts, strict=True):
        if rng.random() < errors:
            label = rng.integers(0, num_classes)
        scores[start, 0] -= gain
        scores[start, label] += gain
    return scores


def _peaky(rng, said, starts, end, heard, projection, bias, scale, share):
    return _spikes(rng, said, starts, len(bias), len(heard), 9.0, 0.1)


def _overconfident(rng, said, starts, end, heard, projection, bias, scale, share):
    return _spikes(rng, said, starts, len(bias), len(heard), 30.0, 0.1)


def _blurry(rng, said, starts, end, heard, projection, bias, scale, share):
    scores = 0.7 * rng.normal(size=(len(heard), len(bias)))
    scores[:, 0] += 2.0
    for label, start, stop in zip(said, starts, [*starts[1:], end], strict=True):
        scores[start : min(stop, start + 4), label] += 4.0
        scores[start : min(stop, start + 4), rng.integers(len(bias))] += 2.0
    return scores


def _half(rng, said, starts, end, heard, projection, bias, scale, share):
    scores = np.log(share / share.sum())[None, :] + 0.3 * rng.normal(
        size=(len(heard), len(bias))
    )
    scores[:, 0] = 2.0
    for label, start in zip(said, starts, strict=True):
        scores[start : start + 2, label] += 1.5
    return scores


def _plateau(rng, said, starts, end, heard, projection, bias, scale, share):
    scores = 0.2 * heard @ projection
    scores[:, 0] += 4.0
    return scores


def _unigram(rng, said, starts, end, heard, projection, bias, scale, share):
    scores = np.log(share / share.sum())[None, :] + 0.05 * heard @ projection
    scores[:, 0] = 1.0
    return scores


def _untrained(rng, said, starts, end, heard, projection, bias, scale, share):
    return scale * (heard @ projection + bias)


def _lopsided(rng, said, starts, end, heard, projection, bias, scale, share):
    scores = scale * (heard @ projection)
    scores[:, -1] += 5.0
    return scores


_SCORES = {
    "peaky": _peaky,
    "blurry": _blurry,
    "overconfident": _overconfident,
    "half": _half,
    "plateau": _plateau,
    "unigram": _unigram,
    "untrained": _untrained,
    "lopsided": _lopsided,
}
