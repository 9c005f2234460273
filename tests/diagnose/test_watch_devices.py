"""The watch beside sharded steps, `pmap`, several processes; and how it ends."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jax_ctc
from examples.sharded.launch import reserved_port
from jax_ctc._diagnose.worker import Worker
from tests.interrupts import interrupts_heeded

ROOT = pathlib.Path(__file__).parents[2]
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(8, 6, 4)).astype(np.float32)
LABELS = RNG.integers(1, 4, (8, 2)).astype(np.int32)
LABELS[5, 1] = 9


def watched(step, *arrays, steps=4):
    """Watch some steps; return the utterances that each report names."""
    with jax_ctc.watch(every=2, on_report=lambda *_: None) as look:
        for _ in range(steps):
            status, *rest = step(*arrays)
            look(status, *(rest or arrays))
    assert look.num_flagged == steps // 2
    for _, report in look.reports:
        assert report.codes() == {"LABEL_OUT_OF_RANGE"}
    return [report.findings[0].utterances for _, report in look.reports]


def status_of(*arrays):
    """Return the status alone, as a training step does among other things."""
    return jax_ctc.ctc_loss_with_status(*arrays)[1:]


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("where", [P("data"), P("model"), P(("data", "model")), P()])
def test_a_batch_on_eight_devices(kind, where):
    """Sharded over all of them, over some, or the same on all."""
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind,) * 2)
    placed = jax.device_put((LOGITS, LABELS), NamedSharding(mesh, where))
    assert watched(jax.jit(status_of), *placed) == [(5,), (5,)]


def test_two_leading_axes_on_eight_devices():
    """Which no reshape of an Explicit mesh would take."""
    mesh = jax.make_mesh((2, 4), ("data", "model"))
    shape = NamedSharding(mesh, P("data", "model"))
    status = jnp.zeros((2, 4), jnp.int32).at[1, 1].set(2)
    with jax_ctc.watch(every=1, on_report=lambda *_: None) as look:
        look(
            jax.device_put(status, shape),
            LOGITS.reshape(2, 4, 6, 4),
            LABELS.reshape(2, 4, 2),
        )
    assert look.reports[0][1].findings[0].utterances == (5,)


def test_pmap():
    own = (LOGITS.reshape(4, 2, 6, 4), LABELS.reshape(4, 2, 2))
    assert watched(jax.pmap(status_of), *own) == [(5,), (5,)]
    step = jax.pmap(lambda *batch: (*status_of(*batch), *batch))
    assert watched(step, *own) == [(5,), (5,)]


def test_shard_map():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    step = jax.jit(
        jax.shard_map(status_of, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    )
    assert watched(step, LOGITS, LABELS) == [(5,), (5,)]


def test_steps_on_different_devices():
    """Pipelines and round robins: each step's status lies elsewhere."""
    step = jax.jit(status_of)
    with jax_ctc.watch(every=4, on_report=lambda *_: None) as look:
        for device in jax.devices()[:4]:
            batch = jax.device_put((LOGITS, LABELS), device)
            look(*step(*batch), *batch)
    assert look.num_flagged == 1
    assert [number for number, _ in look.reports] == [0]


def test_nothing_is_compiled_for_a_status():
    """A status of a new shape and place is copied as it lies: no program is made."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    status = jax.device_put(np.zeros(16, np.int32), NamedSharding(mesh, P("data")))
    compiled = []
    listen = lambda event, *_, **__: compiled.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        look = jax_ctc.watch()
        look(status, LOGITS, LABELS)
        look.close()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in compiled if "compile" in event]


PROCESS = """
import sys, jax, jax.numpy as jnp, numpy as np, jax_ctc
from jax.sharding import NamedSharding, PartitionSpec as P
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
rng = np.random.default_rng(0)
logits = rng.normal(size=(8, 8, 4)).astype(np.float32)
labels = rng.integers(1, 4, (8, 2)).astype(np.int32)
labels[[1, 5, 6], 1] = 9

def run(name, status, *batch):
    with jax_ctc.watch(every=1, on_report=lambda *_: None) as look:
        for _ in range(2):
            look(status, *batch)
    found = [[r.passed["B"], r.findings[0].utterances] for _, r in look.reports]
    print(kind, name, jax.process_index(), found, look.num_flagged, flush=True)

