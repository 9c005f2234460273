"""Static mistakes raise, and the message names the argument, what came and the fix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ctc
from jax_ctc import _recursion

pytestmark = pytest.mark.fast

NAMES = ", ".join(map(repr, _recursion.names()))
LOGITS = jnp.zeros((2, 5, 4))
LABELS = jnp.ones((2, 3), jnp.int32)
OPTAX = ["order of optax.ctc_loss", "jax_ctc.lengths_from_paddings(label_paddings)"]

# What is passed, the error, and what its message must hold: the argument by name, what
# came, and what to do.
MISTAKES = {
    "logits rank": (
        dict(logits=jnp.zeros(5)),
        ValueError,
        ["`logits`", "[..., T, V]", "(5,)"],
    ),
    "no classes": (
        dict(logits=jnp.zeros((2, 5, 0))),
        ValueError,
        ["`logits`", "V >= 1", "(2, 5, 0)"],
    ),
    "integer logits": (
        dict(logits=jnp.zeros((2, 5, 4), jnp.int32)),
        TypeError,
        ["`logits`", "int32", "logits.astype(jnp.float32)"],
    ),
    "complex logits": (
        dict(logits=jnp.zeros((2, 5, 4), jnp.complex64)),
        TypeError,
        ["`logits`", "complex64", "float32"],
    ),
    "text logits": (dict(logits="hello"), TypeError, ["`logits`", "str", "numbers"]),
    "no logits": (dict(logits=None), TypeError, ["`logits`", "NoneType"]),
    "ragged labels": (
        dict(labels=[[1, 2], [3]]),
        TypeError,
        ["`labels`", "rectangular", "Pad rows"],
    ),
    "float labels": (
        dict(labels=jnp.ones((2, 3))),
        TypeError,
        ["`labels`", "float32", "labels.astype(jnp.int32)"],
    ),
    "bool labels": (
        dict(labels=jnp.ones((2, 3), bool)),
        TypeError,
        ["`labels`", "bool", "integer"],
    ),
    "scalar labels": (
        dict(labels=jnp.int32(1)),
        ValueError,
        ["`labels`", "[..., U]", "jnp.array([label])"],
    ),
    "batch mismatch": (
        dict(labels=jnp.ones((7, 3), jnp.int32)),
        ValueError,
        ["`labels`", "`logits`", "(7, 3)", "(2, 5, 4)"],
    ),
    "time-major logits": (
        dict(logits=jnp.zeros((5, 2, 4))),
        ValueError,
        ["`labels`", "(5, 2, 4)", "[T, B, V]", "jnp.swapaxes(logits, 0, 1)"],
    ),
    "concatenated labels": (
        dict(labels=jnp.ones(6, jnp.int32)),
        ValueError,
        ["`labels`", "(6,)", "pad them to [B, U]"],
    ),
    "paddings as logit_lengths": (
        dict(logit_lengths=jnp.zeros((2, 5))),
        ValueError,
        ["`logit_lengths`", "(2, 5)", "lengths_from_paddings(paddings)"],
    ),
    "lengths of shape [B, 1]": (
        dict(logit_lengths=jnp.ones((2, 1), jnp.int32)),
        ValueError,
        ["`logit_lengths`", "(2, 1)", "jnp.squeeze(logit_lengths, -1)"],
    ),
    "label lengths of shape [B, 1]": (
        dict(label_lengths=np.ones((2, 1), np.int64)),
        ValueError,
        ["`label_lengths`", "(2, 1)", "jnp.squeeze(label_lengths, -1)"],
    ),
    "Optax's order": (
        dict(
            labels=jnp.zeros((2, 5)),
            logit_lengths=LABELS,
            label_lengths=jnp.zeros((2, 3)),
        ),
        TypeError,
        [*OPTAX, "(2, 5)", "(2, 3)"],
    ),
    "Optax's order, paddings of bool": (
        dict(
            labels=np.zeros((2, 5), bool),
            logit_lengths=np.ones((2, 3), np.int64),
            label_lengths=np.zeros((2, 3), bool),
        ),
        TypeError,
        OPTAX,
    ),
    "Optax's order, paddings of integers": (
        dict(
            labels=np.zeros((2, 5), np.int32),
            logit_lengths=[[1, 1, 1], [1, 1, 1]],
            label_lengths=np.zeros((2, 3), np.int32),
        ),
        TypeError,
        OPTAX,
    ),
    "Optax's order, as many labels as frames": (
        dict(
            labels=jnp.zeros((2, 5)),
            logit_lengths=jnp.ones((2, 5), jnp.int32),
            label_lengths=jnp.zeros((2, 5)),
        ),
        TypeError,
        OPTAX,
    ),
    "labels first": (
        dict(logits=LABELS, labels=LOGITS),
        TypeError,
        ["`logits` come first", "(2, 3)", "Keras and TensorFlow have the labels first"],
    ),
    "paddings of integers, as many labels as frames": (
        dict(labels=jnp.ones((2, 5), jnp.int32), logit_lengths=np.zeros((2, 5), int)),
        ValueError,
        ["`logit_lengths`", "(2, 5)", "lengths_from_paddings(paddings)"],
    ),
    "paddings of one label": (
        dict(labels=[[1], [2]], label_lengths=[[1.0], [0.0]]),
        ValueError,
        ["`label_lengths`", "(2, 1)", "lengths_from_paddings(paddings)"],
    ),
    "float logit_lengths": (
        dict(logit_lengths=jnp.ones(2)),
        TypeError,
        ["`logit_lengths`", "float32", "logit_lengths.astype(jnp.int32)"],
    ),
    "one length for all": (
        dict(logit_lengths=5),
        ValueError,
        ["`logit_lengths`", "(2,)", "()"],
    ),
    "label_lengths shape": (
        dict(label_lengths=jnp.ones(3, jnp.int32)),
        ValueError,
        ["`label_lengths`", "(2,)", "(3,)"],
    ),
    "blank_id too large": (
        dict(blank_id=4),
        ValueError,
        ["`blank_id`", "V=4", "0..3", "got 4", "blank_id=3"],
    ),
    "blank_id from the end": (
        dict(blank_id=-1),
        ValueError,
        ["`blank_id`", "got -1", "blank_id=3"],
    ),
    "blank_id float": (dict(blank_id=0.0), TypeError, ["`blank_id`", "int", "0.0"]),
    "blank_id bool": (dict(blank_id=False), TypeError, ["`blank_id`", "False"]),
    "infeasible": (
        dict(infeasible="nan"),
        ValueError,
        ["`infeasible`", "'inf', 'zero'", "'nan'"],
    ),
    "implementation": (
        dict(implementation="cudnn"),
        ValueError,
        ["`implementation`", f"None, {NAMES}", "'cudnn'"],
    ),
}


def takes(function, mistake):
    """check_batch has neither policy nor implementation."""
    changed = MISTAKES[mistake][0]
    return function != "check_batch" or not {"infeasible", "implementation"} & {
        *changed
    }


@pytest.mark.parametrize(
    ("function", "mistake"),
    [
        (function, mistake)
        for function in ("ctc_loss", "ctc_loss_with_status", "check_batch")
        for mistake in MISTAKES
        if takes(function, mistake)
    ],
)
def test_static_mistake(function, mistake):
    """The error has the right type, and the message helps."""
    changed, error, needles = MISTAKES[mistake]
    arguments = dict(logits=LOGITS, labels=LABELS) | changed
    with pytest.raises(error) as caught:
        getattr(jax_ctc, function)(**arguments)
    for needle in needles:
        assert needle in str(caught.value)


class Tensor:
    """Refuses to be read by NumPy, as PyTorch's do."""

    def __init__(self, dtype, error):
        self.dtype, self.error = dtype, error

    def __array__(self, *args, **options):  # noqa: D105
        raise self.error


