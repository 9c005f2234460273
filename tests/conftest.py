"""What every test runs under: 8 CPU devices, strict JAX, nothing downloaded."""

import os

# Before JAX starts: sharding tests need several devices, and CPU is what everybody has.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest


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


@pytest.fixture
def x64():
    """Run a test with 64-bit types enabled."""
    with jax.enable_x64(True):
        yield
