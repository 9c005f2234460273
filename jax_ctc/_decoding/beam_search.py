"""Beam search: the label sequences that are most probable over all their paths."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Integer

from jax_ctc._alignment.paths import PADDING
from jax_ctc._checks.arrays import check_lengths, check_scores
from jax_ctc._checks.given import ArrayLike, Flag, Index, Number, Option
from jax_ctc._checks.labels import bit, is_within, narrow
from jax_ctc._checks.status import Status
from jax_ctc._decoding import nbest
from jax_ctc._decoding.guide import Guide
from jax_ctc._decoding.largest import at, largest
from jax_ctc._decoding.nbest import Nbest
from jax_ctc._decoding.options import Options, check_guide, check_options
from jax_ctc._decoding.records import BeamHypotheses
from jax_ctc._decoding.search import Search, advance, begin
from jax_ctc._decoding.trace import read_labels
from jax_ctc._lattice.pose import or_full
from jax_ctc._mesh.varying import vary_alike
from jax_ctc._numbers.masks import positions
from jax_ctc._numbers.precision import accumulator


def beam_search_decode(
    logits: ArrayLike,
    logit_lengths: ArrayLike | None = None,
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
) -> BeamHypotheses:
    r"""The label sequences that are most probable over all their paths.

    `...` any leading batch axes, T frames, V classes including blank, W = beam_width
    prefixes, N = num_hypotheses, L = max_labels, or T. Frame by frame the W best
    prefixes are kept, each with the sum of its paths so far. Sought are the labels with
    the largest

        score = log p(labels | logits)
              + lm_weight * log p(labels | language_model) + label_bonus * length

    Args:
        logits: [..., T, V] float32, float64, bfloat16 or float16.
        logit_lengths: [...] integer frames, 0..T. Default: all T.
        blank_id: the blank class, 0..V-1. Static.
        beam_width: W. The larger, the surer; time and memory grow with it. 1 keeps one
            prefix with all its paths: where every frame's best class has more than 0.71
            (the root of 1/2), its labels are those of `greedy_decode`, repeats
            included; on other frames it may differ from it. Static.
        beam_threshold: nats. After each frame, prefixes whose score is more than so
            much below the best one's are dropped. Default: none is. Static.
        num_hypotheses: N, at most W. Static.
        language_model: an `NGram` or a `WordNGram`; or any pytree with their methods
            `initial`, `score`, `advance` and `end`. Default: none.
        lm_weight: a number, traced or not, of the language model's nats; 0 is as
            without one.
        label_bonus: nats for every label, traced or not.
        hotwords: `Hotwords`, which rate along. Default: none.
        inputs: "logits", or "log_probs": scores are taken as they are.
        max_labels: longer sequences are not looked at. Default: T. Static.
        rerank: order all W prefixes by `log_prob` plus what a language model, bonus and
            hotwords add, instead of by what the search has kept of their paths. Then
            the first hypothesis does not depend on N. Static.
        times: whether to find the frames of each label. Static.

    Returns:
        BeamHypotheses: labels [..., N, L] int32 padded with -1, lengths [..., N] int32,
        log_prob [..., N] nats, log p(labels) over all paths, as minus the loss has it;
        score [..., N] nats, by which they are ordered; status [...] int32. With times:
        start and end [..., N, L] int32 frames of the labels and their confidence
        [..., N, L], exactly as `ctc_align` finds them. Floats are float32 (float64 for
        float64 logits) and constants: for a derivative of log_prob pass the labels to
        `ctc_loss`. No two hypotheses of an utterance are equal. Where fewer than N
        sequences are possible or kept, the rest have length 0, log_prob and score -inf.

    Raises:
        ValueError: ranks or shapes disagree, `blank_id` is not a class, N exceeds W, or
            W * (V + 1) exceeds 2**31.
        TypeError: a dtype or an option is wrong, or a static one is traced.

    Status:
        BAD_LENGTH: logit_lengths is outside 0..T. NONFINITE_LOGITS: a frame inside it
        holds NaN, +inf or only -inf; log_prob and score are NaN. Such an utterance has
        no hypotheses: all lengths are 0.

    Numerics:
        Exact, to about 1e-5 nats, where W holds every prefix; otherwise `score` lacks
        the paths of prefixes that were dropped (unless `rerank`), `log_prob` lacks
        none. Without a language model and hotwords only those extensions are left out
        of a frame that could not enter the beam, so nothing is lost; with them the i-th
        prefix is extended by the 1 + 4 * W / i most probable classes. What
        `beam_threshold` drops in a frame scores less than W * exp(-beam_threshold)
        times what the best prefix does; where nothing is so low, it moves no bit.
        Equals are told apart by their places: the prefix that stays goes first, then
        the more probable prefix, then the lower class. Prefixes are told apart by
        64-bit hashes, which two in a beam share once in 2**64 / (T * W**2) utterances:
        then paths of one would be counted to the other's `score`.

    Cost:
        O(T * (V + W log W)) time on an accelerator, 32 V on a CPU, and 4 * T * W bytes.
        `log_prob` costs the loss of N label sequences of L, of W with `rerank`: give
        `max_labels`. An utterance never looks at another, so a sharded batch needs no
        communication.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> p = jnp.array([[0.6, 0.4], [0.6, 0.4]])  # blank and one label, two frames
        >>> found = jax_ctc.beam_search_decode(jnp.log(p), num_hypotheses=2)
        >>> found.labels.tolist(), found.lengths.tolist()  # 0.64 and 0.36, although
        ([[1, -1], [-1, -1]], [1, 0])
        >>> int(jax_ctc.greedy_decode(jnp.log(p)).lengths)  # the best path is silent
        0

    References:
        A. Graves and N. Jaitly, "Towards end-to-end speech recognition with recurrent
        neural networks", ICML 2014.
        A. Hannun et al., "First-pass large vocabulary continuous speech recognition
        using bi-directional recurrent DNNs", 2014, https://arxiv.org/abs/1408.2873.
    """
    scores = check_scores(logits)
    lengths = check_lengths(
        logit_lengths, scores.shape[:-2], name="logit_lengths", of="logits"
    )
    guide = check_guide(
        scores.shape[-1], language_model, lm_weight, label_bonus, hotwords
    )
    options = check_options(
        scores.shape[-1],
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
    return _decode(options, scores, lengths, guide)


@functools.partial(jax.jit, static_argnums=0)
def _decode(
    options: Options,
    logits: Float[Array, "... T V"],
    logit_lengths: Integer[Array, "..."] | None,
    guide: Guide,
) -> BeamHypotheses:
    """Search, then read the hypotheses off the lattice."""
    *leading, num_frames, _ = logits.shape
    logit_lengths = or_full(logit_lengths, leading, num_frames)
    leaves, tree = jax.tree.flatten(guide)
    scores, lengths, *leaves = vary_alike(logits, logit_lengths, *leaves)
    guide = jax.tree.unflatten(tree, map(lax.stop_gradient, leaves))
    batch = math.prod(leading)
    scores = with_bodies(lax.stop_gradient(scores).reshape(batch, *scores.shape[-2:]))
    lengths = narrow(lengths).reshape(batch)
    status = bit(Status.BAD_LENGTH, ~is_within(lengths, num_frames))
    lengths = jnp.clip(lengths, 0, num_frames)
    plan = options.plan
    if plan.max_labels is not None and plan.max_labels >= scores.shape[1]:
        plan = plan._replace(max_labels=None)  # no label can be one too many
    zero = jnp.zeros_like(scores[:, 0, 0], accumulator(scores.dtype))
    search, steps = advance(plan, guide, begin(plan, guide, zero), scores, lengths)
    status = status | bit(Status.NONFINITE_LOGITS, search.is_bad)
    size = options.plan.max_labels or num_frames
    found = read_nbest(options, guide, search, steps, scores, lengths, status, size)
    return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), found)


def with_bodies(scores: Float[Array, "B _ _"]) -> Float[Array, "B T V"]:
    """Return the scores with at least a frame and a label: bodies for the loops.

    The frame is padding, and the label impossible.
    """
    if scores.shape[2] == 1:
        scores = jnp.pad(scores, ((0, 0), (0, 0), (0, 1)), constant_values=-jnp.inf)
    if scores.shape[1] == 0:
        scores = jnp.pad(scores, ((0, 0), (0, 1), (0, 0)))
    return scores


def read_nbest(
    options: Options,
    guide: Guide,
    search: Search,
    steps: Int[Array, "F B W"],
    scores: Float[Array, "B T V"],
    logit_lengths: Int[Array, " B"],
    status: Int[Array, " B"],
    max_labels: int,
) -> BeamHypotheses:
    """Choose the hypotheses; read their labels, and from the lattice the rest."""
    plan, beam = options.plan, search.beam
    # After the last frame, the end of the labels is rated as well.
    extra = beam.extra + jax.vmap(guide.end)(beam.states, beam.extra)
    score = beam.total + (search.high + search.low)[:, None] + extra
    score = jnp.where((status == 0)[:, None], score, -jnp.inf)
    count = plan.width if options.rerank else options.num_hypotheses
    if guide.models or plan.max_labels is not None:
        score, place = largest(score, count)
    else:  # they are in order
        score = score[:, :count]
        place = jnp.zeros_like(beam.length[:, :count]) + positions(count, 2)
    is_ok, lengths = score > -jnp.inf, at(beam.length, place)
    labels = read_labels(
        steps,
        place,
        lengths,
        num_classes=scores.shape[2],
        max_labels=max_labels,
    )
    found = Nbest(scores, logit_lengths, labels, lengths, is_ok)
    lattice = {"blank_id": plan.blank_id, "normalise": plan.normalise}
    log_prob = nbest.log_prob(found, **lattice)
    if options.rerank:
        score = jnp.where(is_ok, log_prob + at(extra, place), -jnp.inf)
        score, order = largest(score, options.num_hypotheses)
        is_ok, lengths, log_prob = (at(x, order) for x in (is_ok, lengths, log_prob))
        labels = jnp.take_along_axis(labels, order[:, :, None], axis=1)
        found = found._replace(labels=labels, lengths=lengths, is_ok=is_ok)
    times = nbest.times(found, **lattice) if options.times else ()
    is_bad = (status & Status.NONFINITE_LOGITS != 0)[:, None]
    return BeamHypotheses(
        jnp.where(is_ok[:, :, None], labels, PADDING),
        jnp.where(is_ok, lengths, 0),
        jnp.where(is_bad, jnp.nan, jnp.where(is_ok, log_prob, -jnp.inf)),
        jnp.where(is_bad, jnp.nan, score),
        status,
        *times,
    )
