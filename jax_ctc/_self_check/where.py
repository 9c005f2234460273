"""Where the check runs: versions, device, commit, and what was asked for."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess

import jax

_PACKAGES = ("jax_ctc", "jax", "jaxlib", "numpy", "optax", "torch")


def where() -> dict[str, str]:
    """Return what a bug report begins with."""
    device = jax.devices()[0]
    facts = {
        "device": f"{jax.device_count()} x {device.device_kind}"
        f" ({jax.default_backend()})",
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": ", ".join(
            f"{name} {version}"
            for name in _PACKAGES
            if (version := _version(name)) is not None
        ),
    }
    from_commit = commit()
    if from_commit:
        facts["commit"] = from_commit
    for name in ("JAX_CTC_IMPLEMENTATION", "XLA_FLAGS", "JAX_PLATFORMS"):
        if os.environ.get(name):
            facts[name] = os.environ[name]
    return facts


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return JAX_CTC_COMMIT, of a copy that says what it is of; or what Git tells."""
    if os.environ.get("JAX_CTC_COMMIT"):
        return os.environ["JAX_CTC_COMMIT"]
    root = pathlib.Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()
