"""The doctor and transcripts with holes: their rows and status, causes elsewhere."""

import numpy as np

import jax_ctc

ANYTHING = 9


def test_transcripts_with_holes():
    """No label out of range; scored as the loss does, with their status."""
    rng = np.random.default_rng(0)
    labels = np.array([[1, 2, 3], [3, ANYTHING, 1], [2, 1, 3], [ANYTHING, 1, 1]])
    logits = rng.normal(size=(4, 12, 4)).astype(np.float32)
    lengths = np.array([12, 12, 12, 2], np.int32)
    wild = {"wildcard_id": ANYTHING, "wildcard_log_prob": -0.5}
    report = jax_ctc.diagnose(logits, labels, lengths, vocabulary="-abc", **wild)
    assert report.codes() == {"INFEASIBLE"}
    [finding] = [f for f in report.findings if f.code == "INFEASIBLE"]
    assert finding.utterances == (3,)
    assert finding.evidence == {"most_frames_missing": 1, "in_utterance": 3}
    assert [row.labels for row in report.utterances] == ["abc", "c * a", "bac", "* aa"]
    loss = jax_ctc.ctc_loss(logits, labels, lengths, **wild)
    np.testing.assert_allclose([row.loss for row in report.utterances], loss, rtol=1e-6)
    assert [row.spare_frames for row in report.utterances] == [9, 10, 9, -1]
    assert report.to_html().count("<img") == 1
