"""What alignments cost, how long a recording may be, and how exact float32 is.

    python -m benchmarks.alignment

Prints the three tables of docs/performance.md, as Markdown. Times are medians of
interleaved rounds; ratios are to value and gradient of `ctc_loss`.
"""

import multiprocessing
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import Progress

import jax_ctc
from benchmarks.contenders import Program
from benchmarks.measure import interleave
from jax_ctc import _recursion
from jax_ctc._checks.arrays import check_inputs
from jax_ctc._lattice.pose import Spec, pose
from tests.cases import named
from tests.oracle import log_softmax
from tests.oracle_paths import Trellis

ROUNDS = 9
MIB = 2**20
RECORDING = 60_000, 32, 3_000  # frames, classes, labels
BLOCK = 1_000  # frames of a block of the recording


def readings() -> dict[str, Callable[..., Any]]:
    """Return everything that is read from the lattice, by name."""

    def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.grad(lambda x, *rest: jnp.sum(function(x, *rest)))

    def samples(*arguments: Any) -> Any:
        key = jax.random.key(0)
        return jax_ctc.sample_alignments(key, *arguments, num_samples=8)

    return {
        "loss, value and gradient": gradient(jax_ctc.ctc_loss),
        "loss, value": jax_ctc.ctc_loss,
        "ctc_posteriors": jax_ctc.ctc_posteriors,
        "ctc_align": jax_ctc.ctc_align,
        "sample_alignments, 8": samples,
        "alignment_entropy": jax_ctc.alignment_entropy,
        "alignment_entropy, gradient": gradient(jax_ctc.alignment_entropy),
    }


def costs(case: str) -> Iterator[tuple[str, ...]]:
    """Yield a row per reading: time, ratio to the loss, temporaries."""
    arguments = tuple(jnp.asarray(array) for array in named(case).make()[:4])
    programs = {}
    for name, function in readings().items():
        compiled = jax.jit(function).lower(*arguments).compile()
        memory = compiled.memory_analysis()

        def run(compiled: Any = compiled) -> Any:
            return jax.block_until_ready(compiled(*arguments))

        size = memory.temp_size_in_bytes if memory else None
        programs[name] = Program(run, None, None, size)
    seconds = interleave(programs, ROUNDS)
    first = next(iter(seconds))
    for name, times in seconds.items():
        ratio = statistics.median(
            t / f for t, f in zip(times, seconds[first], strict=True)
        )
        yield (
            case,
            name,
            f"{1e3 * statistics.median(times):.1f} ms",
            f"{ratio:.2f}",
            f"{(programs[name].temporaries or 0) / MIB:.1f} MiB",
        )


def recording() -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels of one long recording."""
    frames, classes, labels = RECORDING
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(frames, classes))
    return logits.astype(np.float32), rng.integers(1, classes, labels).astype(np.int32)


def peak() -> float:
    """Return the most memory that this process has held, in MiB.

    From Linux's own books: `getrusage` would count the parent's memory too.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def align_recording(in_blocks: bool) -> tuple[float, float, float, int]:
    """Align the recording twice; return both times, peak memory, and spans found."""
    logits, labels = recording()

    def run() -> Any:
        if in_blocks:
            blocks = (logits[i : i + BLOCK] for i in range(0, len(logits), BLOCK))
            return jax_ctc.ctc_align_chunks(blocks, labels)
        return jax_ctc.ctc_align(logits, labels)

    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        alignment = jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return *seconds, peak(), int((alignment.start >= 0).sum())


def recordings() -> Iterator[tuple[str, ...]]:
    """Yield a row per way of aligning it, each in a fresh process."""
    context = multiprocessing.get_context("spawn")
    for name, in_blocks in (("ctc_align", False), ("ctc_align_chunks", True)):
        with context.Pool(1) as pool:
            first, second, memory, found = pool.apply(align_recording, (in_blocks,))
        yield name, f"{first:.1f} s", f"{second:.1f} s", f"{memory:.0f} MiB", str(found)


