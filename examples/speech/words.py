"""A word model of what people say of cards, and decoding with it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax

from examples.handwriting.ngrams import write_arpa
from examples.speech.sounds import LETTERS, RANKS, SUITS
from jax_ctc import BeamHypotheses, WordNGram, beam_search_decode

ORDER = 3
BEAM_WIDTH, MOST_LETTERS = 16, 64
LM_WEIGHT, LABEL_BONUS = 0.8, 0.3  # chosen once, on other sentences and voices


def word_model(sentences: Sequence[str]) -> WordNGram:
    """Counts n-grams of words, writes them as ARPA, and reads that as a user would."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cards.arpa"
        words = [sentence.split() for sentence in sentences]
        write_arpa(path, words, ORDER, vocabulary=(*RANKS, *SUITS, "of"))
        return WordNGram.from_arpa(path, LETTERS)


@jax.jit
def decode(logits: jax.Array, lengths: jax.Array, model: WordNGram) -> BeamHypotheses:
    """Decodes logits [B, T, V] with the model: one hypothesis for each utterance."""
    return beam_search_decode(
        logits,
        lengths,
        beam_width=BEAM_WIDTH,
        max_labels=MOST_LETTERS,
        language_model=model,
        lm_weight=LM_WEIGHT,
        label_bonus=LABEL_BONUS,
        rerank=True,
    )
