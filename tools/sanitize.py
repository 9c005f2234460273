"""Run compute-sanitizer over the texts of the CUDA kernels, on an NVIDIA GPU.

    python -m tools.sanitize [FOLDER]

Needs `nvcc` and `compute-sanitizer` of a CUDA toolkit. Reports go to FOLDER, one per
tool; exit code 1 if any of them found something.
"""

import pathlib
import subprocess
import sys
import tempfile

from jax_ctc._recursion.cuda.plan import Cut, Layout, rows_per_block

HERE = pathlib.Path(__file__).parent
KERNELS = HERE.parent / "jax_ctc" / "_recursion" / "cuda" / "kernels"
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")

# Utterances, frames, classes, labels: for a lane 1, 2, 4, 8 and 16 labels, emissions
# found for each class and for each place, rows that a block goes through.
PROBLEMS = (
    (3, 70, 9, 60),
    (3, 40, 300, 100),
    (2, 90, 12, 140),
    (2, 60, 7, 330),
    (2, 24, 5, 700),
    (2, 5, 4200, 6),
    (1, 12, 1500, 1400),
    (1, 12, 3000, 2500),
)


def numbers(batch: int, frames: int, classes: int, labels: int) -> list[int]:
    """Return the sizes, and how the problem is laid out, as sanitize.cu takes them."""
    there, back, cut = Layout.there(labels), Layout.back(labels), Cut.of(frames)
    sizes = [batch, frames, classes, labels]
    layouts = [there.labels, there.threads, back.labels, back.threads]
    return [*sizes, *layouts, *cut, *rows_per_block(classes)]


def main(folder: str = ".") -> int:
    """Build the program, and run it under each tool, all at once."""
    out = pathlib.Path(folder)
    with tempfile.TemporaryDirectory() as aside:
        program = pathlib.Path(aside) / "sanitize"
        build = ["nvcc", "-std=c++17", HERE / "sanitize.cu", "-lcuda", "-o", program]
        subprocess.run(build, check=True)
        arguments = [str(n) for problem in PROBLEMS for n in numbers(*problem)]
        running = {}
        for tool in TOOLS:
            command = ["compute-sanitizer", "--error-exitcode", "1", "--tool", tool]
            command += [program, KERNELS, *arguments]
            with (out / f"{tool}.txt").open("w") as file:
                running[tool] = subprocess.Popen(
                    command, stdout=file, stderr=subprocess.STDOUT
                )
        codes = {tool: process.wait() for tool, process in running.items()}
    for tool, code in codes.items():
        last = (out / f"{tool}.txt").read_text().strip().splitlines()[-1]
        print(f"{tool}: exit code {code}, {last}")
    return int(any(codes.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
