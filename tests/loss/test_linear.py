"""The loss of a linear layer's logits: that of the logits, without them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from jax_ctc import Status
from jax_ctc._lattice import products, projected
from tests import contract
from tests.cases import more, sure, tagged
from tests.oracle import batch_loss_and_gradient

B, T, D, V, U = 5, 14, 6, 11, 3
LABELS = np.array([[1, 1, 9], [10, 4, 4], [2, 3, -7], [3, 10, 5], [8, 9, 1]], np.int32)
LOGIT_LENGTHS = np.array([12, 9, 6, 11, 12], np.int32)
LABEL_LENGTHS = np.array([3, 3, 2, 0, 3], np.int32)
WEIGHTS = np.array([1.0, -2.0, 3.0, 0.5, 1.0])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of two frames and four classes: neither T nor V is a multiple."""
    monkeypatch.setattr(projected, "_BLOCK", {"cpu": projected.Block(10, 4, 4, 4)})
    monkeypatch.setattr(projected, "_LANES", 4)


def problem(dtype=np.float64, width=D):
    """Features, kernel and bias of ragged utterances, garbage in the padding."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(B, T, width)).astype(dtype)
    features[np.arange(T) >= LOGIT_LENGTHS[:, None]] = np.nan
    kernel = rng.normal(size=(width, V)).astype(dtype)
    return features, kernel, rng.normal(size=V).astype(dtype)


REST = (LABELS, LOGIT_LENGTHS, LABEL_LENGTHS)


def cap(logits):
    """A soft cap."""
    return 3 * jnp.tanh(logits / 3)


def fused(features, kernel, bias, **options):
    """A weighted sum of the losses, without logits."""
    loss = jax_ctc.linear_ctc_loss(features, kernel, bias, *REST, **options)
    return jnp.sum(loss * jnp.asarray(WEIGHTS, loss.dtype))


def plain(features, kernel, bias, transform=None):
    """The same, of logits; padding is replaced, or its NaN would spread here."""
    is_live = np.arange(T)[None, :] < LOGIT_LENGTHS[:, None]
    features = jnp.where(is_live[:, :, None], features, 0)
    logits = jnp.einsum("btd,dv->btv", features, kernel, precision="highest")
    logits = logits if bias is None else logits + bias[None, None]
    logits = logits if transform is None else transform(logits)
    loss = jax_ctc.ctc_loss(logits, *REST)
    return jnp.sum(loss * jnp.asarray(WEIGHTS, loss.dtype))


def close(found, expected, atol=1e-9):
    """Compare trees."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=atol)


@pytest.mark.parametrize("transform", [more(None), cap], ids=["plain", "capped"])
def test_value_and_every_derivative(transform, x64):
    """Value, gradients, jvp and HVP are those of the loss of the logits, in float64."""
    arguments = problem()
    rng = np.random.default_rng(4)
    tangents = tuple(np.asarray(rng.normal(size=x.shape)) for x in arguments)

    def everything(function, arguments, tangents):
        gradient = jax.value_and_grad(function, argnums=(0, 1, 2))
        slope = jax.jvp(function, arguments, tangents)[1]
        return slope, jax.jvp(gradient, arguments, tangents)

    def of(function):
        run = jax.jit(functools.partial(everything, function))
        return run(arguments, tangents)

    found = of(functools.partial(fused, logit_transform=transform))
    expected = of(functools.partial(plain, transform=transform))
    close(found, expected)
    of_features = np.asarray(found[1][0][1][0])
    assert not of_features[np.arange(T) >= LOGIT_LENGTHS[:, None]].any()


def test_few_classes_are_made_once(x64, monkeypatch):
    """No more of them than features: a gradient takes three products, not four."""
    monkeypatch.setattr(projected, "_BLOCK", {"cpu": projected.Block(10, V, V, V)})
    gradient = jax.grad(fused, argnums=(0, 1, 2))
    few, many = problem(width=V), problem(width=V - 1)
    products = [
        str(jax.make_jaxpr(gradient)(*x)).count("ctc_product_if") for x in (few, many)
    ]
    assert products == [3, 4]
    expected = jax.jit(jax.grad(plain, argnums=(0, 1, 2)))(*few)
    close(jax.jit(gradient)(*few), expected)


