"""The doctor and transcripts with holes: their rows and status, causes elsewhere."""

import json

import numpy as np
import pytest

import jax_ctc
from jax_ctc.__main__ import main

ANYTHING = 9


def test_transcripts_with_holes(tmp_path, capsys):
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
    file = tmp_path / "batch.npz"
    arrays = {"logits": logits, "labels": labels, "logit_lengths": lengths}
    np.savez(file, **arrays, wildcard_id=ANYTHING)
    assert main(["diagnose", str(file), "--wildcard-log-prob", "-0.5", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["codes"] == ["INFEASIBLE"]


def test_a_watch_is_told_of_wildcards():
    """They are no labels out of range; what is flagged is told as it was passed."""
    rng = np.random.default_rng(1)
    labels = np.array([[1, 2, ANYTHING], [3, ANYTHING, 1], [ANYTHING] * 3, [1, 9, 1]])
    logits = rng.normal(size=(4, 12, 4)).astype(np.float32)
    wild = {"wildcard_id": ANYTHING, "wildcard_log_prob": -0.5}
    with jax_ctc.watch(
        every=1, on_report=lambda *_: None, vocabulary="-abc", **wild
    ) as look:
        for step in range(3):
            # In step 1 the last one lacks a frame between two equal labels.
            lengths = np.array([12, 12, 0, 2 if step == 1 else 3], np.int32)
            status = jax_ctc.check_batch(
                logits, labels, lengths, wildcard_id=wild["wildcard_id"]
            )
            look(status, logits, labels, lengths)
    [(step, report)] = look.reports
    assert step == 1
    assert report.codes() == {"INFEASIBLE"}
    assert [row.labels for row in report.utterances] == [
        "ab *",
        "c * a",
        "* * *",
        "a * a",
    ]
    assert [row.spare_frames for row in report.utterances] == [10, 10, 0, -1]
    loss = jax_ctc.ctc_loss(logits, labels, lengths, **wild)
    found = [row.loss for row in report.utterances]
    np.testing.assert_allclose(found[:3], loss[:3], rtol=1e-6)
    for wrong in ({"wildcard_id": 1.5}, {"wildcard_log_prob": "dear"}):
        with pytest.raises(TypeError, match=f"`{next(iter(wrong))}` must be"):
            jax_ctc.watch(**(wild | wrong))
