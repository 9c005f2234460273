"""Labels that stand for anything, in the losses: status, options, transforms."""

import functools
import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import jax_ctc
from jax_ctc import Status
from jax_ctc._alignment import as_given, chunks
from jax_ctc._checks.labels import is_wildcard, to_the_left
from jax_ctc._lattice import wildcards

ANYTHING = 7
BATCH = {
    "labels": [[1, 7, 1], [1, 7, 1], [7, 7, 0], [1, 2, 9], [7, 1, 0], [1, 2, 7]],
    "logit_lengths": [3, 2, 0, 4, 4, 4],
    "label_lengths": [3, 3, 2, 3, 3, 4],
}
FLAGS = [
    Status.OK,
    Status.INFEASIBLE,  # a frame parts the two, the wildcard's or a blank
    Status.OK,  # anything, and so nothing, in no frame
    Status.LABEL_OUT_OF_RANGE,
    Status.BLANK_IN_LABELS,
    Status.BAD_LENGTH,  # and not one less
]


def arrays(dtype=np.float32):
    """Return a batch with one utterance per status, labels known on the device only."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(FLAGS), 4, 3)).astype(dtype)
    return logits, *(np.array(x, np.int32) for x in BATCH.values())


def test_status_values_and_zero_gradients():
    """Feasibility counts the labels that are left; what is flagged has no slope."""

    @jax.jit
    def read(*batch):
        def total(logits):
            loss, status = jax_ctc.ctc_loss_with_status(
                logits, *batch[1:], wildcard_id=ANYTHING, infeasible="zero"
            )
            return loss.sum(), (loss, status)

        slope, found = jax.grad(total, has_aux=True)(batch[0])
        checked = jax_ctc.check_batch(*batch, wildcard_id=ANYTHING)
        frames = jax_ctc.minimum_frames(batch[1], batch[3], wildcard_id=ANYTHING)
        return slope, found, checked, frames

    batch = arrays()
    slope, (loss, status), checked, frames = read(*batch)
    assert status.tolist() == checked.tolist() == [int(flag) for flag in FLAGS]
    on_host = jax_ctc.minimum_frames(batch[1], batch[3], wildcard_id=ANYTHING)
    assert isinstance(on_host, np.ndarray)
    assert frames.tolist() == on_host.tolist() == [3, 3, 0, 3, 2, 2**31 - 1]
    assert loss[2] == 0
    assert not np.asarray(slope)[1:].any()
    assert np.asarray(slope)[0].any()
    narrow = np.array([[1, 7, 1]], np.int8)
    assert jax_ctc.minimum_frames(narrow, wildcard_id=300).tolist() == [4 - 1]
    assert jax_ctc.minimum_frames(narrow, wildcard_id=ANYTHING).tolist() == [3]


def test_a_loss_without_logits(x64):
    """The layer's loss is that of its logits, and so are all its gradients."""
    rng = np.random.default_rng(5)
    features, kernel = rng.normal(size=(2, 5, 3)), rng.normal(size=(3, 6))
    labels = np.array([[1, ANYTHING, 2, 2], [ANYTHING, 5, ANYTHING, ANYTHING]])
    batch = labels, np.array([5, 4]), np.array([4, 3])

    def whole(features, kernel, log_prob):
        loss = jax_ctc.ctc_loss(
            features @ kernel,
            *batch,
            wildcard_id=ANYTHING,
            wildcard_log_prob=log_prob,
        )
        return loss.sum()

    def linear(features, kernel, log_prob):
        loss = jax_ctc.linear_ctc_loss(
            features,
            kernel,
            None,
            *batch,
            wildcard_id=ANYTHING,
            wildcard_log_prob=log_prob,
        )
        return loss.sum()

    both = jax.jit(
        lambda *x: [
            jax.value_and_grad(f, argnums=(0, 1, 2))(*x) for f in (whole, linear)
        ]
    )
    expected, found = both(features, kernel, -0.7)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, expected
    )


