"""The loss of a linear layer's output, which is never there as a whole."""

import functools

import jax
import jax.numpy as jnp

from jax_ctc._checks.arrays import Batch
from jax_ctc._checks.given import ArrayLike, Index, Option, Transform
from jax_ctc._checks.head import HeadBatch, check_head_inputs, check_how
from jax_ctc._lattice.pose import Spec, allow_wildcards, pose
from jax_ctc._lattice.projected import Axes, Layer, needed_logits
from jax_ctc._lattice.wildcards import over_gaps
from jax_ctc._loss.policy import settle, specify
from jax_ctc._loss.rule import loss_of_shifted
from jax_ctc._mesh.placement import run_placed
from jax_ctc._mesh.varying import is_tracked, value_only


def linear_ctc_loss(
    features: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None,
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
    feature_axis: Option | tuple[Option, ...] | None = None,
    precision: Option | None = None,
    logit_transform: Transform | None = None,
) -> jax.Array:
    r"""`ctc_loss` of a linear layer's logits, which never exist all at once.

    `...` any leading batch axes (none is fine), T frames, D features, V classes
    including blank, U labels.

        logits = features @ kernel + bias
        loss   = -log sum_{paths that collapse to labels} prod_t softmax(logits[t])

    With word pieces, or the characters of large scripts, logits [..., T, V] and their
    gradient are the largest arrays of a training step. A lattice reads U + 1 classes of
    a frame, and of all others what they add up to; so logits are made for some frames
    and some classes, used and dropped, and made again for the gradients.

    Args:
        features: [..., T, D] float32, float64, bfloat16 or float16, what goes into the
            layer. Frames past logit_lengths are never looked at.
        kernel: [D, V] float, finite, as Flax has it; torch's weight is kernel.T.
        bias: [V] float, or None. -inf masks a class.
        labels: [..., U] integer class ids without blanks, padded on the right with
            anything.
        logit_lengths: [...] integer frames, 0..T. Default: all T.
        label_lengths: [...] integer labels, 0..U. Default: all U.
        blank_id: the blank class, 0..V-1. Static.
        wildcard_id: a label that stands for anything, as in `ctc_loss`. Static.
        wildcard_log_prob: nats of a frame that a wildcard takes, as in `ctc_loss`.
        infeasible: "inf" or "zero", the value of an utterance that cannot be scored.
            Its gradient is exactly 0 either way. Static.
        implementation: of the recursion, as in `ctc_loss`. Static.
        vocab_axis: name(s) of the mesh axis over which the kernel's and the bias's
            classes are sharded, as in `ctc_loss`. Nothing with an axis V is sent, and
            their gradients lie as they do. Static. docs/pods.md.
        time_axis: likewise for the frames of the features. Static.
        feature_axis: likewise for D, of features and kernel: a block's logits are added
            up over the devices. Static.
        precision: of the products: "highest", "high" or "default", as in
            `jax.lax.Precision`; on CPUs all are the same. None: "highest", and
            "default" where features and kernel are bfloat16, which it multiplies
            exactly. Products are added up in float32 at least. Static.
        logit_transform: a function of an array that acts on logits one by one, such as
            a soft cap, lambda x: 30 * jnp.tanh(x / 30), and keeps their shape. Define
            it once: another function, even one that does the same, compiles again.
            Static.

    Returns:
        [...] float32 (float64 if features or kernel are), never negative and never -0
        unless the labels have a wildcard.

    Raises:
        ValueError: ranks or shapes disagree, or an option has an unknown value.
        TypeError: a dtype is wrong, `blank_id` is traced, or `logit_transform` is no
            function.
        NotImplementedError: as in `ctc_loss`.

    Status:
        As in `ctc_loss`; `linear_ctc_loss_with_status` returns the bits. Of an
        utterance with any bit set the gradient with respect to its features is exactly
        0, and it adds nothing to those of kernel and bias. NONFINITE_LOGITS also where
        a feature inside the length is not finite, and for every utterance where the
        kernel is not.

    Numerics:
        That of `ctc_loss` on float32 logits (float64 for float64). Gradients have the
        dtypes of their inputs, and are added up in float32 before they are rounded.

    Cost:
        Four products of B * T * D * V where the layer and `ctc_loss` take three: a
        gradient makes logits again (where V <= D they are kept). Beside inputs and
        gradients, a kernel and an array like the features in float32, a few like
        [B, T, U + 1], and blocks of at most max(512, B) * 1024 logits on a CPU,
        max(4096, B) * 4096 elsewhere (where V <= D, of all classes). Frames beyond the
        longest length are not multiplied, by the block; over an automatically sharded
        batch, that takes one number from every device.
        docs/large_vocabularies.md.

    Example:
        >>> import jax, jax.numpy as jnp, jax_ctc
        >>> features = jax.random.normal(jax.random.key(0), (2, 6, 3))
        >>> kernel, bias = jnp.ones((3, 5)).at[:, 1].set(2.0), jnp.zeros(5)
        >>> labels = jnp.array([[1, 2], [3, 3]])
        >>> whole = jax_ctc.ctc_loss(features @ kernel + bias, labels)
        >>> loss = jax_ctc.linear_ctc_loss(features, kernel, bias, labels)
        >>> bool(jnp.allclose(loss, whole, rtol=1e-5))
        True

    References:
        A. Graves et al., "Connectionist temporal classification", ICML 2006,
        https://doi.org/10.1145/1143844.1143891. Of losses that make logits in passing:
        E. Wijmans et al., "Cut your losses in large-vocabulary language models", ICLR
        2025, https://arxiv.org/abs/2411.09009.
    """
    spec, batch = allow_wildcards(
        specify(blank_id, infeasible, implementation)._replace(
            how=check_how(precision, logit_transform)
        ),
        check_head_inputs(features, kernel, bias, labels, logit_lengths, label_lengths),
        wildcard_id,
        wildcard_log_prob,
    )
    return run_placed(
        _score,
        spec,
        batch,
        "features",
        vocab_axis=vocab_axis,
        time_axis=time_axis,
        feature_axis=feature_axis,
    )[0]


