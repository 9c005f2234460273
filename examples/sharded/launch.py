"""A cluster on one machine: processes with fake CPU devices, joined by gloo."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.sharded.checkpoints import read_log, saved_step

ROOT = Path(__file__).parents[2]
GRACE = 10  # seconds that the others may take to end once one has failed


class Cluster:
    """The processes of a run, and the files that hold what each has printed."""

    def __init__(self, processes: list[subprocess.Popen], folder: Path):
        """Takes processes that write `folder`/NUMBER.out and .err."""
        self.processes = processes
        self._folder = folder

    def output(self, number: int = 0) -> str:
        """Returns what a process has printed so far."""
        return (self._folder / f"{number}.out").read_text()

    def errors(self) -> str:
        """Returns the errors of all processes so far, each under its number."""
        return "\n".join(
            f"process {number}:\n{(self._folder / f'{number}.err').read_text()}"
            for number in range(len(self.processes))
        )

    def finish(self, seconds: float = 600) -> list[int]:
        """Waits for all; once one has failed, the others are ended.

        Returns:
            The exit code of each.

        Raises:
            TimeoutError: they took longer; the message holds their errors.
        """
        deadline = time.monotonic() + seconds
        while None in (codes := [process.poll() for process in self.processes]):
            if any(codes):  # one has failed: the others wait for it in vain
                self._wait(GRACE)
                self.kill()
            elif time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"not done in {seconds} s\n{self.errors()}")
            time.sleep(0.05)
        return [process.returncode for process in self.processes]

    def kill_after(self, out: Path, saved: int, step: int) -> None:
        """Sends SIGKILL to all once checkpoint `saved` is whole and `step` is logged.

        Raises:
            RuntimeError: a process ended before that, or it took over 5 minutes; the
                message holds their errors.
        """
        deadline = time.monotonic() + 300
        while True:
            # Look for the living first: what they did before counts for them.
            ended = any(process.poll() is not None for process in self.processes)
            rows = read_log(out)
            if ended or time.monotonic() > deadline:
                reached = f"step {rows[-1]['step']}" if rows else "no step"
                reason = "a process ended" if ended else "5 minutes went by"
                raise RuntimeError(
                    f"{reason} before all could be killed at step {step}; they reached"
                    f" {reached}, checkpoint {saved_step(out)}\n{self.errors()}"
                )
            if saved_step(out) >= saved and rows and rows[-1]["step"] >= step:
                self.kill()
                return
            time.sleep(0.02)

    def kill(self) -> None:
        """Sends SIGKILL to all that still run, and waits for their end."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))


@contextlib.contextmanager
def start(num_processes: int, devices_each: int, **options: Any) -> Iterator[Cluster]:
    """Starts `examples.train_sharded` in every process; none outlives the block."""
    with tempfile.TemporaryDirectory() as folder, reserved_port() as port:
        address = f"127.0.0.1:{port}"
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
            "JAX_COORDINATOR_BIND_ADDRESS": address,  # else the whole network may join
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices_each}",
        }
        options |= {"coordinator": address, "num_processes": num_processes}
        command = [sys.executable, "-m", "examples.train_sharded"]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        cluster = Cluster([], Path(folder))
        try:
            for number in range(num_processes):
                # Files, not pipes: nobody has to read them for the process to go on.
                with (
                    (Path(folder) / f"{number}.out").open("w") as stdout,
                    (Path(folder) / f"{number}.err").open("w") as stderr,
                ):
                    process = subprocess.Popen(
                        [*command, "--process-id", str(number)],
                        cwd=ROOT,
                        env=environment,
                        stdout=stdout,
                        stderr=stderr,
                    )
                cluster.processes.append(process)
            yield cluster
        finally:
            cluster.kill()


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Holds a port that nobody else is given, but the coordinator can listen on.

    With SO_REUSEPORT, which gRPC sets too, a socket that does not listen shares it.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
