"""The watch sees every flagged batch, and no step waits for it."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc

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

    return (jax.lax.fori_loop(0, 400, body, x)[0, 0] > 2).astype(jnp.int32)


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


def test_calls_copy_nothing_by_themselves():
    """Copies to the host are started, never made on the spot."""
    look = jax_ctc.watch(every=2, on_report=lambda number, report: None)
    status, logits = step(LOGITS, GOOD)
    look(status, logits, GOOD)
    with jax.transfer_guard_device_to_host("disallow"):
        for _ in range(8):
            look(status, logits, GOOD)
    look.close()
    assert look.num_steps == 9


def test_a_batch_that_is_gone_is_said(recwarn):
    """With too small a `keep` the warning says what to change; nothing is invented."""
    with pytest.warns(UserWarning, match="larger `keep`"):
        look = run({0}, 12, every=8, keep=2)
    assert look.reports == []
    assert look.num_flagged == 1


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


def test_what_the_callback_raises_comes_out_at_the_end():
    def fail(number, report):
        raise LookupError(f"step {number}")

    look = jax_ctc.watch(every=1, on_report=fail)
    look(step(LOGITS, BAD)[0], LOGITS, BAD)
    with pytest.raises(LookupError, match="step 0"):
        look.close()


def test_reports_are_printed_by_default(capfd):
    with jax_ctc.watch(every=1, vocabulary="_abc") as look:
        look(step(LOGITS, BAD)[0], LOGITS, BAD)
    assert "step 0: 1 finding" in capfd.readouterr().err
    assert look.reports[0][1].utterances[0].labels == "ab"


@pytest.mark.parametrize("name", ["every", "keep", "most_reports"])
def test_bad_options(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1; got 0"):
        jax_ctc.watch(**{name: 0})
