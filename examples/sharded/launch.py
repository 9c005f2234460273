"""A cluster on one machine: processes with fake CPU devices, joined by gloo."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from examples.sharded.checkpoints import read_log

ROOT = Path(__file__).parents[2]


def start(
    num_processes: int, devices_each: int, **options: Any
) -> list[subprocess.Popen]:
    """Starts `examples.train_sharded` in every process of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices_each}",
    }
    options |= {"coordinator": f"127.0.0.1:{port}", "num_processes": num_processes}
    command = [sys.executable, "-m", "examples.train_sharded"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return [
        subprocess.Popen(
            [*command, "--process-id", str(number)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(num_processes)
    ]


def finish(processes: list[subprocess.Popen]) -> tuple[list[int], str, str]:
    """Waits for all; returns exit codes, and output and errors of process 0."""
    texts = [process.communicate(timeout=600) for process in processes]
    return [process.returncode for process in processes], *texts[0]


def kill_after(
    processes: list[subprocess.Popen], out: Path, saved: int, step: int
) -> None:
    """Sends SIGKILL to all once checkpoint `saved` is there and `step` is logged."""
    deadline = time.monotonic() + 300
    checkpoint = out / "checkpoints" / str(saved)
    while time.monotonic() < deadline:
        rows = read_log(out)
        if checkpoint.exists() and rows and rows[-1]["step"] >= step:
            break
        if any(process.poll() is not None for process in processes):
            break
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGKILL)