@pytest.mark.slow
def test_scan_has_the_same_gradient_without_a_bias(x64):
    """By autodiff of the specification; reverse over reverse too."""
    features, kernel, _ = problem()
    direction = np.random.default_rng(5).normal(size=kernel.shape)

    def curved(function):
        gradient = jax.grad(function, argnums=1)
        return jax.jit(
            jax.value_and_grad(
                lambda k: jnp.vdot(gradient(features, k, None), direction)
            )
        )(kernel)

    close(curved(functools.partial(fused, implementation="scan")), curved(plain), 1e-8)


def test_any_leading_axes_and_vmap():
    """None, one, two, and utterances mapped one by one."""
    features, kernel, bias = problem(np.float32)
    loss = functools.partial(jax_ctc.linear_ctc_loss, implementation="blocked")
    whole = loss(features, kernel, bias, *REST)
    mapped = jax.vmap(loss, in_axes=(0, None, None, 0, 0, 0))
    close(mapped(features, kernel, bias, *REST), whole, 1e-5)
    lifted = [x[None, :, None] for x in (features, *REST)]
    square = loss(lifted[0], kernel, bias, *lifted[1:])
    assert square.shape == (1, B, 1)
    close(square[0, :, 0], whole, 1e-5)
    one = loss(features[1], kernel, bias, LABELS[1], 9, 3)
    assert one.shape == ()
    close(one, whole[1], 1e-5)


def test_remat_scan_and_export():
    """Inside of other transforms it is the same function."""
    arguments = problem(np.float32)
    gradient = jax.jit(jax.grad(fused, argnums=1))
    expected = gradient(*arguments)
    features, kernel, bias = arguments

    def step(kernel, _):
        slope = jax.grad(jax.checkpoint(fused), argnums=1)(features, kernel, bias)
        return kernel, slope

    scanned = jax.jit(lambda k: jax.lax.scan(step, k, length=2)[1])(kernel)
    close(scanned[1], expected, 1e-5)
    exported = jax.export.export(gradient, platforms=("cpu", "cuda", "tpu"))(*arguments)
    close(exported.call(*arguments), expected, 1e-5)


# The recursion's blocks and chunks, and a second blank that is not 0, are those of any
# loss.
SAME_ELSEWHERE = {"long", "many_chunks", "untrained", "blank_middle"}
CASES = [case for case in tagged("ci") if case.name != "masked_classes"]
CONTRACT = [("float32", case.name) for case in CASES]
# Values are what float64 shows, on one shape.
CONTRACT += [("float64", case.name) for case in CASES if case.batch == 4]


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        more(dtype, name)
        if name in SAME_ELSEWHERE or (dtype, name) == ("float64", "blank_last")
        else (dtype, name)
        for dtype, name in CONTRACT
    ],
)
def test_contract(dtype, name, monkeypatch, request):
    """By a layer that changes nothing: value and gradient are the oracle's."""
    if dtype == "float64":
        request.getfixturevalue("x64")
    monkeypatch.setattr(contract, "_run", unchanged)
    contract.check_value("blocked", name, dtype)
    contract.check_gradient("blocked", name, dtype)


@pytest.mark.parametrize(
    "check",
    [contract.check_padding, contract.check_determinism, contract.check_permutation],
    ids=lambda check: check.__name__,
)
def test_invariance(check, monkeypatch):
    """What must not matter does not: not one bit."""
    monkeypatch.setattr(contract, "_run", unchanged)
    check("blocked", "ragged")


@functools.partial(jax.jit, static_argnames=("implementation", "blank_id"))
def unchanged(implementation, blank_id, cotangent, logits, *rest):
    """The loss of logits that a layer has passed on, as `contract` runs it."""
    eye = jnp.eye(logits.shape[-1], dtype=logits.dtype)

    def weighted(logits):
        loss = jax_ctc.linear_ctc_loss(
            logits, eye, None, *rest, blank_id=blank_id, implementation=implementation
        )
        return jnp.sum(loss * cotangent), loss

    gradient, loss = jax.grad(weighted, has_aux=True)(logits)
    return loss, gradient


