"""Why is my CTC loss wrong? One batch in, the most likely causes out."""

from jax_ctc._checks.given import ArrayLike, Index, Option, Vocabulary
from jax_ctc._diagnose.batch import read_batch
from jax_ctc._diagnose.doctor import examine
from jax_ctc._diagnose.report import Finding, Report, Utterance
from jax_ctc._diagnose.table import rows, utterances

__all__ = ["Finding", "Report", "Utterance", "diagnose"]


def diagnose(
    logits: ArrayLike,
    labels: ArrayLike,
    logit_lengths: ArrayLike | None = None,
    label_lengths: ArrayLike | None = None,
    *,
    blank_id: Index = 0,
    inputs: Option = "logits",
    vocabulary: Vocabulary | None = None,
    wildcard_id: Index | None = None,
    wildcard_log_prob: ArrayLike = 0.0,
) -> Report:
    """Name the most likely reason why the loss of a batch is wrong, with its evidence.

    `...` any leading batch axes, T frames, V classes including blank, U labels. Pass
    one batch exactly as the loss got it. Each hypothesis is tested by the lattice: the
    batch is read another way (another blank, shifted labels, other pairs, ...), and
    reported if the data are explained better that way than as passed, and better than
    by guesswork, by odds of a million to one. Healthy batches have nothing above note,
    whether the model is trained or not; a model that knows nothing can only show what
    the arrays themselves give away. docs/doctor.md has the list of codes.

    Args:
        logits: [..., T, V] float32, float64, bfloat16 or float16, on the host or a
            device, not traced.
        labels: [..., U] integer class ids, padded on the right.
        logit_lengths: [...] integer frames; fractions in 0..1 are accepted too, and
            reported. Default: all T.
        label_lengths: [...] integer labels, or fractions. Default: all U.
        blank_id: the blank class that the loss was given.
        inputs: "logits" if they go to `ctc_loss`, "log_probs" if they go to
            `ctc_loss_from_log_probs`.
        vocabulary: V strings, the names of the classes, or a mapping from ids to names;
            for reading only.
        wildcard_id: what the loss was told. Transcripts with wildcards are in the table
            and have their status; causes are looked for in the others.
        wildcard_log_prob: what the loss was told.

    Returns:
        Report: `findings`, the likeliest cause first, `utterances`, a table, and
        `codes()`, the set of codes above note.

    Raises:
        TypeError: an argument is traced, a dtype is wrong, or `vocabulary` is neither a
            sequence nor a mapping of strings.
        ValueError: shapes disagree, a sequence as `vocabulary` has not V names, or an
            option has an unknown value.

    Cost:
        At most a few dozen losses of the batch, one per other transcript of it (the
        first 64 at most), a few passes over [U, 64] cells per frame, and the table's
        posteriors [B, T, U]. A new shape compiles anew. Runs on the default device,
        from copies on the host.

    Example:
        >>> import numpy as np, jax_ctc
        >>> rng = np.random.default_rng(0)
        >>> labels = np.array([[1, 2, 3, 1], [4, 1, 2, -1]])
        >>> scores = rng.normal(size=(2, 12, 5))
        >>> jax_ctc.diagnose(scores, labels, label_lengths=[4, 3]).codes()
        set()
        >>> swapped = jax_ctc.diagnose(scores, labels, [4, 3], [12, 12])
        >>> swapped.findings[0].code
        'LENGTHS_SWAPPED'
    """
    given = read_batch(
        (logits, labels, logit_lengths, label_lengths),
        blank_id=blank_id,
        inputs=inputs,
        vocabulary=vocabulary,
        wildcard_id=wildcard_id,
        wildcard_log_prob=wildcard_log_prob,
    )
    numbers = rows(given)
    count, frames, classes = given.scores.shape
    return Report(
        findings=examine(given, numbers.status),
        utterances=utterances(given, numbers),
        passed={
            **{"B": count, "T": frames, "V": classes, "U": given.labels.shape[1]},
            **{"blank_id": given.blank_id, "inputs": given.inputs},
        },
        _given=given,
    )
