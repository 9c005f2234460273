"""The sharded example: one training, however many processes and devices share it."""

import dataclasses
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from examples.handwriting.lines import Lines, load_split
from examples.sharded import batches, launch
from examples.sharded.checkpoints import (
    Log,
    find_other_run,
    note_run,
    read_log,
    saved_step,
)
from examples.sharded.train import Progress, train
from examples.train_sharded import Options, find_fault

SETTINGS = {"steps": 50, "seed": 0, "batch_size": 16, "checkpoint_every": 10}

# What is never broken off looks at the held-out lines once.
WHOLE = SETTINGS | {"checkpoint_every": SETTINGS["steps"]}

# Flax, Orbax and TensorStore under strict JAX are their own business.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.relaxed,
    pytest.mark.filterwarnings("default"),
]


def losses(out):
    """Return the loss of every step."""
    rows = read_log(out)
    assert [row["step"] for row in rows] == list(range(1, SETTINGS["steps"] + 1))
    return np.array([row["loss"] for row in rows])


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory):
    """The run on one device, and on four: directory and error rate of each."""
    runs = {}
    for count in (1, 4):
        out = tmp_path_factory.mktemp(f"devices{count}")
        score = train(jax.devices()[:count], out, Progress(), **WHOLE)
        runs[count] = out, score.digit_error_rate
    return runs


def test_devices_agree(in_one_process):
    """1 x 1 and 1 x 4: every loss of 50 steps within 1e-4, and it learns."""
    alone, shared = (losses(in_one_process[count][0]) for count in (1, 4))
    np.testing.assert_allclose(shared, alone, rtol=1e-4)
    assert alone[-5:].mean() < 0.6 * alone[:5].mean()


def test_without_logits(in_one_process, tmp_path):
    """The same losses on four devices, from features, kernel and bias."""
    run = WHOLE | {"loss": "linear_ctc_loss"}
    train(jax.devices()[:4], tmp_path, Progress(), **run)
    alone = in_one_process[1][0]
    np.testing.assert_allclose(losses(tmp_path), losses(alone), rtol=1e-4)


@pytest.mark.exhaustive
def test_two_processes_killed_and_resumed(in_one_process, tmp_path):
    """2 x 2: kill -9 after a checkpoint, start again; the same losses and errors."""
    run = {**SETTINGS, "out": tmp_path}
    with launch.start(2, 2, **run) as first:
        # Saving waits for the save before it: by step 20 the first one is whole.
        first.kill_after(tmp_path, saved=10, step=12)
        assert first.finish() == [-signal.SIGKILL] * 2, first.errors()
    before, saved = read_log(tmp_path), saved_step(tmp_path)
    assert 10 <= saved <= before[-1]["step"] < SETTINGS["steps"]

    with launch.start(2, 2, **run) as second:
        assert second.finish() == [0, 0], second.errors()
        out = second.output()
    assert out.startswith("2 processes, 4 devices")
    again = losses(tmp_path)
    np.testing.assert_array_equal(again[:saved], [r["loss"] for r in before[:saved]])
    alone, error_rate = in_one_process[1]
    np.testing.assert_allclose(again, losses(alone), rtol=1e-4)
    assert f"digit error rate {error_rate:.1f} %" in out.splitlines()
    # One process restores what two have written.
    restored = train(jax.devices()[:1], tmp_path, Progress(), **SETTINGS)
    assert restored.digit_error_rate == error_rate


def test_one_failure_ends_the_others(tmp_path, monkeypatch):
    """A process that refuses its options is not waited for, nor are its neighbours."""
    monkeypatch.setattr(launch, "GRACE", 0.1)
    with launch.start(2, 1, out=tmp_path, steps=0) as cluster:
        # A neighbour that would go on for ever.
        other = [sys.executable, "-c", "import time; time.sleep(600)"]
        cluster.processes[1].kill()
        cluster.processes[1].wait()
        cluster.processes[1] = subprocess.Popen(other)
        with pytest.raises(
            RuntimeError,
            match="a process ended before .* at step 3; (?s:.*)--steps must",
        ):
            cluster.kill_after(tmp_path, saved=1, step=3)
        assert cluster.finish() == [2, -signal.SIGKILL]
        assert "process 0:\n--steps must be at least 1; got 0" in cluster.errors()