@pytest.mark.parametrize("is_tied", [more(False), True], ids=["random", "tied"])
def test_confident_models(is_tied, monkeypatch):
    """What a sure model's frames cost survives: as in the loss of logits."""
    batch = sure(1000, 128, 25, (5, 8, 12, 17, 30), is_tied=is_tied)
    exact_loss, exact_gradient = batch_loss_and_gradient(batch.logits, batch.labels)
    monkeypatch.setattr(contract, "_run", unchanged)
    loss, gradient = contract.run("blocked", batch, cotangent=np.ones(5))
    atol = contract.loss_atol(exact_loss, batch.logits.shape[1], "float32")
    assert (np.abs(loss - exact_loss) <= atol).all()
    assert np.abs(gradient - exact_gradient).max() <= 3e-7


@pytest.mark.slow
def test_gradients_are_as_good_as_float64(x64):
    """float32: within 2e-6 of the largest entry, of features, kernel and bias alike."""
    rng = np.random.default_rng(6)
    features = rng.normal(size=(4, 200, 64))
    kernel, bias = rng.normal(size=(64, 500)) / 8, rng.normal(size=500)
    labels = rng.integers(1, 500, (4, 30)).astype(np.int32)

    def gradients(dtype, loss):
        arguments = [jnp.asarray(x, dtype) for x in (features, kernel, bias)]
        total = jax.jit(jax.grad(lambda *a: loss(*a).sum(), argnums=(0, 1, 2)))
        return total(*arguments)

    exact = gradients(
        "float64",
        lambda f, k, b: jax_ctc.ctc_loss(
            jnp.einsum("btd,dv->btv", f, k) + b[None, None], labels
        ),
    )
    found = gradients(
        "float32", lambda f, k, b: jax_ctc.linear_ctc_loss(f, k, b, labels)
    )
    for ours, truth in zip(found, exact, strict=True):
        error = np.abs(np.asarray(ours, np.float64) - truth).max()
        assert error <= 2e-6 * np.abs(truth).max()


def test_half_precision():
    """Products are added up in float32; gradients have the dtypes of their inputs."""
    features, kernel, bias = problem(np.float32)
    half = jnp.asarray(features, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16), bias
    wide = [x.astype(jnp.float32) for x in half]
    run = jax.jit(jax.value_and_grad(fused, argnums=(0, 1, 2)))
    (value, found), (exact, expected) = run(*half), run(*wide)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    for ours, theirs, given in zip(found, expected, half, strict=True):
        assert ours.dtype == given.dtype
        np.testing.assert_allclose(
            ours.astype(jnp.float32),
            theirs,
            rtol=float(jnp.finfo(given.dtype).eps),
            atol=1e-6,
        )


