"""The benchmark measures what it says, and refuses what it cannot mean."""

import dataclasses
import json
import time

import numpy as np
import pytest

from benchmarks import (
    compare,
    contenders,
    decoding,
    exactness,
    floor,
    hlo,
    kernels,
    measure,
    memory,
    plots,
    pods,
    run,
    sweeps,
    tables,
    targets,
)
from tests import oracle
from tests.cases import named


@pytest.mark.relaxed
def test_a_record_of_one_case(tmp_path, capsys):
    """Every row has its figures, in the file, in the table and in the picture."""
    out = tmp_path / "deep" / "record.jsonl"
    options = run.Options(
        case=("one_utterance",),
        impl=("blocked", "optax"),
        mode=("value_and_grad",),
        rounds=2,
        out=out,
    )
    assert run.main(options) == 0
    blocked, optax = (json.loads(line) for line in out.read_text().splitlines())
    assert [blocked["impl"], optax["impl"]] == ["blocked", "optax"]
    assert blocked["ratio"] == 1
    assert blocked["gradient_error"] < 1e-6 < optax["gradient_error"] < 1e-2
    for row in blocked, optax:
        assert [row[size] for size in SIZES] == [1, 800, 32, 80]
        assert len(row["seconds"]) == 2
        assert min(row["seconds"]) > 0
        assert row["compile_s"] > 0
        assert row["temporaries"] > 0
        assert row["versions"]["jax"]
        assert row["cpu"]
        assert row["cores"] >= 1
    shown = capsys.readouterr().out
    assert "one_utterance" in shown
    assert f"{optax['gradient_error']:.1e}" in shown
    assert (out.parent / "record_cases.png").stat().st_size > 1000
    assert not (out.parent / "record_sweeps.png").exists()
    assert plots.plot([blocked], out) == []  # nothing to compare


SIZES = ("batch", "frames", "classes", "labels")


@pytest.fixture
def bench():
    """Return the smallest ragged batch, to be measured."""
    return measure.Bench(named("ragged"), {"case": "ragged"})


def fake(value=1.0, gradient=None, **facts):
    """Return a contender that takes no time."""
    result = (np.array(value), gradient) if gradient is not None else (np.array(value),)

    def build(batch, mode):
        return contenders.Program(lambda: result, 0.1, 0.2, 100)._replace(**facts)

    return build


def test_a_wrong_loss_is_not_timed(monkeypatch, bench):
    monkeypatch.setitem(contenders.CONTENDERS, "right", fake())
    monkeypatch.setitem(contenders.CONTENDERS, "half", fake(0.5))
    right, half = bench.measure("value", ("right", "half"), 1)
    assert half["note"] == "disagrees: not timed"
    assert "seconds" in right
    assert "seconds" not in half


def test_whoever_agreed_before_is_timed_and_says_that_it_is_off(monkeypatch, bench):
    """Or the longest inputs would lose every rival, to its float32."""
    monkeypatch.setitem(contenders.CONTENDERS, "right", fake())
    monkeypatch.setitem(contenders.CONTENDERS, "half", fake(0.5))
    _, half = bench.measure("value", ("right", "half"), 1, trusted={"half"})
    assert half["note"] == "differs by 0.5"
    assert half["seconds"]


def test_a_failure_is_a_row(monkeypatch, bench):
    def full(batch, mode):
        raise MemoryError("out of memory\nby far")

    monkeypatch.setitem(contenders.CONTENDERS, "full", full)
    monkeypatch.setitem(contenders.CONTENDERS, "right", fake())
    row, right = bench.measure("value", ("full", "right"), 1)
    assert row["note"] == "failed: MemoryError: out of memory"
    assert right["ratio"] == 1


def test_what_does_not_fit_is_not_run(monkeypatch, bench):
    """Linux would end the process, and the record with it."""

    def run_it():
        raise AssertionError("was run")

    monkeypatch.setitem(
        contenders.CONTENDERS, "huge", fake(run=run_it, needs=28_000_000_000)
    )
    monkeypatch.setattr(measure, "available", lambda: 16_000_000_000)
    [row] = bench.measure("value", ("huge",), 1)
    expected = "needs 28.0 GB of temporaries, the machine has 16.0 GB"
    assert row["note"] == expected
    assert row["temporaries"] == 100
    assert 10**8 < memory.available() < 10**14


def test_a_missing_package_is_a_row(monkeypatch, bench):
    monkeypatch.setattr(contenders, "_NEEDS", {"torch": "no_such_package"})
    [row] = bench.measure("value", ("torch",), 1)
    assert row["note"] == "skipped: no_such_package is not installed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"case": ("chars",)}, "--case 'chars' is unknown; choose from char,"),
        ({"sweep": ("t",)}, "--sweep 't' is unknown; choose from T, U, V, B"),
        ({"impl": ("jax",)}, "--impl 'jax' is unknown; choose from cpu, cuda,"),
        ({"mode": ("vjp",)}, "--mode 'vjp' is unknown; choose from value,"),
        ({"rounds": 0}, "--rounds must be at least 1; got 0"),
        ({"case": ()}, "nothing to measure: give --case or --sweep a name"),
    ],
)
def test_bad_options(change, message, capsys):
    assert run.main(dataclasses.replace(run.Options(), **change)) == 2
    assert message in capsys.readouterr().err


