"""The first hypotheses of other decoders, their pruning switched off."""

import jax
import numpy as np
import pytest

import jax_ctc
from benchmarks.decoders import PEERS, missing
from tests import emissions
from tests.oracle import log_softmax

WIDTH, CLASSES = 64, 12
KINDS = ("random", "peaky", "blurry")
# A prefix that ends in blank and the same that ends in its label take two places of the
# beams of these two. Where nothing is sure no beam holds enough: at 1,024 two of four
# utterances are still read otherwise, here and there, than at 256.
SHARE_NO_PLACE = ("pyctcdecode", "flashlight-text")
EXACT = ("TensorFlow", "pyctcdecode", "flashlight-text", "fast-ctc-decode")


@pytest.fixture(scope="module")
def utterances():
    """Log-probabilities [B, T, V] of each kind, and what we read in them."""
    rng = np.random.default_rng(0)
    logits = {"random": 4 * rng.normal(size=(4, 40, CLASSES))}
    for kind in ("peaky", "blurry"):
        made = emissions.batch(
            kind, rng, count=4, num_classes=CLASSES, frames=40, most=8
        )
        logits[kind] = made["logits"][:, : made["logit_lengths"].min()]

    @jax.jit
    def read(scores):
        found = jax_ctc.beam_search_decode(scores, beam_width=WIDTH, inputs="log_probs")
        return found.labels[:, 0], found.lengths[:, 0]

    scores = {k: log_softmax(x).astype(np.float32) for k, x in logits.items()}
    ours = {}
    for kind, x in scores.items():
        labels, lengths = map(np.asarray, read(x))
        ours[kind] = [
            tuple(r[:n].tolist()) for r, n in zip(labels, lengths, strict=True)
        ]
    return scores, ours


@pytest.mark.relaxed
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                missing(PEERS[name]) is not None, reason=str(missing(PEERS[name]))
            ),
        )
        for name in EXACT
    ],
)
def test_the_same_first_hypotheses(name, utterances):
    """On random scores, and on such as trained models give."""
    decode = PEERS[name].make(CLASSES, WIDTH, None)
    scores, ours = utterances
    for kind in KINDS[: 2 if name in SHARE_NO_PLACE else 3]:
        assert decode(scores[kind]) == ours[kind], kind
        assert any(ours[kind])
