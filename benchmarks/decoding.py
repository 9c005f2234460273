"""How long a beam search takes, beside other people's, and what the truth costs.

    python -m benchmarks.decoding --out out/decoding.jsonl
    python -m benchmarks.decoding --target "H100 x 1" "v5e x 1"
    python -m benchmarks.decoding --record benchmarks/results/decoding.jsonl

B = 16 utterances of T = 400 frames of 2 N(0, 1) logits, V = 32 and 1,024, W = 16
and 64. One JSON line per row goes to --out as soon as it is known, and a row of a table
to the terminal. `seconds` is the least wall time of the rounds, `cpu_s` the processor
time of that round, over all threads: on a machine that others use too, it is the fairer
one. Ours, TensorFlow's and Keras' decoder take a batch, on all cores; the others an
utterance at a time, on one. Compiling is told alike: tracing and lowering in it, by the
clock and of the processor. Whoever takes long reads fewer utterances, and the row
says how many; its time is that of all, in proportion.

With --target only ours are compiled, for one chip that is not there: the record has
launches, cycles by the compiler's own model and temporaries, and no time.
"""

import dataclasses
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import tyro
from jax.sharding import PartitionSpec

import jax_ctc
from benchmarks import hlo, targets
from benchmarks.about import about
from benchmarks.decoders import LM_WEIGHT, PEERS, Decode, Labels, missing, symbols

BATCH, FRAMES, SCALE = 16, 400, 2.0
# Seconds for one utterance, beyond which nobody reads more than one.
_PATIENCE = 5.0
_UNKNOWN_SHARE = 40  # bigrams of each class in the model that is measured


@dataclasses.dataclass
class Options:
    """What to measure, and how often."""

    classes: tuple[int, ...] = (32, 1024)
    """V."""
    width: tuple[int, ...] = (16, 64)
    """W."""
    peer: tuple[str, ...] = tuple(PEERS)
    """Whom to measure besides."""
    rounds: int = 5
    """How often everybody runs."""
    target: tuple[str, ...] = ()
    """For which chips to compile instead."""
    out: pathlib.Path = pathlib.Path("out/decoding.jsonl")
    """The record; an old one is overwritten."""
    record: pathlib.Path | None = None
    """A record to print instead of measuring."""


def main(options: Options) -> int:
    """Measure, or print what was; 2 if a peer is unknown."""
    if options.record:
        rows = [json.loads(line) for line in options.record.read_text().splitlines()]
        for row in rows:
            print("|", " | ".join(cells(row)), "|")
        print(summary(rows))
        return 0
    unknown = [name for name in options.peer if name not in PEERS]
    if unknown:
        known = ", ".join(PEERS)
        print(f"--peer {unknown[0]!r} is unknown; choose from {known}", file=sys.stderr)
        return 2
    for name in options.target:
        fault = targets.missing(name) if name in targets.TARGETS else "is unknown"
        if fault:
            print(f"--target {name}: {fault}", file=sys.stderr)
            return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows, where = [], about()
    with options.out.open("w") as file, tempfile.TemporaryDirectory() as folder:
        for num_classes in options.classes:
            model = write_model(
                pathlib.Path(folder) / f"{num_classes}.arpa", num_classes
            )
            for width in options.width:
                found = (
                    compiled_rows(options.target, num_classes, width, model)
                    if options.target
                    else measure(options, num_classes, width, model)
                )
                for row in found:
                    file.write(json.dumps(row | where) + "\n")
                    file.flush()  # whatever kills the next one, these are kept
                    rows.append(row)
                    print("|", " | ".join(cells(row)), "|", flush=True)
    if not options.target:
        print(summary(rows))
    return 0