def test_ratio_is_taken_round_by_round():
    """A slow round slows both; the ratio must not see it."""
    assert measure.ratio([2.0, 200.0, 2.0], [1.0, 100.0, 1.0]) == 2


def test_a_slow_rival_runs_fewer_rounds(monkeypatch, bench):
    """Ours keeps all of its rounds; the ratio is over those that both ran."""
    monkeypatch.setattr(measure, "_PATIENCE", 0.05)
    result = (np.array(1.0),)

    def sleep():
        time.sleep(0.1)
        return result

    monkeypatch.setitem(contenders.CONTENDERS, "fast", fake())
    monkeypatch.setitem(contenders.CONTENDERS, "slow", fake(run=sleep))
    fast, slow = bench.measure("value", ("fast", "slow"), 3)
    assert [len(row["seconds"]) for row in (fast, slow)] == [3, 1]
    assert slow["note"] == "slow: 1 of 3 rounds"
    assert slow["ratio"] == pytest.approx(slow["seconds"][0] / fast["seconds"][0])
    assert "note" not in fast


def test_agreement_sees_loss_and_gradient():
    gradient = np.zeros((2, 3))
    assert measure.agreement((1.0, gradient), (1.0, gradient)) == 0
    assert measure.agreement((100.0, gradient), (101.0, gradient)) == pytest.approx(
        1 / 101
    )
    assert measure.agreement((1.0, gradient + 0.5), (1.0, gradient)) == 0.5


def test_the_gradients_error_is_that_of_the_sum(monkeypatch, bench):
    """The contender's loss is a mean: its gradient is four times too small."""
    off = bench.truth / 4
    off[1, 2, 3] += 0.01
    monkeypatch.setitem(contenders.CONTENDERS, "off", fake(gradient=off))
    [row] = bench.measure("value_and_grad", ("off",), 1)
    assert row["gradient_error"] == pytest.approx(0.04)


@pytest.mark.relaxed
@pytest.mark.filterwarnings("ignore")  # of other people's imports
@pytest.mark.parametrize("case", ["ragged", "blank_middle"])
@pytest.mark.parametrize("name", [*contenders._NEEDS, "optax"])
def test_rivals_are_called_rightly(name, case):
    """Ragged lengths, repeats and every place of the blank mean the same to them."""
    if contenders.missing(name):
        pytest.skip(contenders.missing(name))
    batch = named(case).make()
    losses, gradient = oracle.batch_loss_and_gradient(*batch)
    program = contenders.CONTENDERS[name](batch, "value_and_grad")
    expected = losses.mean(), gradient / len(losses)
    assert measure.agreement(program.fetch(program.run()), expected) < 1e-6


def test_sweeps_double_one_size():
    for letter, sweep in sweeps.SWEEPS.items():
        cases = sweep.cases()
        sizes = [getattr(case, sweep.size) for case in cases]
        assert sizes == [sweep.first * 2**n for n in range(len(sizes))]
        assert sizes[-1] == sweep.last
        assert cases[0].name == f"{letter}={sweep.first}"
        for case in cases:
            assert {k: getattr(case, k) for k in sweep.others} == sweep.others


@pytest.mark.parametrize("letter", ["T", "U"])
def test_sweeps_have_frames_enough(letter):
    """The shortest of T, and the most labels of U: all others have more room."""
    sweep = sweeps.SWEEPS[letter]
    batch = sweep.cases()[0 if letter == "T" else -1].make()
    repeats = (batch.labels[:, 1:] == batch.labels[:, :-1]).sum(1)
    assert ((batch.label_lengths + repeats) <= batch.logit_lengths).all()


@pytest.mark.relaxed
def test_a_sweep_is_measured(monkeypatch, tmp_path):
    """Each point has its sizes, and a contender that would not run has a cross."""
    sweep = sweeps.Sweep("B", "batch", 1, 2, {"frames": 9, "classes": 5, "labels": 2})
    monkeypatch.setitem(sweeps.SWEEPS, "B", sweep)
    monkeypatch.setitem(contenders.CONTENDERS, "optax", fake(needs=10**15))
    out = tmp_path / "record.jsonl"
    options = run.Options(case=(), sweep=("B",), impl=("scan", "optax"), out=out)
    assert run.main(options) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["case"], row["batch"], row["impl"]) for row in rows] == [
        *(("B=1", 1, "scan"), ("B=1", 1, "optax")),
        *(("B=2", 2, "scan"), ("B=2", 2, "optax")),
    ]
    assert [len(row.get("seconds", "")) for row in rows] == [3, 0, 3, 0]
    assert "needs 1000000.0 GB" in rows[1]["note"]
    [axes, below] = plots.draw_sweeps(rows).axes
    assert axes.get_legend_handles_labels()[1] == ["scan", "did not run"]
    assert below.get_xlabel() == "utterances B"


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
    assert "--impl 'torch' is unknown; choose from cpu," in capsys.readouterr().err


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