@pytest.mark.parametrize(
    ("dtype", "error"),
    [
        ("torch.bfloat16", TypeError("Got unsupported ScalarType BFloat16")),
        ("torch.float32", RuntimeError("Can't call numpy() on Tensor that requires")),
        (
            "torch.float32",
            TypeError("can't convert cuda:0 device type tensor to numpy"),
        ),
    ],
)
def test_a_tensor_is_named_for_what_it_is(dtype, error):
    """Nothing about rows: what it is, what it says, and how to hand it over."""
    tensor = Tensor(dtype, error)
    with pytest.raises(TypeError) as caught:
        jax_ctc.ctc_loss(tensor, LABELS)
    message = str(caught.value)
    for needle in (
        "`logits`",
        f".Tensor of {dtype}",
        str(error),
        "from_dlpack(logits.",
    ):
        assert needle in message
    assert "ows" not in message
    with pytest.raises(TypeError, match="`labels` must be an array that NumPy or JAX"):
        jax_ctc.ctc_loss(LOGITS, tensor)


def test_log_probs_are_called_by_their_name():
    """The message speaks of the argument that the caller wrote."""
    with pytest.raises(ValueError, match="`log_probs` must be"):
        jax_ctc.ctc_loss_from_log_probs(jnp.zeros(5), LABELS)


