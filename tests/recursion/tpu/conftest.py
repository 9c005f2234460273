"""The TPU kernels, interpreted, as if they were for this platform."""

import jax
import pytest

from jax_ctc import _recursion
from jax_ctc._recursion import tpu
from tests import contract


@pytest.fixture
def guest(monkeypatch):
    """Enter them in the table for CPUs; forget what was compiled when they change."""
    monkeypatch.setattr(tpu, "PLATFORM", "cpu")
    monkeypatch.setattr(tpu, "HOW", {"interpret": True, "unroll": 1})
    monkeypatch.setattr(_recursion, "GUESTS", {"tpu": tpu})
    monkeypatch.setitem(contract.GRADIENT_ATOL, ("tpu", "float32"), 2e-6)
    return "tpu"


@pytest.fixture(scope="module", autouse=True)
def forget():
    """Programs of this module are not another's: the name means something else here."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture
def short_chunks(monkeypatch):
    """Chunks of 32 frames, two blocks each."""
    from jax_ctc._recursion.tpu import walk

    monkeypatch.setattr(walk, "_CHUNK", 32)
    monkeypatch.setattr(walk, "_BLOCK", 16)
