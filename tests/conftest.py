"""What every test runs under: 8 CPU devices, strict JAX, nothing downloaded."""

import os
import pathlib

# Before JAX starts: sharding tests need several devices, and CPU is what everybody has.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest

MAPS = pathlib.Path("/proc/self/maps")


def pytest_configure(config):
    """Declare the markers."""
    config.addinivalue_line(
        "markers", "relaxed: runs other people's code, which promotes ranks and dtypes"
    )


@pytest.fixture(autouse=True)
def strict_jax(request):
    """Forbid implicit rank and dtype promotion: users may, and so the library must."""
    if request.node.get_closest_marker("relaxed"):
        yield
        return
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(autouse=True)
def few_memory_maps():
    """Drop compiled programs before Linux does: XLA crashes at 65,530 memory maps."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()


@pytest.fixture
def x64():
    """Run a test with 64-bit types enabled."""
    with jax.enable_x64(True):
        yield
