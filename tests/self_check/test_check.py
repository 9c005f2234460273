"""The check of a machine: that it passes here, and that it would see a fault."""

import dataclasses
import json

import numpy as np
import pytest

import jax_ctc
from jax_ctc.__main__ import main
from jax_ctc._self_check import batches, command, float64, report, rivals, run, where
from tests.oracle import loss_and_gradient


@pytest.fixture(scope="module")
def best():
    """What a batch gets here unasked."""
    [record] = [i for i in jax_ctc.implementations() if i.is_default]
    return record


@pytest.fixture
def quick(monkeypatch, best):
    """One implementation, no rivals, one round."""
    monkeypatch.setattr(run, "implementations", lambda: (best,))
    monkeypatch.setattr(run, "RIVALS", {})
    monkeypatch.setattr(run, "_ROUNDS", 1)


def test_it_passes_here(quick, best):
    """Values, zeros, bits and statuses; and it is timed."""
    said = []
    found = run.check(lambda text, share: said.append((text, share)))
    [checked] = found.checked
    assert not checked.faults
    assert found.is_fine
    assert len(checked.comparisons) == 9
    assert checked.milliseconds > 0
    assert f"{best.name} agrees with float64" in found.verdict
    assert f"ctc_loss takes {best.name} here" in found.verdict
    assert "JAX_CTC_IMPLEMENTATION=NAME" in found.verdict
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def spoil(result, fault):
    """Return what an implementation with a fault would."""
    loss, gradient, status = (np.array(x) for x in result)
    if fault == "loss off":
        loss[0] += 0.1
    elif fault == "gradient off":
        gradient[0, 1, 2] += 1e-3
    elif fault == "a dead utterance has a gradient":
        gradient[2, 0, 0] = 1e-6
    elif fault == "utterance 3 is called":
        status[3] = 0
    elif fault == "bits differ":
        gradient[0, 0, 0] += np.float32(np.random.default_rng().normal()) * 1e-6
    return loss, gradient, status


@pytest.mark.parametrize(
    "fault",
    [
        "loss off",
        "gradient off",
        "a dead utterance has a gradient",
        "utterance 3 is called",
        "bits differ",
    ],
)
def test_faults_are_seen(monkeypatch, best, fault):
    """Each kind, and the verdict says which implementation to do without."""
    honest = run._score
    monkeypatch.setattr(run, "_score", lambda *a: spoil(honest(*a), fault))
    batch = batches.small_batches()[-1]
    comparison = run._compare(best, batch, *run._exact(batch))
    assert any(text.startswith(fault) for text in comparison.faults)
    checked = report.Checked(best.name, is_default=True, comparisons=(comparison,))
    found = report.Report({}, (checked,))
    assert not found.is_fine
    assert f"{best.name} IS WRONG HERE (dead utterances: {fault}" in found.verdict
    assert "agree" not in found.verdict


def test_the_oracle_is_that_of_the_tests():
    """Two recursions in float64 that share nothing."""
    for batch in batches.small_batches()[:-1]:
        logits, labels, frames, counts = (x[0] for x in batch.arrays)
        ours = float64.loss_and_gradient(logits[:frames], labels[:counts], 0)
        loss, gradient = loss_and_gradient(logits[:frames], labels[:counts], 0)
        np.testing.assert_allclose(ours[0], loss, rtol=1e-12)
        np.testing.assert_allclose(ours[1], gradient, atol=1e-10)


@pytest.mark.relaxed
@pytest.mark.parametrize("name", rivals.RIVALS)
def test_rivals_compute_the_same(name):
    """Else their times would mean nothing."""
    batch = batches.small_batches()[0]
    try:
        rival = rivals.RIVALS[name](batch)
    except ImportError as reason:
        pytest.skip(str(reason))
    _, gradient = rival()
    np.testing.assert_allclose(np.asarray(gradient), run._exact(batch)[1], atol=1e-4)


@pytest.fixture
def found():
    """A report with a kernel that declines, one that is wrong, and a rival."""
    good = report.Comparison("ragged", 0.5, 1e-7, ())
    bad = report.Comparison("huge logits", 9.0, 0.3, ("gradient off by 3.0e-01",))
    return report.Report(
        {"device": "1 x test"},
        (
            report.Checked("gone", declines="it is elsewhere"),
            report.Checked("wrong", is_default=True, comparisons=(good, bad)),
            report.Checked("right", comparisons=(good,), seconds=(0.2, 0.1)),
            report.Checked("rival", is_rival=True, seconds=(0.3,), compile_s=2.0),
        ),
    )


def test_command(monkeypatch, capsys, found):
    """A table or JSON, and an exit code."""
    monkeypatch.setattr(command, "check", lambda say: found)
    assert main(["check"]) == 1
    text = capsys.readouterr().out
    for words in (
        "it is elsewhere",
        "gradient off by 3.0e-01",
        "100.00",
        "the default",
    ):
        assert words in text
    assert "JAX_CTC_IMPLEMENTATION=right" in " ".join(text.split())
    assert main(["check", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["is_fine"] is False
    assert record["where"] == {"device": "1 x test"}
    assert [one["name"] for one in record["checked"]][-1] == "rival"
    good = dataclasses.replace(found, checked=found.checked[2:])
    monkeypatch.setattr(command, "check", lambda say: good)
    assert main(["check"]) == 0
    assert "right had never run on such a device" in str(good)


def test_where_it_runs(monkeypatch):
    """Versions, device, and what the environment asks for."""
    monkeypatch.setenv("JAX_CTC_IMPLEMENTATION", "scan")
    facts = where.where()
    assert "(cpu)" in facts["device"]
    assert "jaxlib " in facts["versions"]
    assert facts["JAX_CTC_IMPLEMENTATION"] == "scan"
