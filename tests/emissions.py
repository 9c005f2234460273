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

Two more are sure of what they hear and hear something else, which is what a real error
looks like: the transcript of another utterance fits better than the right one.

    minimal pairs  utterances come in twos that differ in a label or two, and each is
                   heard as the other
    own lexicon    ten words that each say one; three in ten are heard as another, and
                   always as the same
"""

import numpy as np

TRAINED = ("peaky", "blurry", "overconfident")
INSERTING = ("blurry",)  # hears four labels where three are said, or more
CONFUSED = ("minimal pairs", "own lexicon")
UNTRAINED = ("half", "plateau", "unigram", "untrained", "lopsided")
KINDS = (*TRAINED, *CONFUSED, *UNTRAINED)


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
        target, text = rng.integers(max(1, most // 3), most + 1), []
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
    heard_labels, heard_lengths = labels, lengths
    if kind in CONFUSED:
        change = _minimal_pairs if kind == "minimal pairs" else _own_lexicon
        (labels, lengths), (heard_labels, heard_lengths) = change(
            rng, labels, lengths, num_classes
        )
    sounds = rng.normal(size=(num_classes, 16))
    projection = rng.normal(size=(16, num_classes)) / 4
    bias = rng.normal(size=num_classes)
    scale = float(10 ** rng.uniform(-1.5, 1))
    logits = np.zeros((count, frames, num_classes))
    ends = np.zeros(count, np.int32)
    share = np.bincount(labels[labels >= 0], minlength=num_classes) + 0.5
    for row in range(count):
        said = heard_labels[row, : heard_lengths[row]]
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


def _minimal_pairs(rng, labels, lengths, num_classes):
    """Return what is said, in twos that hardly differ, and what is heard: the other."""
    labels, lengths = labels.copy(), lengths.copy()
    order = np.arange(len(labels))
    for row in range(1, len(labels), 2):
        labels[row], lengths[row] = labels[row - 1], lengths[row - 1]
        for place in rng.permutation(lengths[row])[: rng.integers(1, 3)]:
            labels[row, place] = 2 + (labels[row, place] - 1) % (num_classes - 3)
        order[row - 1 : row + 1] = row, row - 1
    return (labels, lengths), (labels[order], lengths[order])


def _own_lexicon(rng, labels, lengths, num_classes):
    """Return words of a lexicon of ten, and those that are heard in their stead."""
    most = labels.shape[1]
    sizes = rng.integers(3, min(7, most) + 1, 10)
    words = rng.integers(1, num_classes - 1, (10, most)).astype(np.int32)
    words = np.where(np.arange(most) < sizes[:, None], words, -1)
    said = rng.integers(0, 10, len(labels))
    heard = np.where(rng.random(len(said)) < 0.3, said ^ 1, said)
    sizes = sizes.astype(np.int32)
    return (words[said], sizes[said]), (words[heard], sizes[heard])


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
    "minimal pairs": _peaky,
    "own lexicon": _peaky,
    "peaky": _peaky,
    "blurry": _blurry,
    "overconfident": _overconfident,
    "half": _half,
    "plateau": _plateau,
    "unigram": _unigram,
    "untrained": _untrained,
    "lopsided": _lopsided,
}
