"""Tests of the kernel need the kernel."""

import pytest

from jax_ctc._recursion.cpu import library


@pytest.fixture
def kernel():
    """Skip where it is not built, with the reason that users are given."""
    if library.missing():
        pytest.skip(library.missing())
