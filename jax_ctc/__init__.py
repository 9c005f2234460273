"""Exact CTC for JAX: the loss, its derivatives, and what is wrong with the input."""

from jax_ctc._alignment.chunks import ctc_align_chunks
from jax_ctc._alignment.entropy import alignment_entropy
from jax_ctc._alignment.posteriors import ctc_posteriors
from jax_ctc._alignment.records import CTCAlignment, CTCPosteriors, CTCSamples
from jax_ctc._alignment.samples import sample_alignments
from jax_ctc._alignment.span_files import write_spans
from jax_ctc._alignment.spans import TokenSpan, token_spans
from jax_ctc._alignment.viterbi import ctc_align
from jax_ctc._checks.lengths import lengths_from_paddings, minimum_frames
from jax_ctc._checks.status import Status, explain, raise_if
from jax_ctc._decoding.beam_chunks import beam_search_chunks
from jax_ctc._decoding.beam_search import beam_search_decode
from jax_ctc._decoding.errors import label_errors
from jax_ctc._decoding.greedy import greedy_decode
from jax_ctc._decoding.hotwords import Hotwords
from jax_ctc._decoding.ngram import NGram
from jax_ctc._decoding.records import (
    BeamHypotheses,
    EditCounts,
    Hypotheses,
    SettledLabels,
)
from jax_ctc._decoding.words import WordNGram
from jax_ctc._diagnose import Finding, Report, Utterance, diagnose
from jax_ctc._diagnose.watch import watch
from jax_ctc._graph.align import ctc_align_over_graph
from jax_ctc._graph.loss import (
    ctc_loss_over_graph,
    ctc_loss_over_graph_with_status,
)
from jax_ctc._graph.records import Graph, GraphAlignment
from jax_ctc._graph.topology import ctc_graph
from jax_ctc._loss.linear import linear_ctc_loss, linear_ctc_loss_with_status
from jax_ctc._loss.losses import (
    check_batch,
    ctc_loss,
    ctc_loss_from_log_probs,
    ctc_loss_with_status,
)
from jax_ctc._loss.reductions import reduce_loss, reduce_loss_and_weight
from jax_ctc._pictures.alignment import plot_alignment
from jax_ctc._recursion import implementations
from jax_ctc._recursion.contract import Implementation
from jax_ctc._report import RankedUtterance, Ranking, rank_utterances

__all__ = [
    "BeamHypotheses",
    "CTCAlignment",
    "CTCPosteriors",
    "CTCSamples",
    "EditCounts",
    "Finding",
    "Graph",
    "GraphAlignment",
    "Hotwords",
    "Hypotheses",
    "Implementation",
    "NGram",
    "RankedUtterance",
    "Ranking",
    "Report",
    "SettledLabels",
    "Status",
    "TokenSpan",
    "Utterance",
    "WordNGram",
    "alignment_entropy",
    "beam_search_chunks",
    "beam_search_decode",
    "check_batch",
    "ctc_align",
    "ctc_align_chunks",
    "ctc_align_over_graph",
    "ctc_graph",
    "ctc_loss",
    "ctc_loss_from_log_probs",
    "ctc_loss_over_graph",
    "ctc_loss_over_graph_with_status",
    "ctc_loss_with_status",
    "ctc_posteriors",
    "diagnose",
    "explain",
    "greedy_decode",
    "implementations",
    "label_errors",
    "lengths_from_paddings",
    "linear_ctc_loss",
    "linear_ctc_loss_with_status",
    "minimum_frames",
    "plot_alignment",
    "raise_if",
    "rank_utterances",
    "reduce_loss",
    "reduce_loss_and_weight",
    "sample_alignments",
    "token_spans",
    "watch",
    "write_spans",
]

__version__ = "0.1.0"
