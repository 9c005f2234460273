"""What a run takes, and what the machine has: too large a run ends the process."""

import os
import pathlib

import jax

from benchmarks.contenders import Program

_MEMINFO = pathlib.Path("/proc/meminfo")


def available() -> int:
    """Return the bytes that are free here, or all there are where nobody tells."""
    on_device = jax.devices()[0].memory_stats()
    if on_device and "bytes_limit" in on_device:
        return on_device["bytes_limit"] - on_device["bytes_in_use"]
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def shortage(program: Program, free: int) -> str | None:
    """Say how far the memory is from enough, or None."""
    if program.needs is None or program.needs <= free:
        return None
    return (
        f"needs {program.needs / 1e9:.1f} GB of temporaries, "
        f"the machine has {free / 1e9:.1f} GB"
    )
