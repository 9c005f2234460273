"""Beam search in a recording whose logits come block by block."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_ctc._alignment.blocks import checked, nothing_came, recut
from jax_ctc._checks.given import ArrayLike, Blocks, Flag, Index, Number, Option
from jax_ctc._checks.labels import bit
from jax_ctc._checks.status import Status
from jax_ctc._decoding.beam_search import read_nbest, with_bodies
from jax_ctc._decoding.guide import Guide
from jax_ctc._decoding.options import Options, check_guide, check_options
from jax_ctc._decoding.records import BeamHypotheses
from jax_ctc._decoding.search import (
    CHUNK_FRAMES,
    Plan,
    Search,
    advance,
    begin,
    num_chunks,
)
from jax_ctc._decoding.settled import Settled
from jax_ctc._numbers.precision import accumulator

# Frames that are searched at once: few, so that labels settle soon, and a multiple of
# what the search itself does at once, so that sums are the same in any blocks.
_BLOCK_FRAMES = 2 * CHUNK_FRAMES


def beam_search_chunks(
    blocks: Blocks,
    *,
    blank_id: Index = 0,
    beam_width: Index = 16,
    beam_threshold: Number | None = None,
    num_hypotheses: Index = 1,
    language_model: Any = None,
    lm_weight: ArrayLike = 0.5,
    label_bonus: ArrayLike = 0.0,
    hotwords: Any = None,
    inputs: Option = "logits",
    max_labels: Index | None = None,
    rerank: Flag = False,
    times: Flag = False,
    on_settled: Any = None,
) -> BeamHypotheses:
    r"""Beam search in one recording whose logits arrive as an iterator of blocks.

    t frames of a block, T frames in all, V classes including blank, W = beam_width
    prefixes, N = num_hypotheses, L = max_labels, or T. The answer is, bit for bit, that
    of `beam_search_decode` on the concatenated blocks, however they are cut.

    Args:
        blocks: iterable of [t, V] float arrays, scores of successive frames; t may
            differ between blocks, V and dtype may not. Read once, 32 frames at a time.
        blank_id: the blank class, 0..V-1.
        beam_width: W, as in `beam_search_decode`.
        beam_threshold: nats, as there. With one, labels settle as soon as everything
            else is that much less probable; without one, improbable prefixes may stay
            for ever where the scores are sure, and little settles. Default: none.
        num_hypotheses: N, at most W.
        language_model: an `NGram`, a `WordNGram`, or any other. Default: none.
        lm_weight: of the language model's nats.
        label_bonus: nats for every label.
        hotwords: `Hotwords`. Default: none.
        inputs: "logits", or "log_probs".
        max_labels: longer sequences are not looked at. Default: T.
        rerank: order all W prefixes at the end by `log_prob` and what else counts.
        times: whether to find the frames of each label.
        on_settled: called with `SettledLabels` as soon as there are new labels that
            all W prefixes agree on, which no frame to come can change: a caption to
            show. What has not settled by the end comes with the result only. Default:
            nobody is called.

    Returns:
        BeamHypotheses without batch axes: labels [N, L], lengths, log_prob and score
        [N], status []; with times, start, end and confidence [N, L].

    Raises:
        ValueError: a block is not [t, V] or has another V than the first, there is no
            block at all, or as in `beam_search_decode`.
        TypeError: a dtype is wrong or changes, an array is traced, or `on_settled`
            cannot be called.

    Status:
        NONFINITE_LOGITS: a frame of any block holds NaN, +inf or only -inf; nothing
        settles from there on, and there are no hypotheses at the end.

    Numerics:
        As `beam_search_decode`. What settles has its times from the best path of the
        best prefix so far; a later frame may still move them a little in the result.

    Cost:
        The device holds 32 frames. On the host wait 4 * T * W bytes, what the search
        kept, and all scores, 4 * T * V bytes in float32: `log_prob` is that of labels
        that are known only at the end. The last step compiles for every new T.

    Example:
        >>> import numpy as np, jax_ctc
        >>> best = [0, 1, 1, 0, 2] + 40 * [0]  # the class that wins each frame
        >>> logits = 9.0 * np.eye(3, dtype=np.float32)[best]
        >>> blocks = (logits[i : i + 10] for i in range(0, 45, 10))
        >>> found = jax_ctc.beam_search_chunks(
        ...     blocks,
        ...     beam_width=2,
        ...     on_settled=lambda new: print(new.labels, new.start, new.end),
        ... )
        [1 2] [1 4] [3 5]
        >>> found.labels[0, :2].tolist()
        [1, 2]
    """
    if on_settled is not None and not callable(on_settled):
        raise TypeError(
            "`on_settled` must be a function of one argument, the labels that have"
            f" settled; got {on_settled!r}"
        )
    names = {"function": "beam_search_chunks", "whole": "beam_search_decode"}
    arriving = recut(checked(blocks, name="blocks", **names), _BLOCK_FRAMES)
    first = next(arriving, None)
    if first is None:
        raise nothing_came("blocks")
    num_classes = first[0].shape[1]
    guide = check_guide(num_classes, language_model, lm_weight, label_bonus, hotwords)
    options = check_options(
        num_classes,
        blank_id=blank_id,
        beam_width=beam_width,
        beam_threshold=beam_threshold,
        num_hypotheses=num_hypotheses,
        inputs=inputs,
        max_labels=max_labels,
        rerank=rerank,
        times=times,
        is_guided=bool(guide.models),
    )
    plan = options.plan
    guide = jax.tree.map(jnp.asarray, guide)
    search = begin(plan, guide, jnp.zeros((1,), accumulator(first[0].dtype)))
    settled = Settled(
        plan.width,
        max(num_classes, 2),
        blank_id=plan.blank_id,
        normalise=plan.normalise,
    )
    steps, scores = [], []
    for block, count in itertools.chain([first], arriving):
        search, kept, rated = _search(plan, guide, search, block, count)
        kept, frames = np.asarray(kept), block[:count]
        steps.append(kept)
        scores.append(frames)
        if on_settled is not None and not search.is_bad[0]:
            rated = np.asarray(rated)
            is_alive = rated > -np.inf
            new = settled.read(kept, is_alive, int(np.argmax(rated)), frames)
            if new is not None:
                on_settled(new)
    scores = np.concatenate(scores)
    kept = np.concatenate(steps)[: CHUNK_FRAMES * max(num_chunks(len(scores)), 1)]
    return _finish(options, guide, search, kept, scores)


@functools.partial(jax.jit, static_argnums=0)
def _search(
    plan: Plan,
    guide: Guide,
    search: Search,
    block: Float[Array, "K V"],
    count: Int[Array, ""] | int,
) -> tuple[Search, Int[Array, "F W"], Float[Array, " W"]]:
    """Search through a block; return what is kept of it, and how prefixes are rated."""
    length = jnp.asarray(count, jnp.int32)[None]
    search, steps = advance(plan, guide, search, with_bodies(block[None]), length)
    beam = search.beam
    return search, steps[:, 0], (beam.total + beam.extra)[0]


@functools.partial(jax.jit, static_argnums=0)
def _finish(
    options: Options,
    guide: Guide,
    search: Search,
    steps: Int[Array, "F W"],
    scores: Float[Array, "T V"],
) -> BeamHypotheses:
    """Read the hypotheses off the whole recording."""
    num_frames = scores.shape[0]
    status = bit(Status.NONFINITE_LOGITS, search.is_bad)
    found = read_nbest(
        options,
        guide,
        search,
        steps[:, None],
        with_bodies(scores[None]),
        jnp.full((1,), num_frames, jnp.int32),
        status,
        options.plan.max_labels or num_frames,
    )
    return jax.tree.map(lambda x: x[0], found)
