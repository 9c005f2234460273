"""The kernel alone, in C++: random batches against float64, and under sanitizers."""

import pathlib
import shutil
import subprocess

import pytest

import build_kernel
from tests.cases import more

HERE = pathlib.Path(__file__).parent
KERNEL = build_kernel.SOURCE.parent
COMMON = [flag for flag in build_kernel.FLAGS if flag not in ("-fPIC", "-shared")]

# Compiled in half the time; as it is built; then what finds reads and writes outside of
# arrays, overflows and other undefined steps; then what finds threads that do not wait
# for each other.
# Clones are chosen before a sanitizer has started, so there is one kind of code there.
BUILDS = {
    "quick": (["-O1"], 1_000),
    "plain": ([], 10_000),
    "address": (
        ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O0", "-g"],
        1_000,
    ),
    "thread": (["-fsanitize=thread", "-O0", "-g"], 200),
}


def compiled(flags, source, target):
    """Compile a program; return what the compiler said against it."""
    command = [*build_kernel.find_compiler(), *COMMON, *flags, "-I", str(KERNEL)]
    run = subprocess.run(
        [*command, str(source), "-o", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stderr if run.returncode else None


@pytest.fixture(scope="module", params=[x if x == "quick" else more(x) for x in BUILDS])
def build(request, tmp_path_factory):
    """Each way to compile the tests, and how many batches it is fast enough for."""
    folder = tmp_path_factory.mktemp("kernel")
    flags, batches = BUILDS[request.param]
    (folder / "empty.cc").write_text("int main() {}\n")
    try:
        fault = compiled(flags, folder / "empty.cc", folder / "empty")
    except (build_kernel.NoKernel, OSError) as error:
        pytest.skip(str(error))
    if fault:
        pytest.skip(f"this compiler has no such build: {fault.splitlines()[-1]}")
    if not flags:
        flags = next(build_kernel.flag_sets(), ())
        flags = [flag for flag in flags if "JAX_CTC_CLONES" in flag]
    fault = compiled(flags, HERE / "kernel_test.cc", folder / "test")
    assert fault is None, fault
    return folder / "test", batches


@pytest.mark.slow
def test_random_batches(build):
    """Values, gradients, paths; bad integers; threads; narrow floats; large arrays."""
    program, batches = build
    command = [program, str(batches), "0"]
    if shutil.which("setarch"):  # ThreadSanitizer wants its addresses where they were
        command = ["setarch", "--addr-no-randomize", *command]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert f"{batches} batches, 0 failures" in run.stdout
