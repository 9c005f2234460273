"""Guests and the way they enter, proved by the smallest there can be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from jax_ctc import _recursion
from tests import contract, guest_contract, small_guest
from tests.cases import more


@pytest.fixture
def guest(monkeypatch, nothing_stored):
    """Put the small guest into the table, first of all; forget what was compiled.

    The mark is a name, and names are no part of a stored program's key.
    """
    tables = {"small": small_guest} | _recursion.GUESTS
    monkeypatch.setattr(_recursion, "GUESTS", tables)
    monkeypatch.setitem(contract.GRADIENT_ATOL, ("small", "float32"), 1e-5)
    jax.clear_caches()
    yield "small"
    jax.clear_caches()


# The guests of the library pass them all, each in its own folder.
FIRST = (guest_contract.check_jit, guest_contract.check_sharded_batch)


@pytest.mark.parametrize(
    "check",
    [check if check in FIRST else more(check) for check in guest_contract.CHECKS],
    ids=lambda x: x.__name__,
)
def test_transforms(guest, check):
    """Every transform, by name."""
    check(guest, small_guest.MARK)


@pytest.mark.parametrize("name", ["ragged", "some_empty"])
def test_contract(guest, name):
    """A guest passes what `blocked` and `scan` pass."""
    contract.check_value(guest, name, "float32")
    contract.check_gradient(guest, name, "float32")
    contract.check_padding(guest, name)
    contract.check_permutation(guest, name)


def text_of(implementation=None, **options):
    """Compile the loss of the small batch."""
    function = jax.jit(
        lambda *arrays: jax_ctc.ctc_loss(
            *arrays, implementation=implementation, **options
        )
    )
    return function.lower(*guest_contract.batch()).compile().as_text()


def test_a_guest_that_has_run_is_the_default(guest, monkeypatch):
    """One that has only been compiled is taken by name, or where it is preferred."""
    assert small_guest.MARK in text_of()
    assert small_guest.MARK not in text_of("blocked")
    monkeypatch.setattr(small_guest, "HAS_RUN_ON", None)
    jax.clear_caches()
    assert small_guest.MARK not in text_of()
    assert small_guest.MARK in text_of(guest)
    monkeypatch.setattr(_recursion, "PREFERRED", guest)
    jax.clear_caches()
    assert small_guest.MARK in text_of()


def test_preferring_plain_xla_switches_guests_off(guest, monkeypatch):
    """As JAX_CTC_IMPLEMENTATION=blocked does."""
    monkeypatch.setattr(_recursion, "PREFERRED", "blocked")
    assert small_guest.MARK not in text_of()


def test_a_named_guest_says_why_it_declines(guest, x64):
    """And an unnamed one stands back without a word."""
    logits, *rest = guest_contract.batch()
    arrays = (logits.astype(np.float64), *rest)
    with pytest.raises(NotImplementedError, match="small: it takes float32, and"):
        jax_ctc.ctc_loss(*arrays, implementation=guest)
    assert jax_ctc.ctc_loss(*arrays).dtype == jnp.float64


@pytest.mark.parametrize("empty", ["batch", "labels", "frames"])
def test_nothing_to_do_is_declined_for_every_guest(guest, empty):
    """A kernel never sees an empty array."""
    batch, labels = (0 if empty == "batch" else 2), (0 if empty == "labels" else 1)
    logits = jnp.zeros((batch, 0 if empty == "frames" else 3, 4))
    assert jax_ctc.ctc_loss(logits, jnp.ones((batch, labels), int)).shape == (batch,)


def test_implementations_tells_what_there_is(guest):
    """Names, platforms, and which of them runs unasked."""
    found = {record.name: record for record in jax_ctc.implementations()}
    assert found[guest].is_default
    assert found[guest].declines is None
    assert not found["blocked"].is_default
    assert list(found)[-2:] == ["blocked", "scan"]


def test_an_unknown_preference_is_named():
    """At import, with the variable, what it says and what it may say."""
    import subprocess
    import sys

    run = subprocess.run(
        [sys.executable, "-c", "import jax_ctc"],
        env={"JAX_CTC_IMPLEMENTATION": "fastest", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "JAX_CTC_IMPLEMENTATION is 'fastest'" in run.stderr