def test_sharded_classes_and_frames():
    """Where classes and frames lie on several devices, it is the same loss."""
    mesh = jax.make_mesh((2, 2), ("time", "model"), axis_types=(AxisType.Auto,) * 2)
    logits = np.random.default_rng(2).normal(size=(2, 8, 6)).astype(np.float32)
    labels = np.array([[1, ANYTHING, 5], [ANYTHING, 2, 2]], np.int32)

    def total(scores, log_prob, **options):
        loss = jax_ctc.ctc_loss(
            scores, labels, wildcard_id=ANYTHING, wildcard_log_prob=log_prob, **options
        )
        return loss.sum()

    slopes = jax.value_and_grad(total, argnums=(0, 1))
    expected = jax.jit(slopes)(logits, -0.4)
    place = PartitionSpec(None, "time", "model")
    inside = jax.shard_map(
        lambda x, p: slopes(x, p, time_axis="time", vocab_axis="model"),
        mesh=mesh,
        in_specs=(place, PartitionSpec()),
        out_specs=(PartitionSpec(), (place, PartitionSpec())),
    )
    found = jax.jit(inside)(logits, jnp.float32(-0.4))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected
    )


# What reads the lattice under `jit`: name, and what to call on (logits, *batch).
READS = {
    "ctc_loss": jax_ctc.ctc_loss,
    "ctc_loss, its gradient": lambda x, *batch, **told: jax.grad(
        lambda x: jax_ctc.ctc_loss(x, *batch, **told).sum()
    )(x),
    "ctc_loss_with_status": jax_ctc.ctc_loss_with_status,
    "ctc_loss_from_log_probs": lambda x, *batch, **told: jax.grad(
        lambda x: jax_ctc.ctc_loss_from_log_probs(x, *batch, **told).sum()
    )(x),
    "linear_ctc_loss": lambda x, *batch, **told: jax.grad(
        lambda x: jax_ctc.linear_ctc_loss(x, jnp.eye(5), None, *batch, **told).sum()
    )(x),
    "linear_ctc_loss_with_status": lambda x, *batch, **told: (
        jax_ctc.linear_ctc_loss_with_status(x, jnp.eye(5), None, *batch, **told)
    ),
    "check_batch": lambda x, *batch, wildcard_id=None, wildcard_log_prob=0: (
        jax_ctc.check_batch(x, *batch, wildcard_id=wildcard_id)
    ),
    "minimum_frames": lambda x, labels, frames, counts, wildcard_id=None, **_: (
        jax_ctc.minimum_frames(labels, counts, wildcard_id=wildcard_id)
    ),
    "ctc_posteriors": jax_ctc.ctc_posteriors,
    "ctc_align": jax_ctc.ctc_align,
    "alignment_entropy": jax_ctc.alignment_entropy,
    "sample_alignments": lambda *batch, **told: jax_ctc.sample_alignments(
        jax.random.key(0), *batch, num_samples=2, **told
    ),
}
# What works on the host: the first of them by programs of its own, others by those.
ON_HOST = {"ctc_align_chunks", "token_spans", "plot_alignment"}
ON_HOST |= {"diagnose", "watch", "rank_utterances"}


@pytest.fixture
def no_wildcards(monkeypatch):
    """Refuse to trace whatever takes wildcards out of labels, or puts them back."""
    code = [is_wildcard, to_the_left]
    for module in (wildcards, as_given):
        made_here = (f for f in vars(module).values() if inspect.isfunction(f))
        code += [f for f in made_here if f.__module__ == module.__name__]

    def refuse(*_, **__):
        raise AssertionError("the code of wildcards, and there are none")

    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "jax_ctc":
            for attribute, value in list(vars(module).items()):
                if any(value is function for function in code):
                    monkeypatch.setattr(module, attribute, refuse)


NONE = {"wildcard_id": None, "wildcard_log_prob": -3.0}


def test_every_reading_of_the_lattice_is_looked_at():
    takes = {
        name
        for name in jax_ctc.__all__
        if inspect.isfunction(function := getattr(jax_ctc, name))
        and "wildcard_id" in inspect.signature(function).parameters
    }
    assert {name.split(",")[0] for name in READS} | ON_HOST == takes


