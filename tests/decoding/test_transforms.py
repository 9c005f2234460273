"""Every transform, and every shard: the same bits as in one call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jax_ctc
from benchmarks import hlo
from tests.cases import more
from tests.decoding import arpa_models

B, T, V = 8, 20, 5
LETTERS = ["", "a", "b", "c", "d"]


@pytest.fixture(scope="module")
def guides(tmp_path_factory):
    """A model over classes, and hotwords."""
    folder = tmp_path_factory.mktemp("arpa")
    letters = arpa_models.random_model(LETTERS[1:], 3, seed=0)
    model = jax_ctc.NGram.from_arpa(
        arpa_models.write(folder / "letters.arpa", letters), LETTERS
    )
    hotwords = jax_ctc.Hotwords.from_phrases(["abc", "da"], LETTERS, bonus=1.0)
    return model, hotwords


def batch(dtype=np.float32):
    """Ragged utterances, one of them flagged."""
    logits = 2 * np.random.default_rng(0).normal(size=(B, T, V)).astype(dtype)
    logits[5, 3] = np.nan
    return logits, np.array([20, 0, 13, 20, 7, 20, 1, 19], np.int32)


def everything(guides, logits, lengths):
    """The whole decoder: search, truth, times; the best path; counted errors."""
    model, hotwords = guides
    found = jax_ctc.beam_search_decode(
        logits,
        lengths,
        beam_width=6,
        num_hypotheses=2,
        language_model=model,
        hotwords=hotwords,
        label_bonus=0.3,
        max_labels=12,
        rerank=True,
        times=True,
    )
    greedy = jax_ctc.greedy_decode(logits, lengths)
    counts = jax_ctc.label_errors(
        found.labels[..., 0, :], found.lengths[..., 0], greedy.labels, greedy.lengths
    )
    return found, greedy, counts


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), expected)


@pytest.fixture(scope="module")
def expected(guides):
    return jax.device_get(jax.jit(everything)(guides, *batch()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "is_optimised",
    [
        False,
        pytest.param(True, marks=[pytest.mark.optimised, pytest.mark.exhaustive]),
    ],
    ids=["quick", "optimised"],
)
def test_vmap_is_the_batch(guides, expected, is_optimised):
    """And leading axes are as good as one."""
    logits, lengths = batch()
    if is_optimised:
        expected = jax.device_get(jax.jit(lambda *a: everything(*a))(guides, *batch()))
    mapped = jax.jit(jax.vmap(everything, (None, 0, 0)))
    cube = mapped(guides, logits.reshape(2, 2, 2, T, V), lengths.reshape(2, 2, 2))
    same(jax.tree.map(lambda x: x.reshape(B, *x.shape[3:]), cube), expected)


@pytest.mark.slow
@pytest.mark.parametrize("mapped", [False, more(True)], ids=["jit", "shard_map"])
def test_a_sharded_batch_sends_nothing(guides, expected, mapped):
    """The same bits on 8 devices, without a collective."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split, copied = PartitionSpec("data"), PartitionSpec()
    function = everything
    if mapped:
        function = jax.shard_map(
            everything, mesh=mesh, in_specs=(copied, split, split), out_specs=split
        )
    guides = jax.device_put(guides, NamedSharding(mesh, copied))
    arguments = jax.device_put(batch(), NamedSharding(mesh, split))
    compiled = jax.jit(function).lower(guides, *arguments).compile()
    assert hlo.collectives(compiled.as_text()) == []
    found = compiled(guides, *arguments)
    same(found, expected)
    assert found[0].labels.sharding.is_equivalent_to(NamedSharding(mesh, split), 3)


@pytest.mark.slow
def test_a_program_on_file_and_padding(guides, expected):
    """Exported, and called with more frames past the lengths, whatever they hold."""
    logits, lengths = batch()
    padded = np.full((B, T + 9, V), np.nan, np.float32)
    padded[:, :T] = logits
    exported = jax.export.export(jax.jit(lambda *a: everything(guides, *a)))(
        *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (padded, lengths))
    )
    found, greedy, counts = exported.call(padded, lengths)
    same((found, counts), (expected[0], expected[2]))
    same(greedy.labels[:, :T], expected[1].labels)


@pytest.mark.exhaustive
def test_a_step_of_a_scan_and_no_derivative(guides, expected):
    """Floats are constants: `ctc_loss` of the labels has a derivative."""
    logits, lengths = batch()

    def total(logits):
        def step(carry, utterance):
            return carry, everything(guides, *utterance)

        found = jax.lax.scan(step, 0, (logits, lengths))[1]
        return jnp.sum(found[0].log_prob[0] + found[0].score[0]), found

    gradient, found = jax.jit(jax.grad(total, has_aux=True))(jnp.asarray(logits))
    np.testing.assert_array_equal(gradient, 0)
    same((found[0], found[2]), (expected[0], expected[2]))

    # The best path's log_prob has a derivative: beside it other bits come of it.
    def read(carry, utterance):
        return carry, jax_ctc.greedy_decode(*utterance)

    greedy = jax.jit(lambda *a: jax.lax.scan(read, 0, a)[1])(logits, lengths)
    same(greedy, expected[1])


@pytest.mark.slow
def test_float64_and_debug_nans(guides, x64):
    """float64 in, float64 out; no NaN is made of finite scores."""
    logits, lengths = batch(np.float64)
    logits[5], logits[0, 3, 2] = 0, -np.inf
    with jax.debug_nans(True):
        found = jax.jit(everything)(guides, logits, lengths)[0]
    assert found.log_prob.dtype == found.score.dtype == np.float64
    labels, sizes = np.maximum(found.labels[:, 0], 0), found.lengths[:, 0]
    loss = jax_ctc.ctc_loss(logits, labels, lengths, sizes)
    np.testing.assert_allclose(found.log_prob[:, 0], -loss, rtol=1e-12, atol=1e-12)
