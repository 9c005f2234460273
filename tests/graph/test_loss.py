"""The loss and the best path over graphs: against all paths, and against CTC."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jax_ctc
from jax_ctc import Status
from tests import alignments
from tests.cases import more
from tests.graph.paths import by_enumeration
from tests.oracle import log_softmax, loss_and_gradient

T, V, A, S = 4, 3, 8, 4
FRAMES = np.array([4, 3, 0], np.int32)
WEIGHTS = ("log_weight", "start", "end")


def random_graphs(seed=0):
    """Three graphs of any arcs, some closed in some frames, one of them in all."""
    rng = np.random.default_rng(seed)
    batch = len(FRAMES)
    log_weight = rng.normal(size=(batch, T, A))
    log_weight[rng.random(log_weight.shape) < 0.2] = -np.inf
    log_weight[..., -1] = -np.inf  # it pads, so its numbers are no states
    arcs = {name: rng.integers(S, size=(batch, A)) for name in ("source", "target")}
    arcs["emits"] = rng.integers(V, size=(batch, A))
    for numbers in arcs.values():
        numbers[:, -1] = -7
    start, end = rng.normal(size=(2, batch, S))
    start[:, 1] = end[:, 2] = -np.inf
    graph = jax_ctc.Graph(**arcs, log_weight=log_weight, start=start, end=end)
    return rng.normal(size=(batch, T, V)), graph


def weighed(scores, weights, graph, frames):
    """A weighted sum of losses, by what can be differentiated."""
    loss = jax_ctc.ctc_loss_over_graph(
        scores, dataclasses.replace(graph, **weights), frames
    )
    return jnp.sum(loss * jnp.array([1.0, -2.0, 3.0], loss.dtype)), loss


def test_is_the_sum_over_all_paths(x64):
    """Value, every gradient and the best path; padded frames hold NaN."""
    scores, graph = random_graphs()
    expected = [
        by_enumeration(scores[b], jax.tree.map(lambda x, b=b: x[b], graph), frames)
        for b, frames in enumerate(FRAMES)
    ]
    padded = np.arange(T)[:, None] >= FRAMES[:, None, None]
    scores = np.where(padded, np.nan, scores)
    weights = {name: getattr(graph, name) for name in WEIGHTS}
    weights["log_weight"] = np.where(padded, np.nan, weights["log_weight"])
    graph = dataclasses.replace(graph, log_weight=weights["log_weight"])

    gradient = jax.jit(jax.grad(weighed, argnums=(0, 1), has_aux=True))
    (of_scores, of_weights), loss = gradient(scores, weights, graph, FRAMES)
    path = jax_ctc.ctc_align_over_graph(scores, graph, FRAMES)
    for b, (value, most, arcs, posteriors) in enumerate(expected):
        np.testing.assert_allclose(loss[b], value, rtol=1e-12)
        np.testing.assert_allclose(path.log_prob[b], most, rtol=1e-12)
        alone = jax.tree.map(lambda x, b=b: np.asarray(x[b]), path)
        assert alone.arcs[: FRAMES[b]].tolist() == arcs
        np.testing.assert_array_equal(alone.states[: len(arcs)], graph.target[b][arcs])
        np.testing.assert_array_equal(alone.tokens[: len(arcs)], graph.emits[b][arcs])
        assert (np.stack([alone.arcs, alone.tokens])[:, len(arcs) :] == -1).all()
        for name, found in {"scores": of_scores, **of_weights}.items():
            slope = -posteriors[name] * [1.0, -2.0, 3.0][b]
            np.testing.assert_allclose(found[b], slope, atol=1e-12)


def test_is_the_loss_on_its_own_graph():
    """CTC's own value, gradient and alignment, in float32, ragged, with any padding."""
    logits, labels, frames, counts = alignments.problem(np.float32)
    padded = np.arange(logits.shape[1])[:, None] >= frames[:, None, None]
    logits = np.where(padded, np.nan, logits)
    labels = np.where(np.arange(labels.shape[1]) < counts[:, None], labels, -99)
    weights = jnp.array([1.0, -2.0, 3.0, 0.5])

    def both(logits):
        log_probs = jax.nn.log_softmax(logits)
        graph = jax_ctc.ctc_graph(labels, counts)
        over_graph = jax_ctc.ctc_loss_over_graph(log_probs, graph, frames)
        loss = jax_ctc.ctc_loss_from_log_probs(log_probs, labels, frames, counts)
        path = jax_ctc.ctc_align_over_graph(log_probs, graph, frames)
        return (jnp.sum(over_graph * weights), jnp.sum(loss * weights)), (
            over_graph - loss,
            path,
        )

    slopes, (difference, path) = jax.jit(jax.jacrev(both, has_aux=True))(logits)
    np.testing.assert_allclose(difference, 0, atol=1e-5)
    ours, ctc = (np.where(padded, 0, slope) for slope in slopes)
    np.testing.assert_allclose(ours, ctc, atol=1e-5)
    assert (np.abs(ours[:, 5]) > 0).any()
    alignment = jax_ctc.ctc_align(logits, labels, frames, counts)
    np.testing.assert_array_equal(path.tokens, alignment.tokens)
    np.testing.assert_allclose(path.log_prob, alignment.log_prob, rtol=1e-6)


