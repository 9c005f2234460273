"""Every transform of the default implementation, against finite differences too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from tests.cases import more
from tests.oracle import batch_loss_and_gradient, loss_and_gradient

B, T, V, U = 4, 13, 6, 4
WEIGHTS = np.array([1.0, -2.0, 3.0, 0.5])


def problem(dtype=np.float64):
    """One ragged batch, with an empty label and repeats."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(B, T, V)).astype(dtype)
    labels = np.array([[1, 1, 2, 3], [5, 4, 4, 4], [1, 2, 0, 0], [3, 2, 5, 1]])
    return (
        logits,
        labels.astype(np.int32),
        np.array([13, 9, 6, 11], np.int32),
        np.array([4, 4, 2, 0], np.int32),
    )


def objective(logits, rest, implementation=None):
    """A weighted sum, so that every utterance has a cotangent of its own."""
    loss = jax_ctc.ctc_loss(logits, *rest, implementation=implementation)
    return jnp.sum(loss * jnp.asarray(WEIGHTS, loss.dtype))


def exact_gradient(logits, rest):
    """The oracle's gradient of the same sum."""
    return batch_loss_and_gradient(logits, *rest)[1] * WEIGHTS[:, None, None]


def exact_hvp(logits, rest, tangent, step=1e-5):
    """Central difference of the oracle's gradient along the tangent: about 1e-9."""
    ahead = exact_gradient(logits + step * tangent, rest)
    behind = exact_gradient(logits - step * tangent, rest)
    return (ahead - behind) / (2 * step)


@pytest.fixture
def case(x64):
    """The problem in float64, a tangent, and the two exact answers."""
    logits, *rest = problem()
    tangent = np.random.default_rng(4).normal(size=logits.shape)
    return logits, rest, tangent


def close(value, expected, atol=1e-9):
    """Compare to the float64 truth."""
    np.testing.assert_allclose(np.asarray(value), expected, rtol=0, atol=atol)


def test_first_order(case):
    """Grad, vjp, jvp and linearize are one rule, and right."""
    logits, rest, tangent = case
    gradient = exact_gradient(logits, rest)
    slope = np.sum(gradient * tangent)
    f = functools.partial(objective, rest=rest)
    close(jax.jit(jax.grad(f))(logits), gradient)
    close(jax.jit(lambda x: jax.vjp(f, x)[1](2.0)[0])(logits), 2 * gradient)
    close(jax.jit(lambda x, t: jax.jvp(f, (x,), (t,))[1])(logits, tangent), slope)
    close(jax.linearize(f, logits)[1](tangent), slope)
    close(jax.jit(jax.grad(jax.checkpoint(f)))(logits), gradient)


@pytest.mark.slow
def test_second_order(case):
    """Forward over reverse and reverse over reverse agree with finite differences."""
    logits, rest, tangent = case
    expected = exact_hvp(logits, rest, tangent)
    gradient = jax.grad(functools.partial(objective, rest=rest))

    @jax.jit
    def forward_over_reverse(x, t):
        return jax.jvp(gradient, (x,), (t,))[1]

    @jax.jit
    def reverse_over_reverse(x, t):
        return jax.grad(lambda x: jnp.vdot(gradient(x), t))(x)

    @jax.jit
    def reverse_over_forward(x, t):
        f = functools.partial(objective, rest=rest)
        return jax.grad(lambda x: jax.jvp(f, (x,), (t,))[1])(x)

    close(forward_over_reverse(logits, tangent), expected, 1e-7)
    close(reverse_over_reverse(logits, tangent), expected, 1e-7)
    close(reverse_over_forward(logits, tangent), expected, 1e-7)
    # Padding has no curvature either.
    product = np.asarray(forward_over_reverse(logits, tangent))
    is_padding = np.arange(T) >= rest[1][:, None]
    np.testing.assert_array_equal(product[is_padding], 0)


@pytest.mark.slow
def test_hessian(case):
    """The Hessian of one utterance: symmetric, and its products are the HVP's."""
    logits, rest, tangent = case
    one, arguments = logits[1, :5], (rest[0][1, :2], None, None)
    hessian = jax.jit(jax.hessian(lambda x: jax_ctc.ctc_loss(x, *arguments)))(one)
    flat = np.asarray(hessian).reshape(one.size, one.size)
    close(flat, flat.T)
    direction = tangent[1, :5]

    def gradient(x):
        return loss_and_gradient(x, rest[0][1, :2])[1]

    step = 1e-5
    expected = gradient(one + step * direction) - gradient(one - step * direction)
    close(flat @ direction.ravel(), expected.ravel() / (2 * step), 1e-7)


@pytest.mark.exhaustive
def test_third_order(case):
    """Derivatives do not stop at two."""
    logits, rest, tangent = case

    def along(s, implementation):
        f = functools.partial(objective, rest=rest, implementation=implementation)
        return jax.grad(jax.grad(jax.grad(lambda s: f(logits + s * tangent))))(s)

    close(along(0.0, None), along(0.0, "scan"), 1e-8)


