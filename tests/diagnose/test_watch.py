"""The watch sees every flagged batch, and no step waits for it."""

import copy
import gc
import pickle
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from jax_ctc._diagnose import here

LOGITS = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
GOOD, BAD = np.array([[1, 2], [3, 1]], np.int32), np.array([[1, 2], [3, 9]], np.int32)


@jax.jit
def step(logits, labels):
    """Return what a training step returns beside its loss."""
    return jax_ctc.ctc_loss_with_status(logits, labels)[1], logits


@jax.jit
def slow_zero(x):
    """Keep the device busy for a while, and return 0."""

    def body(_, m):
        return jnp.tanh(m @ m)

    return (jax.lax.fori_loop(0, 60, body, x)[0, 0] > 2).astype(jnp.int32)


def run(flagged, steps, **options):
    """Train for some steps, of which some are flagged; return the closed watch."""
    with jax_ctc.watch(on_report=lambda number, report: None, **options) as look:
        for number in range(steps):
            labels = BAD if number in flagged else GOOD
            status, logits = step(LOGITS, labels)
            look(status, logits, labels)
    return look


def test_the_flagged_step_is_reported():
    look = run({5}, 12, every=4)
    [(number, report)] = look.reports
    assert number == 5
    assert report.codes() == {"LABEL_OUT_OF_RANGE"}
    assert report.findings[0].utterances == (1,)
    assert (look.num_steps, look.num_flagged) == (12, 1)


def test_a_clean_run_reports_nothing():
    look = run(set(), 9, every=2)
    assert look.reports == []
    assert look.num_flagged == 0


def test_the_last_steps_are_not_forgotten():
    """Fewer steps than a window, and a fault in the last one."""
    look = run({2}, 3, every=50)
    assert [number for number, _ in look.reports] == [2]


def test_each_window_is_asked_once_and_then_only_counted():
    look = run(set(range(20)), 20, every=2, keep=40, most_reports=3)
    assert len(look.reports) == 3
    assert look.num_flagged == 10
    numbers = [number for number, _ in look.reports]
    assert numbers == sorted(set(numbers))


def test_healthy_batches_are_looked_at_now_and_then():
    """A mistake without a bit is reported; a batch without a mistake is only looked at.

    Probabilities passed as logits need no model that has learnt anything.
    """
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(2, keepdims=True)
    seen = []
    with jax_ctc.watch(
        every=2,
        probe_every=4,
        most_reports=1,
        on_report=lambda number, report: seen.append((number, report.codes())),
    ) as look:
        for number in range(14):
            status, logits = step(LOGITS if number < 4 else shares, GOOD)
            look(status, logits, GOOD)
            while look._is_probing:  # nothing is left out because another is busy
                time.sleep(0.01)
    assert seen == [(4, {"PROBABILITIES_AS_LOGITS"})]
    assert (look.num_steps, look.num_flagged, look.num_probed) == (14, 0, 2)
    assert run(set(), 9, every=2).num_probed == 0
    with pytest.raises(ValueError, match="probe_every"):
        jax_ctc.watch(probe_every=0)


def test_a_wildcard_is_not_the_blank():
    """Said when the watch is made, not hours later by the first report."""
    with pytest.raises(ValueError, match="wildcard_id"):
        jax_ctc.watch(wildcard_id=3, blank_id=3)


def test_a_step_never_waits():
    """Every call returns while the step it was given is still running."""
    x = jnp.eye(500) * 0.5
    slow_zero(x).block_until_ready()
    start = time.perf_counter()
    slow_zero(x).block_until_ready()
    if time.perf_counter() - start < 0.02:
        pytest.skip("this device is too fast to be caught waiting")
    with jax_ctc.watch(every=1, on_report=lambda number, report: None) as look:
        look(*step(LOGITS, GOOD), GOOD)  # what compiles, compiles here
        running = []
        for _ in range(4):
            status = step(LOGITS, GOOD)[0] | slow_zero(x)
            look(status, LOGITS, GOOD)
            running.append(not status.is_ready())
    assert all(running)


class OnItsWay:
    """An array on a device: to read it waits, unless its copy was begun and is here."""

    def __init__(self, value):
        self.value, self.is_copying, self.is_here = value, False, False

    def copy_to_host_async(self):
        self.is_copying = True

    def is_ready(self):
        return self.is_here

    def __array__(self, *args, **options):  # noqa: D105
        assert self.is_copying, "the copy was not begun"
        assert self.is_here, "the copy has not arrived"
        return np.asarray(self.value)