def test_transforms(x64):
    """Higher orders, forward and reverse, under vmap: those of the loss."""
    logits, *rest = alignments.problem()
    log_probs = log_softmax(logits)[:3]
    labels, frames, counts = (array[:3] for array in rest)
    tangent = np.random.default_rng(5).normal(size=log_probs.shape)

    def over_graph(row, labels, frames, count):
        graph = jax_ctc.ctc_graph(labels, count)
        return jax_ctc.ctc_loss_over_graph(row, graph, frames)

    def ctc(row, labels, frames, count):
        return jax_ctc.ctc_loss_from_log_probs(
            row, labels, frames, count, implementation="scan"
        )

    def slope_of(loss):
        def total(scores):
            return jnp.sum(jax.vmap(loss)(scores, labels, frames, counts) ** 2)

        return jax.grad(total)

    @jax.jit
    def curvatures(scores):
        reverse = jax.grad(lambda x: jnp.vdot(slope_of(over_graph)(x), tangent))(scores)
        forward, expected = (
            jax.jvp(slope_of(loss), (scores,), (tangent,))[1]
            for loss in (over_graph, ctc)
        )
        return expected, forward, reverse

    expected, *ours = curvatures(log_probs)
    for product in ours:
        np.testing.assert_allclose(product, expected, rtol=1e-8, atol=1e-8)


def faults():
    """One utterance per bit, and a good one first and last; 5 frames of 4 classes."""
    rng = np.random.default_rng(4)
    status = [0, 1, 8, 16, 16, 32, 64, 64, 64, 64, 0]
    scores = rng.normal(size=(len(status), 5, 4)).astype(np.float32)
    labels = np.tile(np.array([1, 2, 3], np.int32), (len(status), 1))
    frames, counts = np.full(len(status), 5), np.full(len(status), 3)
    frames[1], frames[2] = 2, 6
    scores[3, 1, 2] = np.nan
    scores[5, :, 2] = -np.inf
    labels[6, 1], labels[7, 1], counts[8] = 9, 0, 7
    graph = jax_ctc.ctc_graph(labels, counts)
    log_weight = graph.log_weight.at[4, 1].set(jnp.nan)
    target = graph.target.at[9, 2].set(7)
    graph = dataclasses.replace(graph, target=target, log_weight=log_weight)
    return scores, graph, frames, np.array(status)


def ends(rows):
    """The first and the last, which are good."""
    return np.asarray(rows)[[0, -1]]