def linear_ctc_loss_with_status(
    features: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None,
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
    feature_axis: Option | tuple[Option, ...] | None = None,
    precision: Option | None = None,
    logit_transform: Transform | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return the loss of each utterance, in nats, and what is wrong with it, in bits.

    `...` any leading batch axes, T frames, D features, V classes including blank, U
    labels. One forward pass serves both; everything else is as in `linear_ctc_loss`.

    Args:
        features: [..., T, D] float, what goes into the layer.
        kernel: [D, V] float.
        bias: [V] float, or None.
        labels: [..., U] integer class ids, padded on the right.
        logit_lengths: [...] integer frames. Default: all T.
        label_lengths: [...] integer labels. Default: all U.
        blank_id: the blank class. Static.
        wildcard_id: a label that stands for anything, as in `ctc_loss`. Static.
        wildcard_log_prob: nats of a frame that a wildcard takes, as in `ctc_loss`.
        infeasible: "inf" or "zero", the value of a flagged utterance. Static.
        implementation: of the recursion, as in `ctc_loss`. Static.
        vocab_axis: mesh axis over which the layer's classes are sharded. Static.
        time_axis: mesh axis over which the frames are sharded. Static.
        feature_axis: mesh axis over which the features are sharded. Static.
        precision: of the products, as in `linear_ctc_loss`. Static.
        logit_transform: what is done to logits, one by one. Static.

    Returns:
        loss: [...] float32 (float64 if features or kernel are), nats.
        status: [...] int32, bits of `Status`; 0 is fine.

    Raises:
        ValueError: ranks or shapes disagree, or an option has an unknown value.
        TypeError: a dtype is wrong, `blank_id` is traced, or `logit_transform` is no
            function.
        NotImplementedError: as in `ctc_loss`.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> features, kernel = jnp.zeros((2, 3, 7)), jnp.zeros((7, 4))
        >>> labels = jnp.array([[1, 2, 3], [1, 1, 2]])
        >>> loss, status = jax_ctc.linear_ctc_loss_with_status(
        ...     features, kernel, None, labels
        ... )
        >>> status.tolist(), loss.tolist()[1]
        ([0, 1], inf)

    References:
        A. Graves et al., "Connectionist temporal classification", ICML 2006,
        https://doi.org/10.1145/1143844.1143891.
    """
    spec, batch = allow_wildcards(
        specify(blank_id, infeasible, implementation)._replace(
            how=check_how(precision, logit_transform)
        ),
        check_head_inputs(features, kernel, bias, labels, logit_lengths, label_lengths),
        wildcard_id,
        wildcard_log_prob,
    )
    return run_placed(
        _score,
        spec,
        batch,
        "features",
        vocab_axis=vocab_axis,
        time_axis=time_axis,
        feature_axis=feature_axis,
    )


@functools.partial(jax.jit, static_argnums=0)
def _score(spec: Spec, batch: HeadBatch) -> tuple[jax.Array, jax.Array]:
    """Return loss and status, with the leading axes the batch came with."""
    features, labels = batch.features, batch.labels
    kernel, bias = batch.kernel, batch.bias
    layer = Layer(jnp.asarray(kernel), None if bias is None else jnp.asarray(bias))
    if not is_tracked(spec.shard_axes):
        layer = jax.tree.map(
            functools.partial(value_only, "the loss with vocab_axis or time_axis"),
            layer,
        )
    posed = Batch(
        features,
        labels,
        batch.logit_lengths,
        batch.label_lengths,
        batch.wildcard_log_prob,
    )
    problem, status, wildcards = pose(spec, posed, kernel.shape[1])
    axes = Axes(spec.vocab_axes, spec.feature_axes)
    small, shift = needed_logits(problem, layer, spec.how, axes)
    if wildcards is not None:
        small = over_gaps(small, shift, wildcards)
    found = loss_of_shifted(spec, small, shift)
    loss, status = settle(spec, *found, status, wildcards)
    leading = features.shape[:-2]
    return loss.reshape(leading), status.reshape(leading)