def measure(
    options: Options, num_classes: int, width: int, model: pathlib.Path
) -> Iterator[dict[str, Any]]:
    """Yield a row for each of our programs, and for each peer."""
    rng = np.random.default_rng(0)
    logits = SCALE * rng.normal(size=(BATCH, FRAMES, num_classes))
    logits -= np.log(np.exp(logits).sum(axis=2, keepdims=True))
    log_probs = logits.astype(np.float32)
    sizes = {"classes": num_classes, "width": width}
    ours: dict[bool, Labels] = {}
    for name, keywords in programs(num_classes, width, model).items():
        decode, about_it = compile_ours(log_probs, width, keywords)
        found, times = timed(decode, log_probs, options.rounds)
        has_model = "language_model" in keywords
        ours.setdefault(has_model, found)
        yield sizes | {"impl": name, "has_model": has_model} | about_it | times
    for name in options.peer:
        peer = PEERS[name]
        for has_model in (False, True)[: 1 + peer.has_model]:
            row = sizes | {"impl": name, "has_model": has_model}
            note = missing(peer)
            if num_classes > peer.most_classes:
                note = "not run: minutes, or out of memory"
            if note is None:
                path = model if has_model else None
                decode = peer.make(num_classes, width, path)
                try:
                    found, times = timed(decode, log_probs, options.rounds)
                except Exception as error:  # a row in the table, not the end
                    yield row | {"note": f"failed: {str(error)[:60]}"}
                    continue
                same = [a == b for a, b in zip(found, ours[has_model], strict=False)]
                row |= times | {"same": sum(same), "of": len(same)}
            yield row | ({"note": note} if note else {})


