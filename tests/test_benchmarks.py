"""The benchmark measures what it says, and refuses what it cannot mean."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import contenders, measure, pods, run, targets
from tests import hlo
from tests.cases import named


@pytest.mark.relaxed
def test_a_record_of_one_case(tmp_path, capsys):
    """Every row has its figures, in the file and in the table."""
    out = tmp_path / "deep" / "record.jsonl"
    options = run.Options(
        case=("one_utterance",),
        impl=("blocked", "optax"),
        mode=("value",),
        rounds=2,
        out=out,
    )
    assert run.main(options) == 0
    blocked, optax = (json.loads(line) for line in out.read_text().splitlines())
    assert [blocked["impl"], optax["impl"]] == ["blocked", "optax"]
    assert blocked["ratio"] == 1
    assert optax["difference"] < 1e-5
    for row in blocked, optax:
        assert len(row["seconds"]) == 2
        assert min(row["seconds"]) > 0
        assert row["compile_s"] > 0
        assert row["temporaries"] > 0
        assert row["versions"]["jax"]
    assert "one_utterance" in capsys.readouterr().out


def test_a_wrong_loss_is_not_timed(monkeypatch, tmp_path):
    def half(batch, mode):
        good = contenders.CONTENDERS["blocked"](batch, mode)
        return good._replace(run=lambda: good.run() / 2)

    monkeypatch.setitem(run.CONTENDERS, "half", half)
    options = run.Options(impl=("blocked", "half"), rounds=1)
    _, row = run.measure("one_utterance", "value", options)
    assert row["note"] == "disagrees: not timed"
    assert "seconds" not in row


def test_a_failure_is_a_row(monkeypatch):
    def full(batch, mode):
        raise MemoryError("out of memory\nby far")

    monkeypatch.setitem(run.CONTENDERS, "full", full)
    [row] = run.measure("one_utterance", "value", run.Options(impl=("full",)))
    assert row["note"] == "failed: out of memory"


def test_a_missing_package_is_a_row(monkeypatch):
    monkeypatch.setattr(contenders, "_NEEDS", {"torch": "no_such_package"})
    [row] = run.measure("one_utterance", "value", run.Options(impl=("torch",)))
    assert row["note"] == "skipped: no_such_package is not installed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"case": ("chars",)}, "--case 'chars' is unknown; choose from char,"),
        ({"impl": ("jax",)}, "--impl 'jax' is unknown; choose from blocked, scan,"),
        ({"mode": ("vjp",)}, "--mode 'vjp' is unknown; choose from value,"),
        ({"rounds": 0}, "--rounds must be at least 1; got 0"),
    ],
)
def test_bad_options(change, message, capsys):
    assert run.main(dataclasses.replace(run.Options(), **change)) == 2
    assert message in capsys.readouterr().err


def test_ratio_is_taken_round_by_round():
    """A slow round slows both; the ratio must not see it."""
    assert run.ratio([2.0, 200.0, 2.0], [1.0, 100.0, 1.0]) == 2


def test_agreement_sees_loss_and_gradient():
    gradient = np.zeros((2, 3))
    assert measure.agreement((1.0, gradient), (1.0, gradient)) == 0
    assert measure.agreement((100.0, gradient), (101.0, gradient)) == pytest.approx(
        1 / 101
    )
    assert measure.agreement((1.0, gradient + 0.5), (1.0, gradient)) == 0.5


@pytest.mark.relaxed
@pytest.mark.skipif(contenders.missing("torch") is not None, reason="needs torch")
def test_torch_agrees():
    """In double; in single precision torch itself is off by 1e-3 at this length."""
    batch = named("one_utterance").make()
    double = batch._replace(logits=batch.logits.astype(np.float64))
    blocked = contenders.CONTENDERS["blocked"](batch, "value_and_grad")
    torch = contenders.CONTENDERS["torch"](double, "value_and_grad")
    assert measure.agreement(torch.run(), blocked.run()) < 1e-5


def test_pods_refuses_what_it_cannot_compile(monkeypatch, capsys):
    """A target that nobody knows, or whose compiler is not here, is one clear line."""
    assert pods.main(pods.Options(target=("v9 x 8",))) == 2
    assert (
        "--target 'v9 x 8' is unknown; choose from v5e x 8," in capsys.readouterr().err
    )
    monkeypatch.setitem(targets._NEEDS, "tpu", ("no_such_package",))
    assert pods.main(pods.Options(target=("v5e x 8",))) == 2
    assert "no_such_package is not installed: make aot" in capsys.readouterr().err


def test_collectives_are_read_from_a_program():
    """Names, sizes of every array, and bytes; an operand beside its result once."""
    text = """
      %a = (f32[2,13]{1,0}, f32[2,13,5]{2,1,0}) all-reduce(%x, %y), to_apply=%add
      %b = (bf16[4,8]{1,0}, bf16[4,8]{1,0}) collective-permute-start(%z)
      %c = pred[3]{0} all-gather(%p), dimensions={0}
      %d = f32[] add(%q, %r)
    """
    assert hlo.collectives(text) == [
        hlo.Collective("all-reduce", (26, 130), 624),
        hlo.Collective("collective-permute", (32, 32), 64),
        hlo.Collective("all-gather", (3,), 3),
    ]