def test_vmap_is_the_batch(case):
    """Mapping over utterances gives the batched loss, gradient and curvature."""
    logits, rest, tangent = case
    batched = jax_ctc.ctc_loss(logits, *rest)
    close(jax.vmap(jax_ctc.ctc_loss)(logits, *rest), batched, 0)

    def curved(x, t, *rest):
        return jax.jvp(lambda x: jax.grad(jax_ctc.ctc_loss)(x, *rest), (x,), (t,))

    gradient, product = jax.jit(jax.vmap(curved))(logits, tangent, *rest)
    close(gradient * WEIGHTS[:, None, None], exact_gradient(logits, rest))
    product = product * WEIGHTS[:, None, None]
    close(product, exact_hvp(logits, rest, tangent), 1e-7)


def test_leading_axes(case):
    """Any number of leading axes, none included, is the same as one."""
    logits, rest, _ = case
    labels, logit_lengths, label_lengths = rest
    batched = jax_ctc.ctc_loss(logits, *rest)
    square = jax_ctc.ctc_loss(
        logits.reshape(2, 2, T, V),
        labels.reshape(2, 2, U),
        logit_lengths.reshape(2, 2),
        label_lengths.reshape(2, 2),
    )
    close(square, batched.reshape(2, 2), 0)
    single = jax_ctc.ctc_loss(
        logits[1], labels[1], int(logit_lengths[1]), int(label_lengths[1])
    )
    assert single.shape == ()
    close(single, batched[1], 0)


def test_inside_scan(case):
    """A training loop in `lax.scan` sees the same gradient in every step."""
    logits, rest, _ = case
    gradient = jax.grad(functools.partial(objective, rest=rest))

    def step(x, _):
        x = x - 0.1 * gradient(x)
        return x, x

    scanned = jax.jit(lambda x: jax.lax.scan(step, x, length=2))(logits)[1]
    close(scanned[0], logits - 0.1 * exact_gradient(logits, rest))
    second = np.asarray(scanned[0])
    close(scanned[1], second - 0.1 * exact_gradient(second, rest))


def test_log_probs_have_their_own_gradient(case):
    """The derivative of log-probabilities is -posterior, by finite differences."""
    logits, rest, tangent = case
    gradient = jax.grad(
        lambda x: jnp.sum(jax_ctc.ctc_loss_from_log_probs(x, *rest) * WEIGHTS)
    )(logits)
    exact = batch_loss_and_gradient(logits, *rest, normalise=False)[1]
    close(gradient, exact * WEIGHTS[:, None, None])
    live = np.arange(T) < rest[1][:, None]
    close(np.asarray(gradient).sum(-1), -WEIGHTS[:, None] * live)
    step = 1e-6
    ahead, behind = (
        np.sum(jax_ctc.ctc_loss_from_log_probs(logits + s * tangent, *rest) * WEIGHTS)
        for s in (step, -step)
    )
    slope = (ahead - behind) / (2 * step)
    close(np.vdot(gradient, tangent), slope, 1e-6)


def test_log_probs_are_not_renormalised(case):
    """A prior added to the scores comes out of the loss; it may be negative."""
    logits, rest, _ = case
    log_probs = jax.nn.log_softmax(logits)
    base = jax_ctc.ctc_loss(logits, *rest)
    close(jax_ctc.ctc_loss_from_log_probs(log_probs, *rest), base)
    raised = jax_ctc.ctc_loss_from_log_probs(log_probs + 3.0, *rest)
    close(raised, base - 3.0 * rest[1])
    assert (raised < 0).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, more(jnp.float16)])
@pytest.mark.usefixtures("both_ends")
@pytest.mark.parametrize("implementation", ["blocked", "both_ends", more("scan")])
def test_half_precision(dtype, implementation):
    """float32 from the first operation; the gradient in the input's dtype."""
    logits, *rest = problem(np.float32)
    half = jnp.asarray(logits, dtype)
    wide = half.astype(jnp.float32)
    f = functools.partial(objective, rest=rest, implementation=implementation)

    @jax.jit
    def run(logits):
        loss = jax_ctc.ctc_loss(logits, *rest, implementation=implementation)
        return loss, jax.grad(f)(logits)

    (loss, gradient), (exact, expected) = run(half), run(wide)
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, exact)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(
        gradient.astype(jnp.float32),
        expected,
        rtol=2 * float(jnp.finfo(dtype).eps),  # rounded once per product
        atol=float(jnp.finfo(dtype).smallest_subnormal),
    )
    product = jax.eval_shape(lambda x: jax.jvp(jax.grad(f), (x,), (x,))[1], half)
    assert product.dtype == dtype


def test_dtypes(x64):
    """float64 stays float64; float32 stays float32 under x64."""
    for dtype in (np.float32, np.float64):
        logits, *rest = problem(dtype)
        loss, status = jax_ctc.ctc_loss_with_status(logits, *rest)
        assert (loss.dtype, status.dtype) == (dtype, np.int32)
        assert jax.grad(objective)(jnp.asarray(logits), rest).dtype == dtype


def test_debug_nans():
    """No NaN is made, not even one that is masked later, from finite input."""
    logits, *rest = problem(np.float32)
    logits[2, 3, 5] = -np.inf  # masks are legal input
    with jax.debug_nans(True):
        for implementation in ("blocked", "scan"):
            f = functools.partial(objective, rest=rest, implementation=implementation)
            gradient = jax.grad(f)(jnp.asarray(logits))
            assert np.isfinite(gradient).all()
        jax_ctc.greedy_decode(logits, rest[1])
        infeasible = jax_ctc.ctc_loss(logits, rest[0], np.array([1, 9, 6, 11]), rest[2])
        assert jax_ctc.reduce_loss(infeasible) > 0
