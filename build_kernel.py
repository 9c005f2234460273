"""Compile the CPU kernel into the package: in a wheel, in place, or not at all.

    pip install .                 in the wheel, which then serves every Python
    pip install --editable .      in place
    python build_kernel.py        in place, against the jaxlib that is installed

A build hook of hatchling, not a build system of its own: the kernel is one compiler
call on one file, with headers that jaxlib ships and no library to link. It is loaded
with ctypes, so there is no Python ABI either, and the wheel is py3-none-<platform>.

Without a compiler the package is pure Python and does without: `kernel/_not_built.txt`
then tells the library why, because pip shows what a hook says only with -v.

CXX names the compiler, CXXFLAGS adds to its flags. CXX=none asks for pure Python: the
wheel that is published for machines that no other wheel fits.
"""

import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    BuildHookInterface = object

ROOT = pathlib.Path(__file__).parent
PLACE = "jax_ctc/_recursion/cpu"
SOURCE = ROOT / PLACE / "kernel" / "ffi.cc"
# In a folder that is no package: beside modules, Python would take it for one.
LIBRARY, REASON = "kernel/_kernel.so", "kernel/_not_built.txt"

# -fopenmp-simd: `#pragma omp simd` lets sums be taken in lanes, and needs no OpenMP.
# -fno-trapping-math, -fno-math-errno: else comparisons and logarithms keep their order.
# Not -ffast-math: the kernel tells NaN and infinities apart.
FLAGS = (
    *("-std=c++17", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"),
    *("-fPIC", "-shared", "-pthread", "-fvisibility=hidden", "-Wall", "-Wextra"),
)
# Nothing but the C library is asked of the machine where a wheel is installed.
STATIC = ("-static-libstdc++", "-static-libgcc", "-s")
# Three kinds of processor by what they can do, not by model; the loader picks one.
CLONES = (
    "-DJAX_CTC_CLONES=__attribute__((target_clones("
    '"arch=x86-64-v4","arch=x86-64-v3","default")))'
)


# What a user of the published pure wheel is told.
PURE = (
    "this is the wheel for machines that no other fits; where there is a C++ compiler,"
    " pip install --no-binary jax_ctc jax_ctc builds the kernel"
)


class NoKernel(Exception):
    """There is no compiler here, or it failed; the message is one sentence."""


def compile_kernel(target: pathlib.Path, *more: str) -> None:
    """Compile the kernel to `target`, with the best flags that this compiler takes.

    Raises:
        NoKernel: none of them worked.
    """
    compiler = find_compiler()
    includes = ("-isystem", str(headers()))
    failed = NoKernel("nothing was tried")
    for flags in flag_sets():
        command = [*compiler, *FLAGS, *flags, *includes, *more, str(SOURCE)]
        command += [*shlex.split(os.environ.get("CXXFLAGS", "")), "-o", str(target)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except OSError as error:
            raise NoKernel(f"{compiler[0]} does not run ({error.strerror})") from error
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines()
            first = next((line for line in lines if "error" in line), "no message")
            failed = NoKernel(f"{compiler[0]} failed ({first})")
        else:
            return
    raise failed


def find_compiler() -> list[str]:
    """Return the command of a C++ compiler: $CXX, or the first of the usual names.

    Raises:
        NoKernel: there is none, or none is wanted.
    """
    if os.environ.get("CXX") == "none":
        raise NoKernel(PURE)
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise NoKernel(
        "no C++ compiler was found (c++, g++ or clang++, or one named by CXX)"
    )


def headers() -> pathlib.Path:
    """Return where jaxlib keeps the headers of XLA's interface.

    Raises:
        NoKernel: jaxlib is not installed.
    """
    try:
        import jaxlib
    except ImportError as error:
        raise NoKernel("jaxlib, whose headers it needs, was not there") from error
    return pathlib.Path(jaxlib.__file__).parent / "include"


def flag_sets() -> Iterator[tuple[str, ...]]:
    """Yield what to try, best first; some compilers lack the clones or the archives."""
    target = sysconfig.get_platform()
    if target.startswith("linux"):
        # The loader of musl cannot choose between clones.
        if target.endswith("x86_64") and platform.libc_ver()[0] == "glibc":
            yield (CLONES, *STATIC)
        yield STATIC
    yield ()


def build(folder: pathlib.Path) -> tuple[pathlib.Path, str | None]:
    """Write the library or the reason why there is none; return it, and the reason."""
    library, reason = folder / LIBRARY, folder / REASON
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        fresh = pathlib.Path(scratch, library.name)
        try:
            compile_kernel(fresh)
        except NoKernel as error:
            library.unlink(missing_ok=True)
            reason.write_text(f"{error}\n", encoding="utf-8")
            return reason, str(error)
        # Replaced, never overwritten: a running program may have it mapped.
        shutil.move(fresh, library.with_suffix(".new"))
        os.replace(library.with_suffix(".new"), library)
    reason.unlink(missing_ok=True)
    return library, None


class BuildKernel(BuildHookInterface):
    """What hatchling calls before it packs a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say what kind of wheel this makes."""
        in_place = version == "editable"
        self._scratch = None if in_place else tempfile.mkdtemp()
        made, reason = build(pathlib.Path(self._scratch or ROOT / PLACE))
        if reason:
            self.app.display_warning(
                f"jax_ctc: no CPU kernel, because {reason}; XLA does the work"
            )
        if in_place:
            return
        build_data["force_include"][str(made)] = f"{PLACE}/kernel/{made.name}"
        if not reason:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform_tag()}"

    def finalize(
        self, version: str, build_data: dict[str, Any], artifact_path: str
    ) -> None:
        """Forget the library that is in the wheel now."""
        del version, build_data, artifact_path
        if self._scratch:
            shutil.rmtree(self._scratch)


def _platform_tag() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def main() -> int:
    """Compile in place; return the exit code."""
    made, reason = build(ROOT / PLACE)
    print(f"no kernel: {reason}" if reason else made, file=sys.stderr)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
