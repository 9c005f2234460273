"""Every traced mistake: its bit, its value, gradient 0, and neighbours untouched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from jax_ctc import Status
from tests.oracle import batch_loss_and_gradient

B, T, V, U = 3, 9, 5, 4
ROW = 1  # the utterance that is made bad
WEIGHTS = np.array([1.0, -2.0, 3.0], np.float32)  # random cotangents in effect


def healthy():
    """A batch with nothing wrong; each test changes one row of it."""
    rng = np.random.default_rng(7)
    return {
        "logits": rng.normal(size=(B, T, V)).astype(np.float32),
        "labels": np.array([[1, 2, 2, 3], [4, 1, 3, 2], [2, 4, 1, 1]], np.int32),
        "logit_lengths": np.array([9, 8, 7], np.int32),
        "label_lengths": np.array([4, 4, 3], np.int32),
    }


def put(name, where, value):
    """A fault: one array, one place in the bad row, one value."""

    def change(batch):
        batch[name][(ROW, *np.atleast_1d(where))] = value

    return change


def both(*changes):
    """A fault made of several."""

    def change(batch):
        for one in changes:
            one(batch)

    return change


def length(name, value):
    """A fault in a length."""

    def change(batch):
        batch[name][ROW] = value

    return change


def frames(slices, value):
    """A fault in a block of the bad row's logits."""

    def change(batch):
        batch["logits"][(ROW, *slices)] = value

    return change


def repeats(batch):
    """Four equal labels need seven frames, one more than there are."""
    batch["labels"][ROW] = 3
    batch["logit_lengths"][ROW] = 6


FLAGGED = {
    "too few frames": (length("logit_lengths", 3), Status.INFEASIBLE),
    "too few frames for the repeats": (repeats, Status.INFEASIBLE),
    "no frames but labels": (length("logit_lengths", 0), Status.INFEASIBLE),
    "label id V": (put("labels", 2, V), Status.LABEL_OUT_OF_RANGE),
    "label id -1": (put("labels", 0, -1), Status.LABEL_OUT_OF_RANGE),
    "label id 2**31 - 1": (put("labels", 3, 2**31 - 1), Status.LABEL_OUT_OF_RANGE),
    "label id -2**31": (put("labels", 3, -(2**31)), Status.LABEL_OUT_OF_RANGE),
    "blank among the labels": (put("labels", 1, 0), Status.BLANK_IN_LABELS),
    "blank and id V": (
        both(put("labels", 1, 0), put("labels", 2, V)),
        Status.BLANK_IN_LABELS | Status.LABEL_OUT_OF_RANGE,
    ),
    "logit length -1": (length("logit_lengths", -1), Status.BAD_LENGTH),
    "logit length T + 1": (length("logit_lengths", T + 1), Status.BAD_LENGTH),
    "logit length 2**31 - 1": (length("logit_lengths", 2**31 - 1), Status.BAD_LENGTH),
    "label length -1": (length("label_lengths", -1), Status.BAD_LENGTH),
    "label length U + 1": (length("label_lengths", U + 1), Status.BAD_LENGTH),
    "label length 2**31 - 1": (length("label_lengths", 2**31 - 1), Status.BAD_LENGTH),
    "needed class at -inf": (
        frames((slice(None), 3), -np.inf),
        Status.ZERO_PROBABILITY,
    ),
    "needed class far below": (
        frames((slice(None), 3), -3e38),
        Status.ZERO_PROBABILITY,
    ),
    "NaN": (put("logits", (4, 2), np.nan), Status.NONFINITE_LOGITS),
    "NaN in an unneeded class": (
        both(put("logits", (4, 3), np.nan), put("labels", 2, 1)),
        Status.NONFINITE_LOGITS,
    ),
    "NaN in the first frame": (put("logits", (0, 0), np.nan), Status.NONFINITE_LOGITS),
    "+inf": (put("logits", (4, 2), np.inf), Status.NONFINITE_LOGITS),
    "a frame of only -inf": (frames((5,), -np.inf), Status.NONFINITE_LOGITS),
    "NaN and id V": (
        both(put("logits", (4, 2), np.nan), put("labels", 2, V)),
        Status.NONFINITE_LOGITS | Status.LABEL_OUT_OF_RANGE,
    ),
    "NaN and too few frames": (
        both(put("logits", (1, 2), np.nan), length("logit_lengths", 3)),
        Status.NONFINITE_LOGITS | Status.INFEASIBLE,
    ),
}


def exactly_enough(batch):
    """Labels 4 1 1 2 in five frames: one path only."""
    batch["labels"][ROW] = [4, 1, 1, 2]
    batch["logit_lengths"][ROW] = 5


