"""The handwriting demo on every device of every process, with checkpoints.

One process, every device it has:

    python -m examples.train_sharded

Two processes of a cluster, or of one machine (each in its own shell):

    python -m examples.train_sharded --coordinator localhost:9911 \
        --num-processes 2 --process-id 0
    python -m examples.train_sharded --coordinator localhost:9911 \
        --num-processes 2 --process-id 1

On a TPU pod or under Slurm, where JAX finds the others itself: --coordinator auto. All
processes must see the same --out. Started again, it goes on from the last checkpoint.

Only the standard library is imported before `main`, so that neither a missing package
nor Ctrl-C during the slow imports ends in a traceback.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from examples.front_door import explain_missing
from examples.handwriting.interrupt import on_interrupt

AUTO = "auto"


@dataclass(frozen=True)
class Options:
    """Trains the handwriting demo, data-parallel, and resumes where it was killed."""

    steps: int = 300
    """Training steps in all, those before a resume included."""
    seed: int = 0
    """Decides the initial parameters and the training lines."""
    batch_size: int = 64
    """Lines per step, over all devices."""
    checkpoint_every: int = 50
    """Steps between checkpoints, and between looks at the held-out lines."""
    loss: Literal["ctc_loss", "linear_ctc_loss"] = "ctc_loss"
    """From the logits, or without them: docs/large_vocabularies.md."""
    out: Path = Path("out/sharded")
    """Directory of checkpoints and log.jsonl, the same one for every process."""
    coordinator: str | None = None
    """HOST:PORT of process 0, or "auto" where the cluster tells JAX."""
    num_processes: int = 1
    """How many processes train together."""
    process_id: int = 0
    """Which of them this one is, from 0."""


def main() -> int:
    """Runs the example; returns 0, 1 (a package is missing) or 2 (a bad option)."""
    on_interrupt(lambda: "stopped while starting; nothing was changed")
    try:
        import tyro

        from examples.sharded import checkpoints, report, train
    except ModuleNotFoundError as error:
        return explain_missing(error)
    options = tyro.cli(Options, prog="python -m examples.train_sharded")
    settings = {
        name: getattr(options, name)
        for name in ("steps", "seed", "batch_size", "checkpoint_every", "loss")
    }
    fault = (
        find_fault(options)
        or join(options)
        or find_misfit(options)
        or checkpoints.find_other_run(options.out, settings)
    )
    if fault:
        print(fault, file=sys.stderr)
        return 2
    if is_first():
        checkpoints.note_run(options.out, settings)
    progress = train.Progress()
    on_interrupt(lambda: describe_interruption(options, progress))
    report.run(options.out, progress, settings, is_first=is_first())
    return 0


def find_fault(options: Options) -> str | None:
    """Returns one line saying what is wrong with the options, or None."""
    for name, least in (
        ("steps", 1),
        ("batch_size", 1),
        ("checkpoint_every", 1),
        ("num_processes", 1),
    ):
        if getattr(options, name) < least:
            flag = name.replace("_", "-")
            return f"--{flag} must be at least {least}; got {getattr(options, name)}"
    if not 0 <= options.seed < 2**32:
        return f"--seed must be from 0 to 2**32 − 1; got {options.seed}"
    if options.coordinator == AUTO and (options.num_processes, options.process_id) != (
        1,
        0,
    ):
        return (
            "--coordinator auto finds the processes itself: leave --num-processes and"
            " --process-id out"
        )
    if not 0 <= options.process_id < options.num_processes:
        last = options.num_processes - 1
        return f"--process-id must be from 0 to {last}; got {options.process_id}"
    if options.num_processes > 1 and options.coordinator is None:
        return "--num-processes above 1 needs --coordinator HOST:PORT of process 0"
    if options.coordinator not in (None, AUTO):
        host, _, port = str(options.coordinator).rpartition(":")
        is_port = port.isascii() and port.isdigit() and 0 < int(port) < 2**16
        if not host or not is_port:
            return (
                "--coordinator must be HOST:PORT, PORT from 1 to 65535, or auto;"
                f" got {options.coordinator}"
            )
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=options.out):
            pass
    except OSError as error:
        return f"--out {options.out}: cannot write there ({error.strerror})"
    return None


def join(options: Options) -> str | None:
    """Meets the other processes, before JAX looks at any device."""
    import jax

    if options.coordinator is None:
        return None
    arguments: dict[str, Any] = {}
    if options.coordinator != AUTO:
        arguments = {
            "coordinator_address": options.coordinator,
            "num_processes": options.num_processes,
            "process_id": options.process_id,
        }
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"--coordinator {options.coordinator}: cannot join ({reason})"
    return None


def find_misfit(options: Options) -> str | None:
    """Returns one line if the batch cannot be shared evenly, or None."""
    import jax

    if options.batch_size % jax.device_count():
        return (
            f"--batch-size must be a multiple of the {jax.device_count()} devices;"
            f" got {options.batch_size}"
        )
    return None


def is_first() -> bool:
    """Says whether this is process 0, the one that prints and logs."""
    import jax

    return jax.process_index() == 0


def describe_interruption(options: Options, progress: Any) -> str:
    """Returns one line: where the run stopped, and from where it would go on."""
    from examples.sharded.checkpoints import saved_step

    saved = saved_step(options.out)
    resume = f"the same command resumes from step {saved}"
    outcome = resume if saved else "no checkpoint was saved yet"
    return f"stopped after step {progress.step} of {options.steps}; {outcome}"


if __name__ == "__main__":
    sys.exit(main())