@pytest.fixture
def device(monkeypatch):
    """Arrays that arrive when the test says so."""
    made = []

    def parts(status):
        made.append(OnItsWay(status))
        yield 0, made[-1]

    monkeypatch.setattr(here, "parts", parts)
    return made


def test_calls_read_only_what_has_arrived(device):
    """Copies to the host are started, and never waited for."""
    look = jax_ctc.watch(every=2, on_report=lambda number, report: None)
    good, bad = np.zeros(2, np.int32), np.full(2, 2, np.int32)
    for number in range(4):
        look(bad if number == 1 else good, LOGITS, BAD)
    assert look.num_flagged == 0  # nothing has arrived
    for array in device:
        array.is_here = True
    look(good, LOGITS, GOOD)
    assert look.num_flagged == 1
    device[-1].is_here = True
    assert [number for number, _ in look.close()] == [1]


def test_clean_batches_are_let_go(device):
    """As soon as a step's own status is here, not when the window's is."""
    look = jax_ctc.watch(every=50, keep=8)
    held = [jnp.ones((2, 6, 4)) * n for n in range(3)]
    gone = [weakref.ref(array) for array in held]
    for _ in range(len(held)):
        look(np.zeros(2, np.int32), held.pop(0), GOOD)
    assert all(ref() is not None for ref in gone)
    for array in device:
        array.is_here = True
    look(np.zeros(2, np.int32), LOGITS, GOOD)
    gc.collect()
    assert all(ref() is None for ref in gone)
    for array in device:
        array.is_here = True
    look.close()


def test_nothing_is_held_once_the_reports_are_made():
    with jax_ctc.watch(
        every=1, most_reports=1, on_report=lambda number, report: None
    ) as look:
        status = step(LOGITS, BAD)[0].block_until_ready()
        for _ in range(3):
            look(status, LOGITS, BAD)
            time.sleep(0.01)
        held = jnp.ones(3)
        gone = weakref.ref(held)
        look(status, held, BAD)
        del held
        gc.collect()
        assert gone() is None
    assert len(look.reports) == 1


def test_a_batch_that_is_gone_is_said(device):
    """With too small a `keep` the warning says what to change; nothing is invented."""
    look = jax_ctc.watch(every=8, keep=2)
    for number in range(12):
        look(np.full(2, 2 * (number == 0), np.int32), LOGITS, BAD)
    for array in device:
        array.is_here = True
    with pytest.warns(UserWarning, match="larger `keep`"):
        look(np.zeros(2, np.int32), LOGITS, GOOD)
    assert look.num_flagged == 1
    for array in device:
        array.is_here = True
    assert look.close() == []


def test_a_donated_batch_is_said_at_once():
    """The step took the batch over, so there is nothing left to look at."""
    take = jax.jit(lambda x: x + 1, donate_argnums=0)
    labels = jnp.asarray(GOOD)
    take(labels)
    assert labels.is_deleted()
    look = jax_ctc.watch()
    with pytest.raises(RuntimeError, match=r"`watch`.*step 0.*donated.*jnp.copy"):
        look(np.zeros(2, np.int32), LOGITS, labels)
    look.close()


def test_a_batch_that_a_later_step_takes_over_is_said(device, capfd):
    """It is gone by the time it would be diagnosed; what JAX says is the cause."""
    look = jax_ctc.watch(every=1)
    logits = jnp.asarray(LOGITS)
    look(np.full(2, 2, np.int32), logits, BAD)
    logits.delete()
    for array in device:
        array.is_here = True
    with pytest.raises(RuntimeError, match=r"`watch`.*step 0.*donated") as error:
        look.close()
    assert "deleted" in str(error.value.__cause__)
    assert "`watch` cannot look at step 0" in capfd.readouterr().err


def test_a_loader_may_fill_its_buffer_anew():
    labels = BAD.copy()
    with jax_ctc.watch(every=4, on_report=lambda number, report: None) as look:
        status = step(LOGITS, labels)[0]
        look(status, LOGITS, labels)
        labels[:] = 1
    assert look.reports[0][1].codes() == {"LABEL_OUT_OF_RANGE"}


def test_status_may_have_any_shape_and_change_it():
    with jax_ctc.watch(every=2, on_report=lambda number, report: None) as look:
        for shape in ((2,), (1, 2), ()):
            status = jnp.zeros(shape, jnp.int32)
            look(status, LOGITS, GOOD)
    assert look.num_flagged == 0