def test_no_process_outlives_its_block(tmp_path):
    """Whatever goes wrong in the block."""
    with pytest.raises(KeyError), launch.start(2, 1, out=tmp_path) as cluster:
        raise KeyError
    assert [each.returncode for each in cluster.processes] == [-signal.SIGKILL] * 2


def test_a_checkpoint_counts_once_it_is_whole(tmp_path):
    """Not while Orbax still writes to a directory of another name."""
    assert saved_step(tmp_path) == 0
    for name in "5", "25", "50.orbax-checkpoint-tmp":
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert saved_step(tmp_path) == 25


def test_rows_do_not_depend_on_the_devices():
    """Line i of a step is the same on any mesh; padding lines are empty."""
    digits = load_split()[1]
    meshes = [batches.make_mesh(jax.devices()[:count]) for count in (1, 8)]
    one, eight = (
        batches.training_batch(digits, 16, mesh, seed=3, step=7) for mesh in meshes
    )
    for whole, spread in zip(one, eight, strict=True):
        np.testing.assert_array_equal(whole, spread)
        assert spread.addressable_shards[0].data.shape[0] == 2
    next_step = batches.training_batch(digits, 16, meshes[0], seed=3, step=8)
    assert (np.asarray(next_step.images) != np.asarray(one.images)).any()
    held_out = Lines(*(np.asarray(field)[:13] for field in one))
    padded = batches.held_out_batch(held_out, meshes[1])
    assert padded.widths.tolist() == [*held_out.widths.tolist(), 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1; got 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1; got 0"),
        ({"seed": -1}, "--seed must be from 0"),
        ({"process_id": 1}, "--process-id must be from 0 to 0; got 1"),
        ({"num_processes": 2}, "--num-processes above 1 needs --coordinator"),
        ({"coordinator": "here"}, "--coordinator must be HOST:PORT, PORT from 1 to"),
        ({"coordinator": "h:0"}, "or auto; got h:0"),
        ({"coordinator": "h:99999"}, "or auto; got h:99999"),
        (
            {"coordinator": "auto", "num_processes": 2, "process_id": 1},
            "--coordinator auto finds the processes itself: leave",
        ),
        ({"out": pathlib.Path("/dev/null/x")}, "--out /dev/null/x: cannot write"),
    ],
)
def test_bad_options(change, message, tmp_path):
    """One line that names the option."""
    fault = find_fault(dataclasses.replace(Options(out=tmp_path), **change))
    assert fault is not None
    assert message in fault


def test_good_options(tmp_path):
    """The defaults, a cluster that JAX knows, and one by hand."""
    options = Options(out=tmp_path)
    assert find_fault(options) is None
    assert find_fault(dataclasses.replace(options, coordinator="auto")) is None
    by_hand = {"coordinator": "10.0.0.1:9911", "num_processes": 4, "process_id": 3}
    assert find_fault(dataclasses.replace(options, **by_hand)) is None


def test_a_run_is_not_mixed_with_another(tmp_path):
    """Settings are noted beside the checkpoints; others are refused."""
    assert find_other_run(tmp_path, SETTINGS) is None
    note_run(tmp_path, SETTINGS)
    assert find_other_run(tmp_path, SETTINGS) is None
    message = find_other_run(tmp_path, SETTINGS | {"seed": 5})
    assert message is not None
    assert message.startswith(f"--seed is 5, but {tmp_path} holds a run with 0: pass")


def test_a_log_torn_by_a_kill(tmp_path):
    """What was written in the middle of a kill is forgotten, and what came after."""
    (tmp_path / "log.jsonl").write_text(
        '{"step": 1, "loss": 9.0}\n{"step": 2, "loss": 8.0}\n{"step": 3, "lo'
    )
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2]
    log = Log(tmp_path, resumed_from=1)
    log.append({"step": 2, "loss": 7.0})
    assert [row["loss"] for row in read_log(tmp_path)] == [9.0, 7.0]