def test_floor_reads_and_writes_what_the_loss_does(capsys):
    """Its gradient is the softmax over what the mean counts."""
    batch = named("plain").make()
    mean, gradient = floor.floor(batch).run()
    total = np.exp(batch.logits).sum(-1)
    np.testing.assert_allclose(mean, np.log(total).mean(), rtol=1e-6)
    np.testing.assert_allclose(
        gradient, np.exp(batch.logits) / total[..., None] / total.size, rtol=1e-5
    )
    assert floor.main(floor.Options(case=("chars",))) == 2
    assert "--case 'chars' is unknown; choose from char," in capsys.readouterr().err


def test_the_parts_of_exactness_are_the_losses(capsys):
    """Its sums are those of the lattice, and its careless ones are the old."""
    programs = exactness.programs("plain")
    alpha, old = (programs[part].run() for part in ("sums", "careless sums"))
    for row, before in zip(alpha, old, strict=True):
        assert before.lost is None
        np.testing.assert_array_equal(row.exponent, before.exponent)
        exact = row.significand + row.lost
        np.testing.assert_allclose(exact, before.significand, rtol=1e-5)
    here, (peak, total) = (
        programs[part].run() for part in ("normaliser", "careless normaliser")
    )
    np.testing.assert_array_equal(here.peak, peak)
    np.testing.assert_allclose(1 + here.rest, total, rtol=1e-6)
    assert exactness.main(floor.Options(case=("ocr",), rounds=1)) == 0
    assert "ocr" in capsys.readouterr().out
    assert exactness.main(floor.Options(case=("chars",))) == 2
    assert "--case 'chars' is unknown; choose from char," in capsys.readouterr().err


def test_compare_takes_the_least_of_all_turns(capsys):
    """And names a commit that is not there."""

    def turn(*seconds):
        row = {"seconds": seconds, "temporaries": 2e6, "compile_s": 1.0}
        return {("char", "value"): row}

    shown = compare.table([turn(0.4, 0.2), turn(0.3, 0.5)], [turn(0.1), turn(0.2)])
    cells = [list(column.cells) for column in shown.columns]
    assert cells[2:5] == [["200.00 (275.00)"], ["100.00 (125.00)"], ["0.50"]]
    assert compare.main(compare.Options("no-such-commit")) == 2
    assert "no commit 'no-such-commit'" in capsys.readouterr().err


def test_a_search_is_held_against_the_fastest_peer():
    """And its log_prob against the same search without."""

    def row(impl, classes, seconds, has_model=False):
        sizes = {"classes": classes, "width": 16, "has_model": has_model}
        return {"impl": impl, "seconds": seconds} | sizes

    rows = [
        *(row("jax_ctc", 32, 1.0), row("jax_ctc", 1024, 2.0)),
        *(row("jax_ctc, without log_prob", 32, 0.8), row("TensorFlow", 32, 9.0)),
        *(row("flashlight-text", 32, 4.0), row("flashlight-text", 1024, 18.0)),
        row("flashlight-text", 32, 3.0, has_model=True),
        {"impl": "Keras on JAX", "has_model": False, "note": "not run"}
        | {"classes": 32, "width": 16},
    ]
    peers, log_prob = decoding.summary(rows).splitlines()
    assert "6.0 times our time in the geometric mean" in peers
    assert "4.0 times at least" in peers
    assert log_prob.endswith(": 25% at V, W = [32, 16]")


def test_the_first_run_of_a_turn_does_not_count(monkeypatch):
    """A processor that has waited is asleep."""
    runs, clock = [], iter([10.0, 11.5])
    monkeypatch.setattr(measure.time, "sleep", lambda _: runs.append("pause"))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(measure.jax, "default_backend", lambda: "cpu")
    program = contenders.Program(lambda: runs.append("run"), 0.1, 0.2, 100)
    assert measure.turn(program) == 1.5
    assert runs == ["pause", "run", "run"]


def test_cold_runs(monkeypatch, tmp_path):
    """The first run after a pause is what is timed, on a GPU too; rows say so."""
    runs = []
    program = contenders.Program(lambda: runs.append("run") or 1.0, 0.1, 0.2, 100)
    monkeypatch.setattr(measure.time, "sleep", lambda _: runs.append("pause"))
    monkeypatch.setattr(measure.jax, "default_backend", lambda: "gpu")
    monkeypatch.setitem(measure.CONTENDERS, "optax", lambda *_: program)
    options = run.Options(
        case=("one_utterance",), mode=("value",), impl=("optax",), rounds=1, cold=True
    )
    [[row]] = run.measure(options, print)
    assert row["cold"]
    assert len(row["seconds"]) == 1
    assert runs == ["run", *["pause", "run"] * 2]  # to agree, for warmth, and timed
    assert run.table([row]).title == "the first run after a pause"
    (tmp_path / "cold.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="of cold runs"):
        tables.read(tmp_path / "cold.jsonl")
    both = dataclasses.replace(options, sweep=("T",))
    assert "--cold is for cases" in run.find_fault(both)