def test_an_error_in_the_loop_is_not_replaced():
    def loop():
        with jax_ctc.watch() as look:
            look(step(LOGITS, BAD)[0], LOGITS, BAD)
            return 1 / 0

    with pytest.raises(ZeroDivisionError):
        loop()


def test_what_the_callback_raises_comes_out_at_the_end(capfd):
    def fail(number, report):
        raise LookupError(f"step {number}")

    look = jax_ctc.watch(every=1, on_report=fail)
    look(step(LOGITS, BAD)[0], LOGITS, BAD)
    with pytest.raises(LookupError, match="step 0"):
        look.close()
    assert "step 0 was flagged, but LookupError" in capfd.readouterr().err
    assert len(look.close()) == 1  # said once


def test_reports_are_printed_by_default(capfd):
    with jax_ctc.watch(every=1, vocabulary="_abc") as look:
        look(step(LOGITS, BAD)[0], LOGITS, BAD)
    assert "step 0: 1 finding" in capfd.readouterr().err
    assert look.reports[0][1].utterances[0].labels == "ab"


def test_a_flagged_batch_that_is_gone_leaves_its_window_to_the_next(device):
    """A later one of the same window is still at hand: nothing to warn of."""
    look = jax_ctc.watch(every=8, keep=2, on_report=lambda number, report: None)
    for number in range(8):
        look(np.full(2, 2 * (number in (0, 7)), np.int32), LOGITS, BAD)
    for array in device:
        array.is_here = True
    assert [number for number, _ in look.close()] == [7]
    assert look.num_flagged == 1


@pytest.mark.parametrize(
    "copy", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"]
)
def test_a_watch_is_no_part_of_a_state(copy):
    look = jax_ctc.watch()
    with pytest.raises(TypeError, match="cannot be pickled or copied.*a thread.*make"):
        copy(look)
    look.close()


def test_names_may_change_after_the_call():
    names = ["_", "a", "b", "c"]
    with jax_ctc.watch(
        every=1, vocabulary=names, on_report=lambda number, report: None
    ) as look:
        names[:] = "????"
        look(step(LOGITS, BAD)[0], LOGITS, BAD)
    assert look.reports[0][1].utterances[0].labels == "ab"


@pytest.mark.parametrize("name", ["every", "keep", "most_reports"])
def test_bad_options(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1; got 0"):
        jax_ctc.watch(**{name: 0})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 2.5}, TypeError, "`every` must be an int; got 2.5"),
        ({"inputs": "nope"}, ValueError, "`inputs` must be one of"),
        ({"blank_id": "a"}, TypeError, "`blank_id` must be an int"),
        ({"blank_id": -1}, ValueError, "a class, 0 or more; got -1.*blank_id=V - 1"),
        ({"vocabulary": 4}, TypeError, "as a list or a string of letters.*got int"),
        ({"vocabulary": set("_abc")}, TypeError, "set has no order"),
    ],
)
def test_options_are_checked_before_the_training(options, error, message):
    with pytest.raises(error, match=message):
        jax_ctc.watch(**options)


@pytest.mark.parametrize(
    ("options", "logits", "error", "message"),
    [
        ({"blank_id": 4}, LOGITS, ValueError, "one of the V=4 classes, 0..3; got 4"),
        ({"vocabulary": "_ab"}, LOGITS, ValueError, "all V=4 classes.*got 3 names"),
        ({}, GOOD, TypeError, "`logits` must be floating point"),
    ],
)
def test_what_the_first_step_shows_is_checked_there(options, logits, error, message):
    """Not when the first batch is flagged, days later."""
    look = jax_ctc.watch(**options)
    with pytest.raises(error, match=message):
        look(np.zeros(2, np.int32), logits, GOOD)
    look.close()


@pytest.mark.parametrize("status", [None, [0, 0], np.zeros(2, np.float32)])
def test_a_status_is_an_array_of_integers(status):
    look = jax_ctc.watch()
    with pytest.raises(TypeError, match="`status` must be the int32 array"):
        look(status, LOGITS, GOOD)
    look.close()


def test_a_watch_inside_jit_or_after_its_end_says_so():
    look = jax_ctc.watch()
    with pytest.raises(TypeError, match="outside `jax.jit`"):
        jax.jit(lambda status: look(status, LOGITS, GOOD))(jnp.zeros(2, jnp.int32))
    look.close()
    with pytest.raises(RuntimeError, match="closed"):
        look(np.zeros(2, np.int32), LOGITS, GOOD)
