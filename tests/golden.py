"""Values that other projects publish in their tests, with the test they stand in.

Facts only: numbers in, numbers out. Scores are given as the source gives them, and
`inputs` says what they are.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Golden:
    """One published batch."""

    name: str
    source: str
    scores: np.ndarray  # [B, T, V]
    inputs: str  # "logits" or "probabilities"
    labels: np.ndarray  # [B, U]
    loss: np.ndarray  # [B]
    logit_lengths: np.ndarray | None = None
    label_lengths: np.ndarray | None = None
    blank_id: int = 0
    gradient: np.ndarray | None = None  # with respect to logits, [B, T, V]
    tolerance: float = 1e-5

    @property
    def logits(self):
        """Scores that the loss takes; the log of probabilities is a logit."""
        if self.inputs == "logits":
            return self.scores.astype(np.float32)
        with np.errstate(divide="ignore"):
            return np.log(self.scores).astype(np.float32)


# Computed with Alex Graves' own code, and reused by warp-ctc, gtn and others.
_TF_PROBS = np.array(
    [
        [
            [0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
            [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
            [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
            [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
            [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107],
        ],
        [
            [0.30176, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
            [0.24082, 0.397533, 0.0557226, 0.0546814, 0.0557528, 0.19549],
            [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, 0.202456],
            [0.280884, 0.429522, 0.0326593, 0.0339046, 0.0326856, 0.190345],
            [0.423286, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046],
        ],
    ]
)


def _tf_gradient():
    """Probabilities, except where the labels take their share."""
    gradient = np.pad(_TF_PROBS, ((0, 0), (0, 2), (0, 0)))
    for b, row in enumerate(
        [
            [
                (0, -0.366234),
                (1, -0.411608),
                (2, -0.678582),
                (1, -0.356151),
                (0, -0.541765),
            ],
            [
                (0, -0.69824),
                (1, -0.602467),
                (5, -0.797544),
                (1, -0.570478),
                (0, -0.576714),
            ],
        ]
    ):
        for t, (k, value) in enumerate(row):
            gradient[b, t, k] = value
    return gradient


def _frames(*classes, num_classes):
    """Frames that are certain of one class each."""
    return np.eye(num_classes)[list(classes)]


def _minimal_alignment():
    """Return frames and loss of two labels whose minimal alignment is the only path."""
    logits = np.random.default_rng(0).normal(size=(2, 7, 4))
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    paths = [[1, 2, 0, 2, 3], [1, 0, 1, 0, 1, 0, 1]]
    loss = [
        -sum(log_probs[b, t, k] for t, k in enumerate(path))
        for b, path in enumerate(paths)
    ]
    return logits, np.array(loss)


GOLDEN = (
    Golden(
        name="graves_with_nan_padding",
        source="TensorFlow kernel_tests/nn_ops/ctc_loss_op_test.py, testBasic",
        scores=np.pad(_TF_PROBS, ((0, 0), (0, 2), (0, 0)), constant_values=np.nan),
        inputs="probabilities",
        labels=np.array([[0, 1, 2, 1, 0], [0, 1, 1, 0, -1]]),
        logit_lengths=np.array([5, 5]),
        label_lengths=np.array([5, 4]),
        blank_id=5,
        loss=np.array([3.34211, 5.42262]),
        gradient=_tf_gradient(),
    ),
    Golden(
        name="keras_ops",
        source="Keras keras/src/ops/nn_test.py, test_ctc_loss",
        scores=np.array(
            [
                [[0.4, 0.8, 0.4], [0.2, 0.8, 0.3], [0.9, 0.4, 0.5]],
                [[0.4, 0.8, 0.4], [0.2, 0.3, 0.3], [0.4, 0.3, 0.2]],
            ]
        ),
        inputs="logits",
        labels=np.array([[1, 2, 1], [1, 2, 2]]),
        logit_lengths=np.array([3, 2]),
        label_lengths=np.array([3, 2]),
        loss=np.array([3.4411672, 1.91680186]),
    ),
    Golden(
        name="one_uniform_frame",
        source="warp-ctc's tutorial; k2/python/tests/ctc_loss_test.py",
        scores=np.full((1, 1, 5), 0.2),
        inputs="probabilities",
        labels=np.array([[1]]),
        loss=np.array([1.6094379425049]),
    ),
    Golden(
        name="rising_activations",
        source="warp-ctc's tutorial; k2/python/tests/ctc_loss_test.py",
        scores=np.arange(1.0, 16.0).reshape(1, 3, 5),
        inputs="logits",
        labels=np.array([[3, 3]]),
        loss=np.array([7.355742931366]),
    ),
    Golden(
        name="negative_activations",
        source="warp-ctc's tutorial; k2/python/tests/ctc_loss_test.py",
        scores=np.array(
            [[[-5, -4, -3, -2, -1], [-10, -9, -8, -7, -6], [-15, -14, -13, -12, -11]]],
            float,
        ),
        inputs="logits",
        labels=np.array([[2, 3]]),
        loss=np.array([4.938850402832]),
    ),
    Golden(
        name="two_frames_two_labels",
        source="warp-ctc tests/test_cpu.cpp, small_test",
        scores=np.array([[[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1]]]),
        inputs="logits",
        labels=np.array([[1, 2]]),
        loss=np.array([2 * math.log(1 + 4 * math.exp(-0.5))]),
    ),
    Golden(
        name="a_label_out_of_reach",
        source="warp-ctc tests/test_cpu.cpp, inf_test: cost inf, no gradient NaN",
        scores=np.where(
            np.arange(15) == 2,
            -1e30,
            np.random.default_rng(1).normal(size=(1, 50, 15)),
        ),
        inputs="logits",
        labels=np.array([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]),
        loss=np.array([np.inf]),
        gradient=np.zeros((1, 50, 15)),
    ),
    Golden(
        name="certain_frames",
        source="gtn test/criterion_test.cpp: probabilities 1 and 0, loss 0",
        scores=_frames(0, 1, 0, num_classes=2)[None],
        inputs="probabilities",
        labels=np.array([[0, 0]]),
        blank_id=1,
        loss=np.array([0.0]),
    ),
    Golden(
        name="uniform_frames",
        source="gtn test/criterion_test.cpp: five paths of 0.25**3",
        scores=np.full((1, 3, 4), 0.25),
        inputs="probabilities",
        labels=np.array([[1, 2]]),
        blank_id=3,
        loss=np.array([-math.log(5 * 0.25**3)]),
    ),
    Golden(
        name="no_frames",
        source="PyTorch test/test_nn.py: no frames, with and without a label",
        scores=np.zeros((2, 0, 3)),
        inputs="logits",
        labels=np.array([[1], [1]]),
        label_lengths=np.array([0, 1]),
        loss=np.array([0.0, np.inf]),
        gradient=np.zeros((2, 0, 3)),
    ),
    Golden(
        name="minimal_alignments",
        source="optax/losses/_classification_test.py: 1 2 2 3 and 1 1 1 1",
        scores=_minimal_alignment()[0],
        inputs="logits",
        labels=np.array([[1, 2, 2, 3], [1, 1, 1, 1]]),
        logit_lengths=np.array([5, 7]),
        loss=_minimal_alignment()[1],
    ),
    Golden(
        name="never_negative",
        source="optax issue 1771: a certain alignment gave -8.3e-08",
        scores=30 * _frames(1, 0, 2, 2, num_classes=3)[None],
        inputs="logits",
        labels=np.array([[1, 2]]),
        loss=np.array([4 * math.log1p(2 * math.exp(-30))]),
        tolerance=4e-7,
    ),
)
