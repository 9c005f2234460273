"""Make the PTX texts of `jax_ctc/_recursion/cuda/kernels` from source: `make ptx`.

One text per kernel, for every GPU of compute capability 8.0 or newer. The compiler
comes as wheels (`pip install 'jax_ctc[ptx]'`) and needs no GPU. XLA does not assemble
PTX when it compiles a program, the driver does when it loads it: so each text is
assembled here for each kind of GPU.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
from typing import NamedTuple

# The oldest that assembles: older drivers read it, and so do all newer ones.
VERSION = "7.0"
TARGETS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_103", "sm_120")

CUDA = pathlib.Path(__file__).parent.parent / "jax_ctc" / "_recursion" / "cuda"


class Usage(NamedTuple):
    """What a kernel takes of one kind of GPU."""

    kernel: str
    target: str
    registers: int
    spilled: int  # bytes
    shared: int  # bytes, of a block


def tool(name: str) -> pathlib.Path:
    """Return a program of the wheel nvidia-cuda-nvcc.

    Raises:
        FileNotFoundError: it is not installed.
    """
    for folder in sys.path:
        path = pathlib.Path(folder) / "nvidia" / "cu13" / "bin" / name
        if path.exists():
            return path
    raise FileNotFoundError(f"{name} is missing: pip install 'jax_ctc[ptx]'")


def compile_all() -> dict[str, str]:
    """Compile the source; return the text of each kernel by name."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "ctc.ptx"
        command = [tool("nvcc"), "-ptx", "-arch=compute_80", "-O3", "-std=c++17"]
        subprocess.run([*command, "ctc.cu", "-o", out], cwd=CUDA / "source", check=True)
        text = out.read_text()
    compiler = re.search(r"V\d+\.\d+\.\d+", text)
    text = re.sub(r"^\s*//.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\.version .*", f".version {VERSION}", text, flags=re.MULTILINE)
    head, *kernels = re.split(r"(?=^\.visible \.entry )", text, flags=re.MULTILINE)
    made = f"// By nvcc {compiler[0] if compiler else '?'}, from source/ctc.cu.\n"
    return {_name(kernel): made + _needed(head, kernel) + kernel for kernel in kernels}


def assemble(kernel: str, text: str, target: str) -> Usage:
    """Assemble a text for one kind of GPU.

    Raises:
        subprocess.CalledProcessError: the text is none that this GPU can run.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(text)
        file.flush()
        command = [tool("ptxas"), "-v", f"-arch={target}", file.name, "-o", "/dev/null"]
        report = subprocess.run(command, capture_output=True, text=True, check=True)
    numbers = (
        re.search(pattern, report.stderr)
        for pattern in (
            r"Used (\d+) reg",
            r"(\d+) bytes spill stores",
            r"(\d+) bytes smem",
        )
    )
    return Usage(kernel, target, *(int(n[1]) if n else 0 for n in numbers))


def body(text: str) -> str:
    """Return a text without its first line, which names the compiler."""
    return text.partition("\n")[2]


def threads(text: str) -> int:
    """Return how many threads a block of the kernel may have, as its text says."""
    found = re.search(r"\.maxntid (\d+)", text)
    if found is None:
        raise ValueError("the text has no .maxntid: give the kernel launch bounds")
    return int(found[1])


def main() -> None:
    """Write the texts, and print what each kernel takes."""
    folder = CUDA / "kernels"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.ptx"):
        old.unlink()
    for name, text in compile_all().items():
        (folder / f"{name}.ptx").write_text(text)
        used = [assemble(name, text, target) for target in TARGETS]
        registers = "/".join(str(use.registers) for use in used)
        spilled = max(use.spilled for use in used)
        print(
            f"{name:22} {len(text) / 1000:5.0f} kB, registers {registers},"
            f" spilled {spilled} bytes, shared {used[0].shared} bytes"
        )


def _needed(head: str, kernel: str) -> str:
    """Return the head without the variables of other kernels."""

    def is_needed(line: str) -> bool:
        variable = re.match(r"\.(?:shared|global|const) .* (\w+)\[", line)
        return line != "" and (variable is None or variable[1] in kernel)

    return "\n".join(filter(is_needed, head.splitlines())) + "\n"


def _name(kernel: str) -> str:
    found = re.match(r"\.visible \.entry (\w+)", kernel)
    if found is None:
        raise ValueError(f"no kernel: {kernel[:80]!r}")
    return found[1]


if __name__ == "__main__":
    main()