def test_dead_utterances():
    """Every status; the dead give nothing to any gradient, the others keep theirs."""
    features, kernel, bias = problem(np.float32)
    features = np.where(np.isnan(features), 0, features)
    lengths, counts, labels = LOGIT_LENGTHS.copy(), LABEL_LENGTHS.copy(), LABELS.copy()
    bias[7] = -np.inf  # a mask
    rest = (labels, lengths, counts)

    @jax.jit
    def run(features, kernel, bias, labels, lengths, counts):
        def total(*layer):
            loss, status = jax_ctc.linear_ctc_loss_with_status(
                *layer, labels, lengths, counts, infeasible="zero"
            )
            return jnp.nansum(loss), (loss, status)

        return jax.grad(total, argnums=(0, 1, 2), has_aux=True)(features, kernel, bias)

    alone, (_, status) = run(features, kernel, bias, *(x.copy() for x in rest))
    assert status.tolist() == [0] * 5
    # The first stays alive; what is added to it must not show.
    only_first = run(
        features, kernel, bias, labels, lengths, np.array([3, -1, -1, -1, -1], np.int32)
    )[0]
    labels[1, 0], lengths[2], labels[3, 0], counts[3] = 0, 2, 11, 3
    features[4, 3, 2] = np.inf
    lengths[2], labels[2] = 2, 2
    gradients, (loss, status) = run(features, kernel, bias, *rest)
    assert status.tolist() == [
        Status.OK,
        Status.BLANK_IN_LABELS,
        Status.INFEASIBLE,
        Status.LABEL_OUT_OF_RANGE,
        Status.NONFINITE_LOGITS,
    ]
    assert np.isnan(loss[4])
    assert loss[1:4].tolist() == [0, 0, 0]
    for found, expected in zip(gradients, only_first, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not np.asarray(gradients[0])[1:].any()
    assert np.asarray(gradients[0])[0].any()
    assert np.asarray(alone[0])[1:].any()

    # A label whose class is masked; logits that overflow; a kernel that is not finite.
    labels[0, 2] = 7
    assert run(features, kernel, bias, *rest)[1][1][0] == Status.ZERO_PROBABILITY
    features[0, 1] = 3e38
    gradients, (_, status) = run(features, kernel, bias, *rest)
    assert status[0] == Status.NONFINITE_LOGITS
    assert not any(np.asarray(x).any() for x in gradients)
    kernel[2, 10] = np.nan
    gradients, (loss, status) = run(features, kernel, bias, *rest)
    assert (status & Status.NONFINITE_LOGITS).all()
    assert np.isnan(loss).all()
    assert not any(np.asarray(x).any() for x in gradients)


@pytest.mark.parametrize(("is_mapped", "rows"), [(False, 10), (True, 2)])
def test_frames_beyond_the_longest_are_not_multiplied(monkeypatch, is_mapped, rows):
    """Of seven blocks of frames, the last is padding: in all of the four products."""
    monkeypatch.setattr(projected, "_BLOCK", {"cpu": projected.Block(rows, 4, 4, 4)})
    made = []
    multiplied = products._multiplied

    def counted(*given):
        jax.debug.callback(lambda: made.append(1))
        return multiplied(*given)

    monkeypatch.setattr(products, "_multiplied", counted)

    def loss(layer, features, *rest):
        return jnp.sum(jax_ctc.linear_ctc_loss(features, *layer, *rest))

    features, *layer = problem(np.float32)
    given = (layer, features, *REST)
    if is_mapped:
        loss = jax.vmap(loss, in_axes=(None, 0, 0, 0, 0))
    gradient = jax.jit(jax.grad(lambda *x: jnp.sum(loss(*x)), argnums=(0, 1)))
    jax.block_until_ready(gradient(*given))
    jax.effects_barrier()
    blocks_of_classes = -(-V // 4)
    assert len(made) == 4 * LOGIT_LENGTHS.max() // 2 * blocks_of_classes


@pytest.mark.slow
@pytest.mark.as_planned
def test_memory_does_not_grow_with_classes_times_frames(monkeypatch):
    """Temporaries beyond two kernels: less than a tenth of the logits, at any T."""
    monkeypatch.undo()  # blocks as users have them
    batch, classes, width, labels = 8, 8192, 1024, 10

    def temporaries(frames):
        shapes = [(batch, frames, width), (width, classes), (classes,)]
        arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
        arguments.append(jax.ShapeDtypeStruct((batch, labels), jnp.int32))

        def total(*arguments):
            return jax_ctc.linear_ctc_loss(*arguments).sum()

        compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(*arguments)
        return compiled.compile().memory_analysis().temp_size_in_bytes

    short, long = temporaries(512), temporaries(1024)
    assert short - 2 * 4 * width * classes <= 4 * batch * 512 * classes / 10
    # An array like the features, and some of the states of a frame.
    assert long - short <= batch * 512 * 4 * (width + 16 * (labels + 1))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kernel": np.ones((V, D))}, ValueError, r"If it is \[V, D\].*kernel.T"),
        ({"kernel": np.ones((D + 1, V))}, ValueError, "`kernel` must be .* D=6"),
        ({"kernel": np.ones((D, 0))}, ValueError, "at least the blank class"),
        ({"kernel": np.ones((D, V), int)}, TypeError, "`kernel` must be floating"),
        ({"bias": np.ones(D)}, ValueError, r"`bias` must be \[V\] with V=11"),
        ({"features": np.ones(D)}, ValueError, r"`features` must be \[..., T, D\]"),
        ({"features": np.ones((B, T, D), int)}, TypeError, "`features` must be fl"),
        ({"labels": LABELS[:2]}, ValueError, "leading axes of `features`"),
        ({"blank_id": V}, ValueError, "one of the V=11 classes"),
        ({"precision": "exact"}, ValueError, "`precision` must be one of None, 'def"),
        ({"logit_transform": 30}, TypeError, "`logit_transform` must be a function"),
        ({"logit_transform": jnp.sum}, ValueError, "must act on logits one by one"),
    ],
)
def test_static_mistakes(change, error, message):
    """Each names the argument, what came and what to do."""
    features, kernel, bias = problem(np.float32)
    arguments = {"features": features, "kernel": kernel, "bias": bias, "labels": LABELS}
    with pytest.raises(error, match=message):
        jax_ctc.linear_ctc_loss(**(arguments | change))
