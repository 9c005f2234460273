"""The compiled kernel: found, checked and registered with XLA, or the reason why not.

It is loaded by ctypes, and talks to XLA alone. XLA's interface has a version of its
own, and a library that was built against a newer one than this jaxlib has would
register without complaint, to fail when a first program is compiled; so versions are
compared here.
"""

import ctypes
import functools
import pathlib
import re

import jax

LIBRARY = pathlib.Path(__file__).parent / "kernel" / "_kernel.so"
REASON = LIBRARY.parent / "_not_built.txt"

# Names that XLA knows the functions by.
FORWARD = "jax_ctc.cpu.forward"
FORWARD_BACKWARD = "jax_ctc.cpu.forward_backward"
BEST_PATH = "jax_ctc.cpu.best_path"
_SYMBOLS = {
    FORWARD: "JaxCtcForward",
    FORWARD_BACKWARD: "JaxCtcForwardBackward",
    BEST_PATH: "JaxCtcBestPath",
}


def missing() -> str | None:
    """Say why the kernel is not there, or None if it is there and registered."""
    return _load()[1]


def most_bytes() -> int:
    """Return the most memory that calls held at a time since the last question."""
    library, reason = _load()
    if library is None:
        raise RuntimeError(reason)
    return library.JaxCtcMostBytes()


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    if not LIBRARY.exists():
        return None, f"its compiled part was not built: {_why_not_built()}"
    try:
        library = ctypes.CDLL(str(LIBRARY))
        functions = {
            name: jax.ffi.pycapsule(getattr(library, symbol))
            for name, symbol in _SYMBOLS.items()
        }
        library.JaxCtcMostBytes.restype = ctypes.c_int64
        built = divmod(library.JaxCtcInterface(), 1000)
    except (OSError, AttributeError) as error:
        return None, f"its compiled part does not load ({error}); install jax_ctc anew"
    ours = interface()
    if ours is None or built[0] != ours[0] or built > ours:
        has = "an unknown one" if ours is None else f"{ours[0]}.{ours[1]}"
        return None, (
            f"its compiled part is for version {built[0]}.{built[1]} of XLA's"
            f" interface, and this jaxlib has {has}; install jax_ctc anew"
        )
    for name, function in functions.items():
        jax.ffi.register_ffi_target(name, function, platform="cpu")
    return library, None


def _why_not_built() -> str:
    try:
        return REASON.read_text(encoding="utf-8").strip()
    except OSError:
        return f"there is no {LIBRARY.parent.name}/{LIBRARY.name}"


def interface() -> tuple[int, int] | None:
    """Return the version of XLA's interface that this jaxlib has, by its headers."""
    header = pathlib.Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h")
    try:
        text = header.read_text(encoding="utf-8")
    except OSError:
        return None
    major, minor = (
        re.search(rf"#define XLA_FFI_API_{part} (\d+)", text)
        for part in ("MAJOR", "MINOR")
    )
    return (int(major[1]), int(minor[1])) if major and minor else None
