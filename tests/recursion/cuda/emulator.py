"""The CUDA kernels on this machine's CPU, compiled by its C++ compiler.

`install` puts them where `launch` puts its operations; everything above it, the plan
included, is then what a GPU would run.
"""

import ctypes
import functools
import hashlib
import pathlib
import shutil
import subprocess
import tempfile

import jax
import numpy as np
import pytest

from jax_ctc._recursion import cuda
from tests.recursion.cuda.batches import problem_of

HERE = pathlib.Path(__file__).parent
SOURCE = pathlib.Path(cuda.__file__).parent / "source"
COMPILER = shutil.which("g++") or shutil.which("clang++")

needs_compiler = pytest.mark.skipif(
    COMPILER is None, reason="no C++ compiler: g++ or clang++"
)


@functools.cache
def built(name, *options):
    """Compile a file beside this one, once for as long as no source changes."""
    state = hashlib.sha256(repr((COMPILER, name, options)).encode())
    for path in sorted([*SOURCE.iterdir(), *HERE.glob("*.h"), *HERE.glob("*.cc")]):
        state.update(path.read_bytes())
    folder = pathlib.Path(tempfile.gettempdir()) / "jax_ctc_emulated"
    folder.mkdir(exist_ok=True)
    out = folder / f"{name}_{state.hexdigest()[:16]}"
    if not out.exists():
        # Compiled aside: another test process may be at it too.
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            made = pathlib.Path(aside) / "made"
            command = [COMPILER, "-O1", "-std=c++20", "-ffp-contract=off", *options]
            command += ["-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", f"-I{HERE}"]
            command += [f"-I{SOURCE}", str(HERE / name), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True)
            made.replace(out)
    return out


@functools.cache
def library():
    """Load the kernels."""
    return ctypes.CDLL(str(built("host.cc", "-fPIC", "-shared")))


class Emulator:
    """Stands in for `launch`; keeps a list of what it launched."""

    def __init__(self, seed=0):
        """With a seed threads and blocks take turns in an order drawn from it."""
        self.seed = seed
        self.launched = []

    def __call__(self, kernel, results, operands, *, grid, block, aliases=None):
        """Launch a kernel, at once or (under a transform) when the program runs."""

        def run(*operands):
            return self.run(kernel, results, operands, grid, block, aliases or {})

        return jax.pure_callback(run, list(results), *operands)

    def run(self, kernel, results, operands, grid, block, aliases):
        """Run it on NumPy arrays; results begin as garbage."""
        self.launched.append(kernel)
        operands = [np.ascontiguousarray(x) for x in operands]
        out = [np.empty(result.shape, result.dtype) for result in results]
        for array in out:
            array.view(np.uint8)[...] = 0xAB
        for operand, result in aliases.items():
            out[result][...] = operands[operand]
            operands[operand] = out[result]
        pointers = [x.ctypes.data for x in (*operands, *out)]
        buffers = (ctypes.c_void_p * len(pointers))(*pointers)
        library().emulate(kernel.encode(), buffers, grid, block, self.seed, -1)
        return out


def install(monkeypatch, seed=0):
    """Have the implementation launch its kernels here; return who counts them."""
    emulator = Emulator(seed)
    monkeypatch.setattr(cuda, "launch", emulator)
    return emulator


def run(batch, normalise=True):
    """Return log p and gradient of a batch; log p is the same where asked for alone."""
    problem = problem_of(batch)
    log_z, gradient = cuda.forward_backward(problem, normalise=normalise)
    alone = cuda.forward(problem, normalise=normalise)
    np.testing.assert_array_equal(alone, log_z)
    return np.asarray(log_z), np.asarray(gradient)