LEGAL = {
    "exactly enough frames": exactly_enough,
    "empty label": length("label_lengths", 0),
    "zero frames with empty label": both(
        length("label_lengths", 0), length("logit_lengths", 0)
    ),
    "-inf on other classes": both(
        frames((slice(None), 3), -np.inf), put("labels", 2, 1), put("labels", 1, 2)
    ),
    "-inf on a label at some frames": frames((slice(0, 3), 3), -np.inf),
    "NaN in padded frames": frames((8,), np.nan),
    "+inf in padded frames": frames((8,), np.inf),
    "-inf in padded frames": frames((8,), -np.inf),
    "garbage in padded labels": both(
        length("label_lengths", 2), put("labels", 2, -7), put("labels", 3, 2**31 - 1)
    ),
    "blank in padded labels": both(length("label_lengths", 3), put("labels", 3, 0)),
    "logits of 1e4": lambda batch: batch["logits"].__imul__(1e4),
    "logits offset by 1e4": lambda batch: batch["logits"].__iadd__(1e4),
    "logits offset by -1e4": lambda batch: batch["logits"].__isub__(1e4),
}


@functools.partial(jax.jit, static_argnames=("implementation", "infeasible"))
def run(implementation, infeasible, logits, labels, logit_lengths, label_lengths, w):
    """Loss, status and weighted gradient from one compiled function."""

    def weighted(logits):
        loss, status = jax_ctc.ctc_loss_with_status(
            logits,
            labels,
            logit_lengths,
            label_lengths,
            infeasible=infeasible,
            implementation=implementation,
        )
        return (loss * w).sum(), (loss, status)

    gradient, (loss, status) = jax.grad(weighted, has_aux=True)(logits)
    return loss, status, gradient


def outcome(batch, implementation="blocked", infeasible="inf", rows=slice(None)):
    """Run a batch, or some rows of it, on the device."""
    arrays = {name: jnp.asarray(array[rows]) for name, array in batch.items()}
    result = run(implementation, infeasible, **arrays, w=jnp.asarray(WEIGHTS[rows]))
    return tuple(np.asarray(array) for array in result)


@pytest.fixture(scope="module", params=["blocked", "scan"])
def implementation(request):
    """Both implementations report, and look away, alike."""
    return request.param


@pytest.mark.parametrize("fault", FLAGGED)
def test_flagged(fault, implementation):
    """The bit is set, the value follows the policy, and only that row changes."""
    change, expected = FLAGGED[fault]
    batch = healthy()
    clean_loss, clean_status, clean_gradient = outcome(batch, implementation)
    assert clean_status.tolist() == [0, 0, 0]
    change(batch)
    loss, status, gradient = outcome(batch, implementation)
    others = np.arange(B) != ROW
    assert Status(int(status[ROW])) == expected
    assert status[others].tolist() == [0, 0]
    is_nan = bool(expected & Status.NONFINITE_LOGITS)
    np.testing.assert_equal(loss[ROW], np.float32(np.nan if is_nan else np.inf))
    np.testing.assert_array_equal(gradient[ROW], 0)
    # Bit for bit: not a rounding of a neighbour may move.
    np.testing.assert_array_equal(loss[others], clean_loss[others])
    np.testing.assert_array_equal(gradient[others], clean_gradient[others])
    # Alone, nothing differs.
    alone = outcome(batch, implementation, rows=slice(ROW, ROW + 1))
    np.testing.assert_array_equal(alone[0], loss[ROW : ROW + 1])
    np.testing.assert_array_equal(alone[1], status[ROW : ROW + 1])
    np.testing.assert_array_equal(alone[2], 0)


@pytest.mark.parametrize("fault", FLAGGED)
def test_flagged_as_zero(fault):
    """With infeasible="zero" the value is 0, but NaN is never hidden."""
    change, expected = FLAGGED[fault]
    batch = healthy()
    change(batch)
    loss, status, gradient = outcome(batch, infeasible="zero")
    assert Status(int(status[ROW])) == expected
    is_nan = bool(expected & Status.NONFINITE_LOGITS)
    np.testing.assert_equal(loss[ROW], np.float32(np.nan if is_nan else 0))
    np.testing.assert_array_equal(gradient[ROW], 0)


@pytest.mark.parametrize("fault", FLAGGED)
def test_check_batch(fault):
    """check_batch reports every bit but the one that takes the recursion."""
    change, expected = FLAGGED[fault]
    batch = healthy()
    change(batch)
    status = jax_ctc.check_batch(**batch)
    assert Status(int(status[ROW])) == expected & ~Status.ZERO_PROBABILITY
    assert status[0] == status[2] == 0


@pytest.mark.parametrize("case", LEGAL)
def test_legal(case, implementation):
    """Not flagged, and exact."""
    batch = healthy()
    LEGAL[case](batch)
    loss, status, gradient = outcome(batch, implementation)
    assert status.tolist() == [0, 0, 0]
    assert jax_ctc.check_batch(**batch).tolist() == [0, 0, 0]
    exact_loss, exact_gradient = batch_loss_and_gradient(
        batch["logits"],
        batch["labels"],
        batch["logit_lengths"],
        batch["label_lengths"],
    )
    ulp = np.spacing(exact_loss.astype(np.float32))
    assert (np.abs(loss - exact_loss) <= 4 * ulp + T * 1e-7).all()
    assert (loss >= 0).all()
    assert not np.signbit(loss).any()
    exact_gradient = exact_gradient * WEIGHTS[:, None, None]
    np.testing.assert_allclose(gradient, exact_gradient, rtol=0, atol=3e-5)


