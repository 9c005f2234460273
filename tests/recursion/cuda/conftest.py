"""Kernels of the emulator, and what keeps them apart from other tests' programs."""

import jax
import pytest

from jax_ctc import _recursion
from jax_ctc._recursion import cuda
from tests.recursion.cuda import emulator


@pytest.fixture
def emulated(monkeypatch):
    """Have the kernels run here; return who counts them."""
    return emulator.install(monkeypatch)


@pytest.fixture
def guest(monkeypatch, emulated):
    """Enter them in the table as if they were for this platform."""
    monkeypatch.setattr(cuda, "PLATFORM", "cpu")
    monkeypatch.setattr(_recursion, "GUESTS", {"cuda": cuda})
    jax.clear_caches()
    yield "cuda"
    jax.clear_caches()
