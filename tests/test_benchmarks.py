"""The benchmark measures what it says, and refuses what it cannot mean."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import contenders, hlo, kernels, measure, pods, run, targets
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
    """Names, sizes of every result, and bytes; operands beside results left out."""
    text = """
      %a = (f32[2,13]{1,0}, f32[2,13,5]{2,1,0}) all-reduce(%x, %y), to_apply=%add
      %b = (s8[4,8]{1,0:T(8,128)}, s8[4,8]{1,0}, u32[]) collective-permute-start(%z)
      %c = pred[3]{0} all-gather(%p), dimensions={0}
      %d = f32[] add(%q, %r)
      %e = ((f32[2,3], s32[4]), (f32[16,3], /*index=1*/s32[32])) all-gather-start(%p)
      %f = (f32[16,3], s32[32]) all-gather-done(%e)
    """
    assert hlo.collectives(text) == [
        hlo.Collective("all-reduce", (26, 130), 624),
        hlo.Collective("collective-permute", (32,), 32),
        hlo.Collective("all-gather", (3,), 3),
        hlo.Collective("all-gather", (48, 32), 320),
    ]


LAUNCHES = """
%turns (p: (s32[], f32[8])) -> pred[] {
  %bound = s32[] constant(5)
  %counter = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%counter, %bound), direction=LT
}

%inside (p: f32[8]) -> f32[8] {
  %broadcast.9 = f32[8] broadcast(%c), dimensions={}
  ROOT %pad.9 = f32[8] pad(%p, %c), padding=0_0
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.1 = (f32[8], s32[8]) fusion(%p), kind=kLoop, calls=%inside, backend_config={"estimated_cycles":"1928"}
  %copy.2 = f32[8] copy(%q)
  %tuple.3 = (s32[], f32[8]) tuple(%i, %copy.2)
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%turns, body=%body
  %scatter.4 = f32[8] scatter(%q, %r, %s), to_apply=%inside
}
"""  # noqa: E501


def test_launches_are_counted_as_often_as_their_loop_turns():
    """A fusion is one, and what is inside of it none."""
    assert hlo.launches(LAUNCHES) == [
        hlo.Launch("scatter.4", 1, 0),
        hlo.Launch("fusion.1", 5, 1928),
        hlo.Launch("copy.2", 5, 0),
    ]
    with pytest.raises(ValueError, match="how often does the loop of .*fusion.1"):
        hlo.launches(LAUNCHES.replace("constant(5)", "parameter(0)"))


def test_kernels_refuses_what_it_cannot_compile(monkeypatch, capsys):
    monkeypatch.setitem(targets._NEEDS, "cuda", ("no_such_package",))
    assert kernels.main(kernels.Options(target=("H100 x 1",))) == 2
    assert "no_such_package is not installed: make aot" in capsys.readouterr().err
    assert kernels.main(kernels.Options(impl=("torch",))) == 2
    assert "--impl 'torch' is unknown; choose from blocked," in capsys.readouterr().err


PROGRAM = """
%below (p: (s32[], f32[8])) -> pred[] {
  %bound = s32[]{:T(128)} constant(5)
  %counter = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%counter, %bound), direction=LT
}

%unknown (p: (s32[], f32[8])) -> pred[] {
  ROOT %go = pred[] get-tuple-element(%p), index=1
}

%sent (p: f32[8]) -> f32[8] {
  ROOT %r = f32[8] all-reduce(%p), to_apply=%add
}

%inner (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %s = ((f32[8]), f32[8]) async-start(%p), calls=%sent
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = (f32[1], f32[8]) all-gather-start(%p)
  %w = (s32[], f32[8]) while(%t), condition=%below, body=%inner
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%CONDITION, body=%outer SAID
  %m = f32[] all-reduce(%q), to_apply=%add
}
"""


@pytest.mark.parametrize(
    ("condition", "said", "turns"),
    [
        ("unknown", """, backend_config={"known_trip_count":{"n":"3"}}""", 3),
        ("below", "", 5),
        ("unknown", "", None),
    ],
)
def test_collectives_in_loops_count_as_often_as_they_turn(condition, said, turns):
    """The compiler's word, else the bound of the counter, else a lower bound."""
    text = PROGRAM.replace("CONDITION", condition).replace(" SAID", said)
    found = hlo.collectives(text)
    assert sorted(found, key=str) == sorted(
        [
            hlo.Collective("all-gather", (8,), 32, turns),
            hlo.Collective("all-reduce", (8,), 32, turns and 5 * turns),
            hlo.Collective("all-reduce", (1,), 4, 1),
        ],
        key=str,
    )
    total = 32 * turns + 32 * 5 * turns + 4 if turns else 68
    assert hlo.bytes_sent(found) == (total, turns is not None)