def test_zero_probability_is_seen_from_log_probs():
    """Masks in log-probabilities flag as masks in logits do."""
    log_probs = np.full((1, 3, 3), -1.0, np.float32)
    log_probs[:, :, 1] = -np.inf
    labels = np.array([[1]])
    assert jax_ctc.ctc_loss_from_log_probs(log_probs, labels)[0] == np.inf
    gradient = jax.grad(lambda x: jax_ctc.ctc_loss_from_log_probs(x, labels).sum())
    np.testing.assert_array_equal(gradient(log_probs), 0)


@pytest.mark.parametrize("seed", [np.inf, -np.inf, np.nan])
def test_cotangents_of_flagged_rows_do_not_leak(seed):
    """Even an infinite cotangent meets a gradient of exactly 0."""
    batch = healthy()
    FLAGGED["too few frames"][0](batch)
    _, pull = jax.vjp(
        lambda x: jax_ctc.ctc_loss(
            x, batch["labels"], batch["logit_lengths"], batch["label_lengths"]
        ),
        batch["logits"],
    )
    cotangent = jnp.array([1.0, seed, 1.0], jnp.float32)
    [gradient] = pull(cotangent)
    np.testing.assert_array_equal(gradient[ROW], 0)


@pytest.mark.parametrize(
    "fault", ["too few frames", "label id V", "needed class at -inf", "NaN"]
)
def test_second_order_beside_flagged_rows(fault):
    """A flagged row has no curvature, and leaves its neighbours theirs."""
    clean, bad = healthy(), healthy()
    FLAGGED[fault][0](bad)
    tangent = jnp.ones((B, T, V), jnp.float32)

    def product(batch):
        def total(x):
            loss = jax_ctc.ctc_loss(
                x,
                batch["labels"],
                batch["logit_lengths"],
                batch["label_lengths"],
                infeasible="zero",
            )
            return jnp.sum(jnp.where(jnp.isnan(loss), 0, loss) ** 2)

        return jax.jvp(jax.grad(total), (jnp.asarray(batch["logits"]),), (tangent,))

    gradient, curvature = product(bad)
    others = np.arange(B) != ROW
    np.testing.assert_array_equal(gradient[ROW], 0)
    np.testing.assert_array_equal(curvature[ROW], 0)
    np.testing.assert_allclose(
        curvature[others], product(clean)[1][others], rtol=1e-5, atol=1e-5
    )


def test_explain_and_raise_if():
    """Each bit has a sentence that starts with its name; all utterances are named."""
    status = jnp.array([[0, 1], [48, 2]], jnp.int32)
    reasons = jax_ctc.explain(status)
    heads = [[text.split(":")[0] for text in texts] for texts in reasons]
    assert heads == [
        [],
        ["INFEASIBLE"],
        ["NONFINITE_LOGITS", "ZERO_PROBABILITY"],
        ["LABEL_OUT_OF_RANGE"],
    ]
    with pytest.raises(ValueError, match="3 of 4 utterances") as caught:
        jax_ctc.raise_if(status)
    message = str(caught.value)
    for line in (
        "[0, 1] INFEASIBLE:",
        "[1, 0] NONFINITE_LOGITS:",
        "[1, 0] ZERO_PROBABILITY:",
        "[1, 1] LABEL_OUT_OF_RANGE:",
    ):
        assert line in message
    jax_ctc.raise_if(jnp.zeros((2, 2), jnp.int32))
    jax_ctc.raise_if(jnp.zeros(0, jnp.int32))
    assert jax_ctc.explain(jnp.int32(1)) == [reasons[1]]


def test_every_bit_has_a_sentence():
    """No flag is left without words."""
    for flag in Status:
        [[sentence]] = jax_ctc.explain([int(flag)])
        assert sentence.startswith(f"{flag.name}: ")


@pytest.mark.parametrize("function", [jax_ctc.explain, jax_ctc.raise_if])
def test_status_on_a_tracer(function):
    """Inside jit the message says to call it outside."""
    with pytest.raises(TypeError, match=f"`{function.__name__}` reads concrete"):
        jax.jit(function)(jnp.zeros(2, jnp.int32))


@pytest.mark.parametrize("function", [jax_ctc.explain, jax_ctc.raise_if])
def test_status_that_is_none(function):
    """Losses or other numbers are refused, not explained."""
    with pytest.raises(TypeError, match="float32"):
        function(jnp.zeros(2))
    with pytest.raises(ValueError, match=r"outside the bits .* \[128\]"):
        function([0, 128])
    with pytest.raises(ValueError, match="outside the bits"):
        function([-1])
