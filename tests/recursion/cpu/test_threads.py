"""Threads: of callers, of XLA, of devices; few, and busy; and memory that runs out."""

import functools
import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.usefixtures("kernel")

# Each part prints a digest of all bits of all results.
START = """
import concurrent.futures, hashlib, json
import jax, jax.numpy as jnp, numpy as np
from jax_ctc._recursion import cpu
from jax_ctc._lattice.problem import Problem

def problem(seed, size, frames=400, classes=11, labels=40):
    rng = np.random.default_rng(seed)
    return Problem(*map(jnp.asarray, (
        rng.normal(size=(size, frames, classes)).astype(np.float32),
        rng.integers(0, classes, (size, labels + 1)).astype(np.int32),
        rng.integers(0, 2, (size, labels)).astype(bool),
        rng.integers(0, labels + 1, size).astype(np.int32),
        rng.integers(300, frames + 1, size).astype(np.int32),
    )))

def run(problem):
    return cpu.forward_backward(problem, normalise=True)

def digest(*results):
    bits = b"".join(np.asarray(x).tobytes() for r in results for x in r)
    print(json.dumps(hashlib.sha256(bits).hexdigest()))

problems = [problem(seed, size) for seed, size in enumerate((1, 2, 3, 8, 1, 5, 16, 2))]
"""
ONE_BY_ONE = """
digest(*map(jax.jit(run), problems))
"""
EIGHT_CALLERS = """
jitted = jax.jit(run)
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for _ in range(10):
        results = list(pool.map(jitted, problems))
digest(*results)
"""
ONE_PROGRAM = """
# Nothing orders the eight calls: XLA may run them at the same time.
digest(*jax.jit(lambda all: [run(each) for each in all])(problems))
"""
# Eight devices share the threads, and each waits in a call of its own.
EIGHT_DEVICES = """
many = [problem(seed, 3) for seed in range(8)]
for _ in range(3):
    alone = [jax.jit(run)(each) for each in many]
    together = jax.pmap(run)(jax.tree.map(lambda *x: jnp.stack(x), *many))
    for d, (log_z, gradient) in enumerate(alone):
        np.testing.assert_array_equal(together[0][d], log_z)
        np.testing.assert_array_equal(together[1][d], gradient)
print(json.dumps("same"))
"""
# Rows of a thousand frames and 200,000 labels: 8 GB, of which there are 2.
NO_MEMORY = """
import resource
large = problem(0, 1, frames=2**20, classes=2, labels=200_000)
large = large._replace(logit_lengths=jnp.array([2**20], jnp.int32),
                       num_labels=jnp.array([200_000], jnp.int32))
compiled = jax.jit(run).lower(large).compile()
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 2**30,) * 2)
try:
    jax.block_until_ready(compiled(large))
except jax.errors.JaxRuntimeError as error:
    print(json.dumps(str(error)))
"""


def outputs_of(program, *prefix, devices=1, seconds=240):
    """Run a program in a process of its own; what hangs is ended and fails."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    run = subprocess.run(
        [*prefix, sys.executable, "-c", START + program],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


@functools.cache
def on_all_cores():
    """The bits of the eight problems: one after the other, then at the same time."""
    return outputs_of(ONE_BY_ONE + EIGHT_CALLERS + ONE_PROGRAM)


def test_at_the_same_time():
    """Eight callers, and eight calls of one program: the same bits; no deadlock."""
    alone, callers, program = on_all_cores()
    assert callers == alone
    assert program == alone


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("taskset"), reason="there is no taskset here")
def test_at_the_same_time_on_one_core():
    """Whose pool has one thread: the bits that all cores find."""
    one = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]
    assert outputs_of(EIGHT_CALLERS + ONE_PROGRAM, *one) == on_all_cores()[1:]


@pytest.mark.slow
def test_on_eight_devices():
    """Inside `pmap`, on devices that share one machine."""
    assert outputs_of(EIGHT_DEVICES, devices=8) == ["same"]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS")
def test_memory_that_runs_out_is_an_error():
    """And not the end of the process."""
    [message] = outputs_of(NO_MEMORY)
    assert "RESOURCE_EXHAUSTED" in message
    assert "out of memory for the lattices of 1 utterances" in message