def programs(
    num_classes: int, width: int, path: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """Return the options of each of our programs, by name."""
    model = jax_ctc.NGram.from_arpa(path, symbols(num_classes))
    guided = {"language_model": model, "lm_weight": LM_WEIGHT}
    return {
        "jax_ctc": {},
        "jax_ctc, without log_prob": {"without": ("log_prob",)},
        "jax_ctc, W hypotheses": {"num_hypotheses": width},
        "jax_ctc, W hypotheses, rerank, times": {
            "num_hypotheses": width,
            "rerank": True,
            "times": True,
        },
        "jax_ctc, n-gram": guided,
    }


def searching(
    width: int, keywords: dict[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return a jitted search of scores and arrays, and those arrays.

    What it is `without`, of the results, is not computed.
    """
    keywords = dict(keywords)
    left_out = dict.fromkeys(keywords.pop("without", ()))
    arrays = {k: v for k, v in keywords.items() if not isinstance(v, bool | int)}
    static = {k: v for k, v in keywords.items() if k not in arrays}

    @jax.jit
    def search(scores: Any, arrays: Any) -> Any:
        found = jax_ctc.beam_search_decode(
            scores, beam_width=width, inputs="log_probs", **static, **arrays
        )
        return dataclasses.replace(found, **left_out)

    return search, arrays


def compiled_rows(
    names: tuple[str, ...], num_classes: int, width: int, path: pathlib.Path
) -> Iterator[dict[str, Any]]:
    """Yield a row for each of our programs, compiled for each target."""
    for target in names:
        for name, keywords in programs(num_classes, width, path).items():
            search, arrays = searching(width, keywords)
            compiled = targets.compile_for(
                targets.mesh_of(target, chips=1),
                lambda scores, search=search, arrays=arrays: search(scores, arrays),
                ((BATCH, FRAMES, num_classes), np.float32, PartitionSpec()),
            )
            found = hlo.launches(compiled.as_text())
            yield {
                "classes": num_classes,
                "width": width,
                "impl": f"{name} on {target}",
                "has_model": "language_model" in keywords,
                "launches": sum(each.times for each in found) / FRAMES,
                "cycles": sum(each.times * each.cycles for each in found) / FRAMES,
                "temporaries": compiled.memory_analysis().temp_size_in_bytes,
            }


def compile_ours(
    log_probs: np.ndarray, width: int, keywords: dict[str, Any]
) -> tuple[Decode, dict[str, Any]]:
    """Return the compiled program, its time to compile and its temporaries."""
    search, arrays = searching(width, keywords)
    begun, cpu = time.perf_counter(), time.process_time()
    compiled = search.lower(log_probs, arrays).compile()
    spent: dict[str, Any] = {
        "compile_s": time.perf_counter() - begun,
        "compile_cpu_s": time.process_time() - cpu,
    }
    memory = compiled.memory_analysis()
    spent["temporaries"] = memory.temp_size_in_bytes if memory else None

    def decode(scores: np.ndarray) -> Labels:
        found = jax.block_until_ready(compiled(scores, arrays))
        rows, lengths = np.asarray(found.labels[:, 0]), np.asarray(found.lengths[:, 0])
        return [tuple(r[:n].tolist()) for r, n in zip(rows, lengths, strict=True)]

    return decode, spent


def timed(
    decode: Decode, log_probs: np.ndarray, rounds: int
) -> tuple[Labels, dict[str, Any]]:
    """Return what is read, and the least wall time of the rounds."""
    found, best, read = [], (np.inf, np.inf), len(log_probs)
    for number in range(rounds + 1):  # the first does not count
        if number == 0:
            try:
                found, one = clocked(decode, log_probs[:1])
            except (ValueError, TypeError):  # a program compiled for the batch
                found, one = clocked(decode, log_probs)
                one = one[0] / len(log_probs), one[1] / len(log_probs)
            if one[0] > _PATIENCE:
                read, best = 1, one
                break
            continue
        found, now = clocked(decode, log_probs)
        best = min(best, now)
        if now[0] > 10 * _PATIENCE:
            break
    scale = len(log_probs) / read
    return found, {"seconds": best[0] * scale, "cpu_s": best[1] * scale, "read": read}


def clocked(
    decode: Callable[[np.ndarray], Labels], log_probs: np.ndarray
) -> tuple[Labels, tuple[float, float]]:
    """Return what is read, and wall and processor time."""
    begun, cpu = time.perf_counter(), time.process_time()
    found = decode(log_probs)
    return found, (time.perf_counter() - begun, time.process_time() - cpu)


def write_model(path: pathlib.Path, num_classes: int) -> pathlib.Path:
    """Write a bigram model over the classes, random, as an ARPA file."""
    rng, words = np.random.default_rng(0), symbols(num_classes)[1:]
    share = min(_UNKNOWN_SHARE, len(words))
    pairs = [
        (first, words[k])
        for first in words
        for k in rng.choice(len(words), share, replace=False)
    ]
    lines = ["\\data\\", f"ngram 1={len(words) + 3}", f"ngram 2={len(pairs)}", ""]
    lines += ["\\1-grams:", "-99\t<s>\t-0.3", "-2\t</s>", "-3\t<unk>"]
    lines += [f"{-1 - 2 * rng.random():.4f}\t{word}\t-0.4" for word in words]
    lines += ["", "\\2-grams:"]
    lines += [f"{-2 * rng.random():.4f}\t{a} {b}" for a, b in pairs]
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")
    return path


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table."""
    name = row["impl"] + (" and n-gram" if row["has_model"] else "")
    if row["impl"].startswith("jax_ctc"):
        name = row["impl"]
    time_taken = (
        f"{1e3 * row['seconds']:,.0f} ms" if "seconds" in row else row.get("note", "")
    )
    if "launches" in row:
        time_taken = f"{row['launches']:.0f} launches a frame"
        if row["cycles"]:
            time_taken += f", {row['cycles']:,.0f} cycles"
    cpu = f"{1e3 * row['cpu_s']:,.0f} ms" if "cpu_s" in row else ""
    size = f"{row['temporaries'] / 1e6:.1f} MB" if row.get("temporaries") else ""
    same = f"{row['same']} of {row['of']}" if "same" in row else ""
    compile_time = ""
    if "compile_s" in row:
        compile_time = f"{row['compile_s']:.1f} s ({row['compile_cpu_s']:.1f} s)"
    sizes = str(row["classes"]), str(row["width"])
    return (*sizes, name, time_taken, cpu, compile_time, size, same)


def summary(rows: list[dict[str, Any]]) -> str:
    """Say how we compare, and what the true log-probability costs."""
    seconds = {
        (row["impl"], row["classes"], row["width"]): row["seconds"]
        for row in rows
        if "seconds" in row
    }
    shares = [
        f"{seconds['jax_ctc', *sizes] / time_taken - 1:.0%} at V, W = {sizes}"
        for (name, *sizes), time_taken in seconds.items()
        if name == "jax_ctc, without log_prob"
    ]
    text = geometric_mean(rows)
    if shares:
        text += "\nlog_prob of the best adds to the time of all else: " + ", ".join(
            shares
        )
    return text


def geometric_mean(rows: list[dict[str, Any]]) -> str:
    """Say how often our time the fastest peer takes, and at least."""
    ratios = []
    for row in rows:
        if row["impl"] == "jax_ctc":
            theirs = [
                other["seconds"]
                for other in rows
                if not other["impl"].startswith("jax_ctc")
                and not other["has_model"]
                and (other["classes"], other["width"]) == (row["classes"], row["width"])
                and "seconds" in other
            ]
            if theirs:
                ratios.append(min(theirs) / row["seconds"])
    if not ratios:
        return "no peer was measured"
    mean = float(np.exp(np.mean(np.log(ratios))))
    return (
        f"the fastest peer takes {mean:.1f} times our time in the geometric mean, and"
        f" {min(ratios):.1f} times at least"
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, prog="python -m benchmarks.decoding")))