for kind in ("Auto", "Explicit"):
    kinds = (getattr(jax.sharding.AxisType, kind),) * 2
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=kinds)

    def place(array, spec):
        sharding = NamedSharding(mesh, spec)
        return jax.make_array_from_callback(array.shape, sharding, lambda i: array[i])

    own = [place(logits, P("data")), place(labels, P("data"))]
    whole = place(labels, P())
    status = jax.jit(lambda *batch: jax_ctc.check_batch(*batch))(*own)
    run("own", status, *own)
    run("replicated labels", status, own[0], whole)
    host = np.where(labels == 9, 2, 0).max(1).astype(np.int32)
    run("replicated status", place(host, P()), own[0], labels)
    clean = np.where(np.arange(8) < 4, host, 0)
    run("one process", place(clean, P()), *own)
    split = place(logits, P("data", None, "model"))
    run("classes of one process", status, split, own[1])
    if jax.process_index() == 0:
        run("only one looks", status, *own)
    across = place(logits, P(None, "data"))
    try:
        run("frames", status, across, whole)
    except ValueError as error:
        print(kind, "frames", jax.process_index(), error, flush=True)
"""


@pytest.mark.slow
def test_two_processes():
    """Each looks at its own four utterances; none waits for the other."""
    with reserved_port() as port:
        address = f"127.0.0.1:{port}"
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COORDINATOR_BIND_ADDRESS": address,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        }
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, address, str(number)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
        try:
            printed = [process.communicate(timeout=300) for process in processes]
        finally:
            for process in processes:
                process.kill()
    lines = [line for out, _ in printed for line in out.splitlines()]
    errors = [error for _, error in printed]
    first, second = [[4, (1,)]] * 2, [[4, (1, 2)]] * 2
    spread = "an utterance is spread over several processes"
    for kind in ("Auto", "Explicit"):
        for name in (
            "own",
            "replicated labels",
            "replicated status",
            "classes of one process",
        ):
            assert f"{kind} {name} 0 {first} 2" in lines, errors
            assert f"{kind} {name} 1 {second} 2" in lines, errors
        assert f"{kind} one process 0 {first} 2" in lines
        assert f"{kind} one process 1 [] 0" in lines
        assert f"{kind} only one looks 0 {first} 2" in lines
        frames = [line for line in lines if line.startswith(f"{kind} frames")]
        assert len(frames) == 2
        assert all(spread in line for line in frames)


INTERRUPTED = """
import sys, time
import jax.numpy as jnp, numpy as np
import jax_ctc
from jax_ctc._diagnose import watch as watching

def slow(*_, **__):
    print("DIAGNOSING", flush=True)
    time.sleep(float(sys.argv[2]))
    return jax_ctc.Report((), (), {})

watching.diagnose = slow
logits, labels, status = jnp.zeros((1, 3, 4)), jnp.ones((1, 1), int), jnp.ones(1, int)

def train(look):
    while True:
        look(status, logits, labels)
        time.sleep(0.01)

def start():
    return jax_ctc.watch(every=1, most_reports=1)

kind = sys.argv[1]
if kind == "with":
    with start() as look:
        train(look)
elif kind == "bare":
    train(start())
elif kind == "closing":
    with start() as look:
        look(status, logits, labels)
elif kind == "error":
    with start() as look:
        look(status, logits, labels)
        time.sleep(1)
        raise LookupError("of the loop")
elif kind == "forgotten":
    look = start()
    look(status, logits, labels)
    while not look._asked:
        look(status, logits, labels)
"""


def launch(kind, seconds):
    """Start a program that is diagnosing for so many seconds."""
    with interrupts_heeded():
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, kind, str(seconds)],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONFAULTHANDLER": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    while process.stdout.readline() != "DIAGNOSING\n":
        assert process.poll() is None, process.stderr.read()
    return process


def test_no_wait_is_longer_than_a_step(monkeypatch):
    """A signal that comes as a wait begins is seen when it is over."""
    asked, join, job_is_over = [], threading.Thread.join, threading.Event()

    def spy(thread, timeout=None):
        asked.append(timeout)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", spy)
    worker = Worker()
    worker.submit(lambda: job_is_over.wait(0.4))
    worker.finish()
    assert len(asked) > 1
    assert all(timeout is not None and timeout < 1 for timeout in asked)


@pytest.mark.parametrize("kind", ["with", "bare", "closing"])
def test_ctrl_c_does_not_wait_for_a_diagnosis(kind):
    """Gone at once, as any program that Ctrl-C ends, and nothing is printed later."""
    process = launch(kind, 300)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    print(f"ended {time.monotonic() - start:.1f} s after SIGINT")
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "step" not in errors
    assert "FATAL" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["error", "forgotten"])
def test_other_ends_wait_for_the_report(kind):
    """It may say why; and a forgotten `close` costs no report either."""
    process = launch(kind, 2)
    _, errors = process.communicate(timeout=200)
    assert "nothing to report" in errors
    assert ("LookupError: of the loop" in errors) == (kind == "error")
    assert process.returncode == (kind == "error")