def test_status():
    """Every fault has its bit, its value and no slope; neighbours keep their bits."""
    scores, graph, frames, expected = faults()

    def total(scores, graph, frames):
        loss, status = jax_ctc.ctc_loss_over_graph_with_status(scores, graph, frames)
        return jnp.sum(jnp.where(jnp.isnan(loss), 0, loss) ** 2), (loss, status)

    gradient = jax.jit(jax.grad(total, has_aux=True))
    slope, (loss, status) = gradient(scores, graph, frames)
    np.testing.assert_array_equal(status, expected)
    is_nan, is_flagged = expected == Status.NONFINITE_LOGITS, expected != 0
    np.testing.assert_array_equal(np.isnan(loss), is_nan)
    np.testing.assert_array_equal(np.isposinf(loss), is_flagged & ~is_nan)
    np.testing.assert_array_equal(slope[is_flagged], 0)
    assert np.abs(ends(slope)).max() > 0

    good = np.where(is_flagged, len(expected) - 1, np.arange(len(expected)))
    repaired = jax.tree.map(lambda x: x[good], (scores, graph, frames))
    clean, _ = gradient(*repaired)
    np.testing.assert_array_equal(ends(slope), ends(clean))

    path = jax_ctc.ctc_align_over_graph(scores, graph, frames)
    np.testing.assert_array_equal(np.isnan(path.log_prob), is_nan)
    np.testing.assert_array_equal(np.isneginf(path.log_prob), is_flagged & ~is_nan)
    assert (np.asarray(path.arcs)[is_flagged] == -1).all()
    zero = jax_ctc.ctc_loss_over_graph(scores, graph, frames, infeasible="zero")
    np.testing.assert_array_equal(zero, np.where(is_flagged & ~is_nan, 0, loss))
    assert "BAD_GRAPH" in jax_ctc.explain(status)[6][0]


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("scale", "frames", "within"),
    [(1, 1000, 5e-6), (5, 1000, 5e-6), more(1, 4000, 2e-5), more(5, 4000, 2e-5)],
)
def test_stays_exact_over_many_frames(scale, frames, within):
    """float32 beside float64, where plain log space is off by 1e-4."""
    rng = np.random.default_rng(0)
    log_probs = log_softmax(scale * rng.normal(size=(frames, 16))).astype(np.float32)
    labels = rng.integers(1, 16, frames // 10)
    value, gradient = loss_and_gradient(log_probs, labels, normalise=False)
    graph = jax_ctc.ctc_graph(labels)
    loss, slope = jax.jit(jax.value_and_grad(jax_ctc.ctc_loss_over_graph))(
        log_probs, graph
    )
    error = np.abs(slope - gradient).max()
    print(f"{scale} N(0,1), {frames} frames: {loss - value:.1e}, {error:.1e}")
    np.testing.assert_allclose(loss, value, rtol=1e-6)
    assert error < within


def test_shared_graph_over_devices():
    """One graph for a sharded batch: the weights' gradient adds up over devices."""
    rng = np.random.default_rng(1)
    log_probs = jnp.array(log_softmax(rng.normal(size=(8, 5, 3))), jnp.float32)
    graph = jax_ctc.ctc_graph(np.array([1, 2]))

    def total(log_weight, log_probs):
        edited = dataclasses.replace(graph, log_weight=log_weight)
        return jnp.sum(jax_ctc.ctc_loss_over_graph(log_probs, edited))

    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    mapped = jax.shard_map(
        jax.grad(total), mesh=mesh, in_specs=(P(), P("batch")), out_specs=P()
    )
    posterior = -jax.jit(mapped)(graph.log_weight, log_probs)
    np.testing.assert_allclose(posterior.sum(), 8 * 5, rtol=1e-5)  # an arc a frame
    enters = np.isin(graph.target, [1, 3]) & (graph.source != graph.target)
    np.testing.assert_allclose(posterior[enters].sum(), 8 * 2, rtol=1e-5)


def test_a_sharded_batch_communicates_once():
    """For the mean of the losses, and for nothing else."""
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    batch = jax.sharding.NamedSharding(mesh, P("batch"))

    def given(shape, dtype):
        return jax.ShapeDtypeStruct((8, *shape), dtype, sharding=batch)

    def mean(log_probs, labels, frames):
        graph = jax_ctc.ctc_graph(labels)
        return jax_ctc.ctc_loss_over_graph(log_probs, graph, frames).mean()

    arguments = given((4, 3), jnp.float32), given((2,), jnp.int32), given((), jnp.int32)
    text = jax.jit(jax.value_and_grad(mean)).lower(*arguments).compile().as_text()
    sent = re.findall(r" (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", text)
    assert sent == ["all-reduce"]


GRAPH = jax_ctc.Graph(
    source=np.zeros((2, 3), int),
    target=np.zeros((2, 3), int),
    emits=np.zeros((2, 3), int),
    log_weight=np.zeros((2, 3)),
    start=np.zeros((2, 4)),
    end=np.zeros((2, 4)),
)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            {"source": np.zeros((2, 3))},
            TypeError,
            "`graph.source` must be [..., A] int",
        ),
        ({"emits": np.zeros((2, 4), int)}, ValueError, "must all be [..., A]"),
        ({"log_weight": np.zeros((2, 9, 3))}, ValueError, "or [..., T, A] = (2, 5, 3)"),
        (
            {"log_weight": np.zeros((2, 3), int)},
            TypeError,
            "`graph.log_weight` must be",
        ),
        ({"start": np.zeros(4)}, ValueError, "must both be [..., S]"),
        ({"end": np.zeros((2, 3))}, ValueError, "must both be [..., S]"),
        ({"start": np.zeros((2, 0)), "end": np.zeros((2, 0))}, ValueError, "one state"),
    ],
)
def test_mistakes_in_a_graph_raise(wrong, error, message):
    """Named when traced, with what came."""
    graph = dataclasses.replace(GRAPH, **wrong)
    with pytest.raises(error, match=re.escape(message)):
        jax_ctc.ctc_loss_over_graph(np.zeros((2, 5, 7)), graph)


@pytest.mark.fast
def test_mistakes_around_a_graph_raise():
    """Another batch, no graph, no such policy."""
    with pytest.raises(ValueError, match="must have the leading axes of `log_probs`"):
        jax_ctc.ctc_align_over_graph(np.zeros((3, 5, 7)), GRAPH)
    with pytest.raises(TypeError, match="`graph` must be a jax_ctc.Graph"):
        jax_ctc.ctc_loss_over_graph(np.zeros((5, 7)), np.array([1, 2]))
    with pytest.raises(ValueError, match="`infeasible` must be one of"):
        jax_ctc.ctc_loss_over_graph(np.zeros((2, 5, 7)), GRAPH, infeasible="none")
    [size] = jax.export.symbolic_shape("labels")
    with pytest.raises(ValueError, match="must have a known number of labels U"):
        jax.eval_shape(jax_ctc.ctc_graph, jax.ShapeDtypeStruct((2, size), jnp.int32))
    with pytest.raises(ValueError, match="`blank_id` must be a class"):
        jax_ctc.ctc_graph(np.array([1]), blank_id=-1)