@pytest.mark.parametrize("name", READS)
def test_without_a_wildcard_nothing_is_new(name, no_wildcards):
    """The same program, letter by letter, with a price that nobody pays.

    None of the code of wildcards runs while it is traced, and with a wildcard it would.
    The shape is no other test's, or an earlier trace would be taken.
    """
    rng = np.random.default_rng(0)
    batch = (
        jnp.asarray(rng.normal(size=(3, 11, 5)), jnp.float32),
        *(jnp.array(x, jnp.int32) for x in ([[1, 2]] * 3, [11, 9, 1], [2, 1, 2])),
    )

    def lowered(options):
        told = functools.partial(READS[name], **options)
        return jax.jit(lambda *x: told(*x)).lower(*batch).as_text()

    text = lowered({})
    assert lowered(NONE) == text
    assert "stablehlo.sort" not in text  # wildcards are sorted to the right
    with pytest.raises(AssertionError, match="the code of wildcards"):
        lowered({"wildcard_id": ANYTHING})


def test_without_a_wildcard_chunks_are_as_ever(no_wildcards, monkeypatch):
    """As above, of the three programs that blocks are aligned by."""
    texts = []

    def recorded(program):
        def call(*arguments):
            texts.append(program.lower(*arguments).as_text())
            return program(*arguments)

        return call

    for name in ("_extend", "_finish", "_record"):
        monkeypatch.setattr(chunks, name, recorded(getattr(chunks, name)))
    block = np.random.default_rng(0).normal(size=(13, 5)).astype(np.float32)
    plain = jax_ctc.ctc_align_chunks([block], [1, 2])
    found = jax_ctc.ctc_align_chunks([block], [1, 2], **NONE)
    assert len(texts) == 6
    assert texts[:3] == texts[3:]
    assert not any("stablehlo.sort" in text for text in texts)
    jax.tree.map(np.testing.assert_array_equal, found, plain)
    with pytest.raises(AssertionError, match="the code of wildcards"):
        jax_ctc.ctc_align_chunks([block], [1, 2], wildcard_id=ANYTHING)


def test_options():
    """Designed messages; kernels decline by name."""
    batch = arrays()
    for wrong, error, message in (
        ({"wildcard_id": 0}, ValueError, "another number than `blank_id`"),
        ({"wildcard_id": 1.5}, TypeError, "`wildcard_id` must be an int"),
        ({"wildcard_id": 2**40}, ValueError, "32 bits"),
        ({"wildcard_log_prob": np.nan}, ValueError, "`wildcard_log_prob` must be a"),
        ({"wildcard_log_prob": [0.0, 1.0]}, TypeError, "must be one number"),
        ({"implementation": "cpu"}, NotImplementedError, "classes of their own"),
    ):
        with pytest.raises(error, match=message):
            jax_ctc.ctc_loss(*batch, **({"wildcard_id": ANYTHING} | wrong))


@pytest.mark.exhaustive
def test_transforms_and_a_wildcard_that_is_never_better():
    """Prices by `vmap`, second derivatives; at -inf it is plain CTC of what is left."""
    logits, labels, frames, counts = arrays()
    row = slice(0, 1)

    def loss(logits, log_prob):
        return jax_ctc.ctc_loss(
            logits,
            labels[row],
            frames[row],
            counts[row],
            wildcard_id=ANYTHING,
            wildcard_log_prob=log_prob,
        ).sum()

    prices = jnp.array([0.0, -1.0, -jnp.inf])
    several = jax.jit(jax.vmap(loss, (None, 0)))(logits[row], prices)
    one = [loss(logits[row], price) for price in prices]
    np.testing.assert_allclose(several, one, rtol=1e-6)
    plain = jax_ctc.ctc_loss(logits[row], labels[row][:, [0, 2]], frames[row])
    np.testing.assert_allclose(several[2], plain[0], rtol=1e-6)

    tangent = np.random.default_rng(1).normal(size=logits[row].shape)
    tangent = tangent.astype(np.float32)
    slope = jax.jit(jax.grad(lambda x: loss(x, -0.3)))
    found = jax.jvp(slope, (logits[row],), (tangent,))[1]
    ahead, behind = (
        slope(logits[row] + 0.01 * tangent),
        slope(logits[row] - 0.01 * tangent),
    )
    np.testing.assert_allclose(found, (ahead - behind) / 0.02, atol=1e-3)