def sizes() -> Iterator[tuple[str, ...]]:
    """Yield what tables over the recording would hold, and what is held."""
    frames, classes, labels = RECORDING
    states = 2 * labels + 1
    yield "alpha of every frame, float32", f"{4 * frames * states / MIB:.0f} MiB"
    yield "back-pointers of every frame, int8", f"{frames * states / MIB:.0f} MiB"
    packed = frames * -(-states // 4)
    yield "the same at two bits: `ctc_align_chunks`", f"{packed / MIB:.0f} MiB"
    for size in (classes, 5_000):
        arguments = (
            jax.ShapeDtypeStruct((frames, size), jnp.float32),
            jax.ShapeDtypeStruct((labels,), jnp.int32),
        )
        compiled = jax.jit(jax_ctc.ctc_align).lower(*arguments).compile()
        memory = compiled.memory_analysis()
        held = f"{memory.temp_size_in_bytes / MIB:.0f} MiB" if memory else "unknown"
        yield f"temporaries of `ctc_align`, {size} classes", held


def peaky() -> tuple[np.ndarray, np.ndarray]:
    """Return one sharp path and long blanks, as after training."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 32)).astype(np.float32)
    labels = rng.integers(1, 32, 300).astype(np.int32)
    logits[:, 0] += 15
    logits[np.sort(rng.choice(1999, 300, replace=False)) * 2, labels] += 25
    return logits, labels


def precision() -> Iterator[tuple[str, ...]]:
    """Yield a row per input: errors of float32 against float64."""
    inputs = {"sharp, as after training": peaky()}
    for case in map(named, ("normal", "normal_times_5", "confident_and_wrong")):
        batch = case.make()
        inputs[case.note] = batch.logits[0], batch.labels[0]

    @jax.jit
    def gradient(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return jax.grad(jax_ctc.alignment_entropy)(logits, labels)

    @jax.jit
    def gradient_by_scan(logits: jax.Array, labels: jax.Array) -> jax.Array:
        problem = pose(Spec(0), check_inputs(logits, labels, None, None)).problem
        read = _recursion.read("scan", "entropy_backward", problem, normalise=True)
        return read[2][0]

    for name, (logits, labels) in inputs.items():
        log_probs = log_softmax(logits)
        trellis = Trellis(log_probs, labels)
        exact, (_, score) = trellis.entropy(), trellis.best()
        entropy = float(jax_ctc.alignment_entropy(logits, labels))
        tokens = np.asarray(jax_ctc.ctc_align(logits, labels).tokens)
        gap = score - log_probs[np.arange(len(tokens)), tokens].sum()
        posteriors = jax_ctc.ctc_posteriors(logits, labels)
        states = np.zeros((len(logits), 2 * len(labels) + 1), np.float32)
        states[:, 1::2], states[:, ::2] = posteriors.label, posteriors.blank
        mean = (states * log_probs.astype(np.float32)[:, trellis.states]).sum()
        difference = float(posteriors.log_likelihood) - float(mean)
        single = np.asarray(gradient(logits, labels))
        by_scan = np.asarray(gradient_by_scan(logits, labels))
        with jax.enable_x64(True):
            double = np.asarray(gradient(logits.astype(np.float64), labels))
        yield (
            name,
            "×".join(map(str, (*logits.shape, len(labels)))),
            f"{exact:.4g}",
            f"{abs(entropy - exact) / exact:.0e}",
            f"{abs(difference - exact) / exact:.0e}",
            f"{np.abs(single - double).max():.0e}",
            f"{np.abs(by_scan - double).max():.0e}",
            f"{abs(gap):.0e}",
        )


def table(console: Console, headings: tuple[str, ...], rows: Any) -> None:
    """Print rows as Markdown, as they come."""
    for row in (headings, tuple("---" for _ in headings)):
        console.print(
            "| " + " | ".join(row) + " |", soft_wrap=True, markup=False, highlight=False
        )
    for row in rows:
        console.print(
            "| " + " | ".join(row) + " |", soft_wrap=True, markup=False, highlight=False
        )
    console.print()


def main() -> None:
    """Measure and print."""
    console = Console()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        progress.add_task("aligning", total=None)
        table(
            console,
            ("case", "what", "time", "ratio", "temporaries"),
            (row for case in ("char", "long_form") for row in costs(case)),
        )
        frames, classes, labels = RECORDING
        console.print(f"{frames} frames, {classes} classes, {labels} labels:\n")
        table(
            console,
            ("how", "first call", "second call", "peak memory", "labels found"),
            recordings(),
        )
        table(console, ("what", "size"), sizes())
        table(
            console,
            (
                *("logits", "T×V×U", "entropy", "its error", "of ln Z − E[ln p]"),
                *("gradient error", "of autodiff", "path gap"),
            ),
            precision(),
        )


if __name__ == "__main__":
    main()
