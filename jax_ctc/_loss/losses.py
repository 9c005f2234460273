"""The losses: public names, statuses and the policy for utterances without a loss."""

import functools

import jax

from jax_ctc._checks.arrays import Batch, check_inputs
from jax_ctc._checks.given import ArrayLike, Index, Option
from jax_ctc._checks.labels import bit
from jax_ctc._checks.status import Status
from jax_ctc._lattice import normaliser
from jax_ctc._lattice.emissions import is_bad as bad
from jax_ctc._lattice.needed import needed_classes
from jax_ctc._lattice.pose import Spec, allow_wildcards, pose
from jax_ctc._loss.policy import settle, specify
from jax_ctc._loss.rule import loss_of
from jax_ctc._mesh.placement import run_placed
from jax_ctc._mesh.varying import anywhere
from jax_ctc._numbers.masks import is_inside


def ctc_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    *,
    blank_id: Index = 0,
    wildcard_id: Index | None = None,
    wildcard_log_prob: ArrayLike = 0.0,
    infeasible: Option = "inf",
    implementation: Option | None = None,
    vocab_axis: Option | tuple[Option, ...] | None = None,
    time_axis: Option | tuple[Option, ...] | None = None,
) -> jax.Array:
    r"""Negative log-probability, in nats, of each label sequence.

    `...` any leading batch axes (none is fine), T frames, V classes including blank,
    U labels. With p_t = softmax(logits[t]),

        loss = -log sum_{paths that collapse to labels} prod_t p_t(path_t)

    where a path has one class per frame, and collapsing merges repeats, then drops
    blanks.

    Args:
        logits: [..., T, V] float32, float64, bfloat16 or float16, unnormalised scores.
            -inf masks a class. Frames past logit_lengths are never looked at.
        labels: [..., U] integer class ids without blanks, padded on the right with
            anything.
        logit_lengths: [...] integer frames, 0..T. Default: all T.
        label_lengths: [...] integer labels, 0..U. Default: all U.
        blank_id: the blank class, 0..V-1. Static.
        wildcard_id: a label that stands for anything, any number of labels and blanks,
            none included: for transcripts with holes. Any integer but `blank_id`, such
            as V. Two in a row are one. Default: there is none. Static.
            docs/alignment.md.
        wildcard_log_prob: nats of a frame that a wildcard takes; one number, traced or
            not. Where the wildcard stands, a frame counts as the better of the blank
            and this. At 0, for training, any frame fits; at -1, for alignment, frames
            that surely show a label beside it stay the label's.
        infeasible: "inf" or "zero", the value of an utterance that cannot be scored.
            Its gradient is exactly 0 either way. Static.
        implementation: None (the best for the platform), or a name of
            `implementations()`, such as "blocked". Static.
        vocab_axis: name(s) of the mesh axis over which the classes are sharded: each
            device passes its own V / devices of them, in order, inside `shard_map` with
            check_vma=True; or all of them under `jax.set_mesh`, where the loss enters
            the axis itself. Ids stay global, `blank_id` too. None: not sharded, or read
            off the type of `logits` (Explicit axes). Static. docs/pods.md.
        time_axis: likewise for frames, of one utterance too long for one device;
            `logit_lengths` stay global. Static.

    Returns:
        [...] float32 (float64 for float64 logits), never negative and never -0; with a
        wildcard in the labels the sum counts alignments, and its logarithm is any
        number.

    Raises:
        ValueError: ranks or shapes disagree, or an option has an unknown value.
        TypeError: a dtype is wrong, or `blank_id` is traced.
        NotImplementedError: the named implementation cannot run here; or a derivative
            is taken with `vocab_axis` or `time_axis` under check_vma=False.

    Status:
        Never raised, since lengths, ids and scores are known only on the device;
        `ctc_loss_with_status` returns the bits. INFEASIBLE, LABEL_OUT_OF_RANGE,
        BLANK_IN_LABELS, BAD_LENGTH, ZERO_PROBABILITY: value by `infeasible`.
        NONFINITE_LOGITS: NaN whatever `infeasible` says, for the fault lies upstream.
        Any bit: gradient exactly 0, and other utterances keep every bit of theirs.

    Numerics:
        Arithmetic in float32 from the first operation (float64 for float64), in
        extended range: no underflow, and gradient errors below 1e-5 at any length
        measured (docs/promises.md). A loss below about 1e-5 is exact to T * 1e-7 nats.
        -log p beyond 7.4e8 nats counts as impossible. Derivatives of every order and
        mode; the second and higher ones are those of "scan", in log space.

    Cost:
        O(T * (U + V)) time per utterance. Beyond logits and gradient, memory grows
        with sqrt(T) ("scan": with T, several arrays of [T, U]). A new T, U or batch
        shape compiles again: pad to a few bucket sizes. With `wildcard_id` no kernel
        runs, and a few arrays [T, U] are kept besides.

    Example:
        >>> import jax, jax.numpy as jnp, jax_ctc
        >>> logits = jnp.log(jnp.array([[.1, .2, .7], [.3, .6, .1], [.8, .1, .1]]))
        >>> loss = jax_ctc.ctc_loss(logits, jnp.array([1, 2]))
        >>> round(float(jnp.exp(-loss)), 4)
        0.042
        >>> gradient = jax.grad(jax_ctc.ctc_loss)(logits, jnp.array([1, 2]))
        >>> bool(jnp.all(jnp.abs(gradient.sum(axis=1)) < 1e-6))
        True

    References:
        A. Graves, S. Fernandez, F. Gomez, J. Schmidhuber, "Connectionist temporal
        classification: labelling unsegmented sequence data with recurrent neural
        networks", ICML 2006, https://doi.org/10.1145/1143844.1143891.
    """
    spec, batch = allow_wildcards(
        specify(blank_id, infeasible, implementation),
        check_inputs(logits, labels, logit_lengths, label_lengths),
        wildcard_id,
        wildcard_log_prob,
    )
    return run_placed(
        _score,
        spec,
        batch,
        "logits",
        vocab_axis=vocab_axis,
        time_axis=time_axis,
    )[0]


