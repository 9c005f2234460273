"""What a reader must know to compare two records."""

import importlib.metadata
import os
import pathlib
import platform
from typing import Any

import jax

from jax_ctc._self_check.where import commit

PACKAGES = ("jax", "jaxlib", "numpy", "optax", "torch", "tensorflow", "keras")
_CPUINFO = pathlib.Path("/proc/cpuinfo")


def about() -> dict[str, Any]:
    """Return the machine, the versions and the commit."""
    return {
        "device": str(jax.devices()[0].device_kind),
        "cpu": cpu(),
        "cores": cores(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "commit": commit() or "unknown",
    }


def cores() -> int | None:
    """Return how many there are for this process: under `taskset` not all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def cpu() -> str:
    """Return the processor's name, as Linux tells it or as Python does."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def version(package: str) -> str | None:
    """Return the version, or None where the package is not installed.

    TensorFlow without its GPU parts goes by another name.
    """
    for name in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
