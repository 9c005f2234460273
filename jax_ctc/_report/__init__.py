"""Which utterances of a data set are worst, and what is wrong with each of them."""

from collections.abc import Callable, Iterable
from typing import Any

from jax_ctc._checks.given import ArrayLike, Batches, Index, Option, Vocabulary
from jax_ctc._checks.options import check_count
from jax_ctc._output.progress import show_progress
from jax_ctc._report.batches import read
from jax_ctc._report.collect import Doctor, Worst, badness, describe
from jax_ctc._report.measure import measure
from jax_ctc._report.records import RankedUtterance, Ranking

__all__ = ["RankedUtterance", "Ranking", "rank_utterances"]


def rank_utterances(
    batches: Batches,
    *,
    blank_id: Index = 0,
    inputs: Option = "logits",
    vocabulary: Vocabulary | None = None,
    wildcard_id: Index | None = None,
    wildcard_log_prob: ArrayLike = 0.0,
    num_pictures: Index = 32,
    num_shapes: Index = 4,
    track: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> Ranking:
    """Rank a data set's utterances by their loss per label: the worst first.

    B utterances in a batch, T frames, V classes including blank, U labels. A model that
    has learnt to read finds the mistakes in its own data: what it cannot explain, a
    transcript of something else, words left out or never said, is at the top. Each
    utterance gets its loss, the score of its alignment, what is heard beyond its
    transcript and what of it is not heard, and what the doctor (`diagnose`) says of it
    in its batch. On the host, batch by batch; nothing of a batch is kept but text and
    the scores of the worst.

    Args:
        batches: an iterable of batches, such as a generator that runs the model. Each
            is a mapping with `logits` [..., T, V], `labels` [..., U] and, as needed,
            `logit_lengths` [...], `label_lengths` [...] as for `diagnose`, and `names`,
            a name for each utterance; or a tuple of them in this order. Shapes may
            differ from batch to batch.
        blank_id: as for `diagnose`.
        inputs: "logits", or "log_probs", which are taken as they are.
        vocabulary: as for `diagnose`.
        wildcard_id: as for `diagnose`. Whatever is heard where a wildcard stands is
            neither beyond the transcript nor unheard.
        wildcard_log_prob: as for `diagnose`.
        num_pictures: of how many of the worst to keep the scores, for the page.
        num_shapes: the doctor looks at batches as they are, and compiles anew for each
            of their shapes: for so many it does, batches of other shapes it leaves out,
            which a warning says (pad to few sizes). 0: it looks at none. Everything
            else is brought to sizes that are powers of two.
        track: called with `batches`, yields them and shows how far it is, such as
            `tqdm.tqdm`. Default: a bar by rich, if stderr is a terminal.

    Returns:
        Ranking: `utterances`, those that cannot be scored and then the largest loss per
        label first; `findings` of the doctor; `to_json()`, `to_html()`, `print`.

    Raises:
        TypeError: `batches` are no batches, an array is traced, a dtype is wrong, or
            `names` are no names. The message says in which batch.
        ValueError: a batch lacks something, shapes disagree, or an option has an
            unknown value.

    Cost:
        A loss, a best path and a diagnosis of each batch; some seconds to compile these
        for a new shape (docs/clean_a_data_set.md has figures). Host memory: at most
        eight times a batch while it is looked at, and the scores of `num_pictures`.

    Example:
        >>> import numpy as np, jax_ctc
        >>> logits = 8 * np.eye(4, dtype="f4")[[[1, 0, 2, 0], [3, 0, 1, 1]]]  # ab, ca
        >>> batch = {"logits": logits, "labels": [[1, 2], [3, 2]], "names": ["x", "y"]}
        >>> ranking = jax_ctc.rank_utterances([batch], vocabulary="-abc")
        >>> worst = ranking.utterances[0]
        >>> worst.name, worst.labels, worst.heard, worst.num_beyond, worst.num_unheard
        ('y', 'cb', 'ca', 1, 1)
        >>> worst.differences
        (('agreed', 'c'), ('unheard', 'b'), ('beyond', 'a'))
    """
    num_pictures = check_count(num_pictures, name="num_pictures", least=0)
    num_shapes = check_count(num_shapes, name="num_shapes", least=0)
    options = {
        "blank_id": blank_id,
        "inputs": inputs,
        "vocabulary": vocabulary,
        "wildcard_id": wildcard_id,
        "wildcard_log_prob": wildcard_log_prob,
    }
    if isinstance(batches, str) or not isinstance(batches, Iterable):
        raise TypeError(
            "`batches` must be an iterable of batches, such as a list or a generator;"
            f" got {type(batches).__name__}"
        )
    doctor, worst = Doctor(num_shapes, options), Worst(num_pictures)
    rows: list[RankedUtterance] = []
    number = -1
    for number, told in enumerate(
        track(batches) if track else show_progress(batches, "ranking batches")
    ):
        batch = read(told, number, options)
        found = doctor.examine(batch, number)
        described = describe(batch, number, measure(batch.given), found)
        for row in described:
            worst.offer(row, batch.given)
        rows += described
    doctor.say_what_is_left_out(number + 1)
    return Ranking(
        utterances=tuple(sorted(rows, key=badness, reverse=True)),
        findings=tuple(doctor.findings),
        num_batches=number + 1,
        num_examined=doctor.num_examined,
        _pictured=worst.in_order(),
    )