def ctc_loss_with_status(
    logits: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    *,
    blank_id: Index = 0,
    wildcard_id: Index | None = None,
    wildcard_log_prob: ArrayLike = 0.0,
    infeasible: Option = "inf",
    implementation: Option | None = None,
    vocab_axis: Option | tuple[Option, ...] | None = None,
    time_axis: Option | tuple[Option, ...] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return the loss of each utterance, in nats, and what is wrong with it, in bits.

    `...` any leading batch axes, T frames, V classes including blank, U labels. One
    forward pass serves both; everything about the loss is as in `ctc_loss`.

    Args:
        logits: [..., T, V] float, unnormalised.
        labels: [..., U] integer class ids, padded on the right.
        logit_lengths: [...] integer frames. Default: all T.
        label_lengths: [...] integer labels. Default: all U.
        blank_id: the blank class. Static.
        wildcard_id: a label that stands for anything, as in `ctc_loss`. Static.
        wildcard_log_prob: nats of a frame that a wildcard takes, as in `ctc_loss`.
        infeasible: "inf" or "zero", the value of a flagged utterance. Static.
        implementation: None, or a name, as in `ctc_loss`. Static.
        vocab_axis: mesh axis over which the classes are sharded, as in `ctc_loss`.
        time_axis: mesh axis over which the frames are sharded, as in `ctc_loss`.

    Returns:
        loss: [...] float32 (float64 for float64 logits), nats.
        status: [...] int32, bits of `Status`; 0 is fine. All bits are reported,
            ZERO_PROBABILITY included, which only the recursion can tell.

    Raises:
        ValueError: ranks or shapes disagree, or an option has an unknown value.
        TypeError: a dtype is wrong, or `blank_id` is traced.
        NotImplementedError: the named implementation cannot run here.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> logits, labels = jnp.zeros((2, 3, 4)), jnp.array([[1, 2, 3], [1, 1, 2]])
        >>> loss, status = jax_ctc.ctc_loss_with_status(logits, labels)
        >>> status.tolist(), loss.tolist()[1]
        ([0, 1], inf)
        >>> jax_ctc.explain(status)[1][0].split(":")[0]
        'INFEASIBLE'

    References:
        A. Graves et al., "Connectionist temporal classification", ICML 2006,
        https://doi.org/10.1145/1143844.1143891.
    """
    spec, batch = allow_wildcards(
        specify(blank_id, infeasible, implementation),
        check_inputs(logits, labels, logit_lengths, label_lengths),
        wildcard_id,
        wildcard_log_prob,
    )
    return run_placed(
        _score,
        spec,
        batch,
        "logits",
        vocab_axis=vocab_axis,
        time_axis=time_axis,
    )


def ctc_loss_from_log_probs(
    log_probs: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    *,
    blank_id: Index = 0,
    wildcard_id: Index | None = None,
    wildcard_log_prob: ArrayLike = 0.0,
    infeasible: Option = "inf",
    implementation: Option | None = None,
    vocab_axis: Option | tuple[Option, ...] | None = None,
    time_axis: Option | tuple[Option, ...] | None = None,
) -> jax.Array:
    r"""Negative log of the sum over paths, in nats, of scores taken as they are.

    `...` any leading batch axes, T frames, V classes including blank, U labels.

        loss = -log sum_{paths that collapse to labels} prod_t exp(log_probs[t, path_t])

    For inputs that are log-probabilities already, or that carry a prior, a penalty or
    a mask and so are no distribution any more. Nothing is renormalised, and the
    gradient is the true one, d loss / d log_probs = -posterior, not the gradient with
    respect to logits that some frameworks return here. Because the loss is that of the
    input as given, the value may be negative, and is never clamped.

    Args:
        log_probs: [..., T, V] float32, float64, bfloat16 or float16, nats.
        labels: [..., U] integer class ids without blanks, padded on the right.
        logit_lengths: [...] integer frames, 0..T. Default: all T.
        label_lengths: [...] integer labels, 0..U. Default: all U.
        blank_id: the blank class, 0..V-1. Static.
        wildcard_id: a label that stands for anything, as in `ctc_loss`. Static.
        wildcard_log_prob: nats of a frame that a wildcard takes, as in `ctc_loss`.
        infeasible: "inf" or "zero", the value of an utterance that cannot be scored.
            Static.
        implementation: None, or a name, as in `ctc_loss`. Static.
        vocab_axis: mesh axis over which the classes are sharded, as in `ctc_loss`.
        time_axis: mesh axis over which the frames are sharded, as in `ctc_loss`.

    Returns:
        [...] float32 (float64 for float64 input), nats.

    Raises:
        ValueError: ranks or shapes disagree, or an option has an unknown value.
        TypeError: a dtype is wrong, or `blank_id` is traced.
        NotImplementedError: the named implementation cannot run here.

    Status:
        Conditions, values and zero gradients as in `ctc_loss`; a frame inside the
        length with NaN, +inf or only -inf makes the loss NaN.

    Numerics:
        As in `ctc_loss`.

    Cost:
        As in `ctc_loss`.

    Example:
        >>> import jax, jax.numpy as jnp, jax_ctc
        >>> log_probs = jnp.log(jnp.array([[.1, .9], [.4, .6]]))
        >>> jax.grad(jax_ctc.ctc_loss_from_log_probs)(log_probs, jnp.array([1])).sum(1)
        Array([-1., -1.], dtype=float32)

    References:
        A. Graves et al., "Connectionist temporal classification", ICML 2006,
        https://doi.org/10.1145/1143844.1143891.
    """
    spec, batch = allow_wildcards(
        specify(blank_id, infeasible, implementation)._replace(normalise=False),
        check_inputs(log_probs, labels, logit_lengths, label_lengths, name="log_probs"),
        wildcard_id,
        wildcard_log_prob,
    )
    return run_placed(
        _score,
        spec,
        batch,
        "log_probs",
        vocab_axis=vocab_axis,
        time_axis=time_axis,
    )[0]


def check_batch(
    logits: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    *,
    blank_id: Index = 0,
    wildcard_id: Index | None = None,
    vocab_axis: Option | tuple[Option, ...] | None = None,
    time_axis: Option | tuple[Option, ...] | None = None,
) -> jax.Array:
    """Return what is wrong with each utterance, in bits, without running the loss.

    `...` any leading batch axes, T frames, V classes including blank, U labels.

    Args:
        logits: [..., T, V] float.
        labels: [..., U] integer class ids, padded on the right.
        logit_lengths: [...] integer frames. Default: all T.
        label_lengths: [...] integer labels. Default: all U.
        blank_id: the blank class. Static.
        wildcard_id: a label that stands for anything, as in `ctc_loss`. Static.
        vocab_axis: mesh axis over which the classes are sharded, as in `ctc_loss`.
        time_axis: mesh axis over which the frames are sharded, as in `ctc_loss`.

    Returns:
        [...] int32, bits of `Status`: every bit that `ctc_loss_with_status` reports
        but ZERO_PROBABILITY, which takes the recursion to tell.

    Raises:
        ValueError: ranks or shapes disagree.
        TypeError: a dtype is wrong, or `blank_id` is traced.

    Cost:
        One pass over the logits, O(T * V) per utterance.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> labels = jnp.array([[1, 2], [0, 9]])
        >>> bits = jax_ctc.check_batch(jnp.zeros((2, 3, 4)), labels)
        >>> bits.tolist()
        [0, 6]
        >>> jax_ctc.Status(6)
        <Status.LABEL_OUT_OF_RANGE|BLANK_IN_LABELS: 6>
    """
    spec, batch = allow_wildcards(
        specify(blank_id, "inf", None),
        check_inputs(logits, labels, logit_lengths, label_lengths),
        wildcard_id,
        0.0,
    )
    return run_placed(
        _check,
        spec,
        batch,
        "logits",
        vocab_axis=vocab_axis,
        time_axis=time_axis,
    )


@functools.partial(jax.jit, static_argnums=0)
def _score(spec: Spec, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Return loss and status, with the leading axes the batch came with."""
    problem, status, wildcards = pose(spec, batch)
    found = loss_of(spec, problem, wildcards)
    loss, status = settle(spec, *found, status, wildcards)
    leading = batch.scores.shape[:-2]
    return loss.reshape(leading), status.reshape(leading)


@functools.partial(jax.jit, static_argnums=0)
def _check(spec: Spec, batch: Batch) -> jax.Array:
    """Return the status bits that need no recursion, with the leading axes."""
    problem, status, _ = pose(spec, batch)
    if spec.vocab_axes:
        problem, _ = needed_classes(problem, spec.vocab_axes, normalise=False)
    is_live = is_inside(problem.logit_lengths, problem.scores.shape[1])
    is_bad = anywhere(bad(normaliser.of_all(problem.scores), is_live), spec.time_axes)
    status = status | bit(Status.NONFINITE_LOGITS, is_bad)
    return status.reshape(batch.scores.shape[:-2])