def test_traced_blank_id():
    """Under jit a blank must be static, and the message says how."""
    with pytest.raises(TypeError, match="static_argnames"):
        jax.jit(lambda blank: jax_ctc.ctc_loss(LOGITS, LABELS, blank_id=blank))(0)


def test_mistakes_raise_under_transforms():
    """One utterance or a trace: the messages are the same."""
    with pytest.raises(TypeError, match="`labels` must be"):
        jax.vmap(jax_ctc.ctc_loss)(LOGITS, LABELS.astype(jnp.float32))
    with pytest.raises(ValueError, match="`logit_lengths` must have"):
        jax.jit(jax_ctc.ctc_loss)(LOGITS, LABELS, jnp.ones(3, jnp.int32))


def test_what_is_accepted():
    """Lists, NumPy, narrow and unsigned integers, any integer type for the blank."""
    expected = jax_ctc.ctc_loss(LOGITS, LABELS, jnp.array([5, 4]), blank_id=0)
    for labels in (
        np.ones((2, 3), np.int64),
        np.ones((2, 3), np.uint8),
        np.ones((2, 3), np.uint32),
        [[1, 1, 1], [1, 1, 1]],
    ):
        for lengths in ([5, 4], np.array([5, 4], np.int16)):
            loss = jax_ctc.ctc_loss(
                np.zeros((2, 5, 4), np.float32), labels, lengths, blank_id=np.int64(0)
            )
            np.testing.assert_array_equal(loss, expected)


@pytest.mark.parametrize("wild", [2**32 + 1, -(2**32) + 1, 2**63 - 1])
def test_wide_ids_do_not_wrap(wild):
    """An id whose low 32 bits are a good id is still out of range."""
    labels = np.array([[1, wild, 1], [1, 1, 1]], np.int64)
    status = jax_ctc.check_batch(LOGITS, labels)
    assert status.tolist() == [jax_ctc.Status.LABEL_OUT_OF_RANGE, 0]


@pytest.mark.parametrize("wild", [2**32 + 1, 2**63 - 1])
def test_wide_ids_do_not_wrap_on_device(x64, wild):
    """Nor do 64-bit device arrays and lengths."""
    labels = jnp.array([[1, wild, 1], [1, 1, 1]], jnp.int64)
    lengths = jnp.array([5, 2**32 + 5], jnp.int64)
    status = jax_ctc.check_batch(LOGITS, labels, lengths)
    assert status.tolist() == [
        jax_ctc.Status.LABEL_OUT_OF_RANGE,
        jax_ctc.Status.BAD_LENGTH,
    ]


def test_unsigned_ids_do_not_wrap():
    """2**32 - 1 as uint32 is not -1 to anybody, and out of range either way."""
    labels = jnp.array([[1, 2**32 - 1, 1], [1, 1, 1]], jnp.uint32)
    assert jax_ctc.check_batch(LOGITS, labels).tolist() == [2, 0]
