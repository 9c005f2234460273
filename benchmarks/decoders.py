"""Other people's beam searches, each as its users call it.

A decoder is made for V classes, blank 0, and a beam of W, and reads log-probabilities
[B, T, V] in float32: it returns the best labelling of each utterance. "exact" switches
its own pruning off; "fair" is the pruning that its documentation offers or sets, at
values which lost nothing here or which are its defaults.
"""

import importlib
import importlib.util
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Keras asks once for its backend, and TensorFlow imports it.
os.environ["KERAS_BACKEND"] = "jax"

Labels = list[tuple[int, ...]]
Decode = Callable[[np.ndarray], Labels]


class Peer(NamedTuple):
    """Who decodes, what has to be installed for it, and how it is set up."""

    package: str
    make: Callable[..., Decode]  # of V, W, and the path of a language model or None
    is_batched: bool = False  # False: utterance by utterance, on one thread
    has_model: bool = False  # takes an n-gram model over classes
    most_classes: int = 2**31  # more take minutes, or more memory than there is
    has_first_only: bool = False  # tells no other hypotheses


def missing(peer: Peer) -> str | None:
    """Say what package is not installed, or None."""
    if importlib.util.find_spec(peer.package):
        return None
    return f"{peer.package} is not installed"


def symbols(num_classes: int) -> list[str]:
    """Return a character for each class; that of the blank is empty."""
    return ["", *(chr(0x4E00 + k) for k in range(1, num_classes))]


def _of_text(text: str) -> tuple[int, ...]:
    return tuple(ord(character) - 0x4E00 for character in text)


def tensorflow(num_classes: int, width: int, model: pathlib.Path | None) -> Decode:
    """`tf.nn.ctc_beam_search_decoder`, whose blank is the last class."""
    import tensorflow as tf

    del num_classes, model

    def decode(log_probs: np.ndarray) -> Labels:
        batch, frames, _ = log_probs.shape
        turned = np.roll(log_probs, -1, axis=2).transpose(1, 0, 2)
        [found], _ = tf.nn.ctc_beam_search_decoder(
            turned, np.full(batch, frames, np.int32), beam_width=width, top_paths=1
        )
        dense = tf.sparse.to_dense(found, default_value=-1).numpy() + 1
        return [tuple(row[row > 0].tolist()) for row in dense]

    return decode


def keras(num_classes: int, width: int, model: pathlib.Path | None) -> Decode:
    """`keras.ops.ctc_decode` on JAX, jitted."""
    import jax
    from keras import ops  # pyright: ignore[reportMissingImports]

    del num_classes, model

    @jax.jit
    def search(log_probs: Any) -> Any:
        lengths = np.full(log_probs.shape[0], log_probs.shape[1], np.int32)
        return ops.ctc_decode(
            log_probs, lengths, "beam_search", width, top_paths=1, mask_index=0
        )[0][0]

    def decode(log_probs: np.ndarray) -> Labels:
        return [tuple(r[r > 0].tolist()) for r in np.asarray(search(log_probs))]

    return decode


def pyctcdecode(
    num_classes: int, width: int, model: pathlib.Path | None, *, is_fair: bool
) -> Decode:
    """Its defaults, or no pruning at all."""
    from pyctcdecode import build_ctcdecoder  # pyright: ignore[reportMissingImports]

    del model
    logging.getLogger("pyctcdecode").setLevel(logging.ERROR)
    decoder = build_ctcdecoder(symbols(num_classes))
    pruning = {} if is_fair else {"beam_prune_logp": -1e9, "token_min_logp": -1e9}

    def decode(log_probs: np.ndarray) -> Labels:
        return [
            _of_text(decoder.decode(row, beam_width=width, **pruning))
            for row in log_probs
        ]

    return decode


def flashlight(
    num_classes: int, width: int, model: pathlib.Path | None, *, is_fair: bool
) -> Decode:
    """The lexicon-free decoder of flashlight-text, with or without KenLM.

    Fair: the W + 1 best classes of a frame; without a model others never enter a beam.
    """
    fl = importlib.import_module("flashlight.lib.text.decoder")

    names = ["<blank>", *symbols(num_classes)[1:]]
    if model is None:
        language_model = fl.ZeroLM()
    else:
        dictionary = importlib.import_module("flashlight.lib.text.dictionary")
        kenlm = importlib.import_module("flashlight.lib.text.decoder.kenlm")
        language_model = kenlm.KenLM(str(model), dictionary.Dictionary(names))
    options = fl.LexiconFreeDecoderOptions(
        beam_size=width,
        beam_size_token=min(width + 1, num_classes) if is_fair else num_classes,
        beam_threshold=1e9,
        lm_weight=0.0 if model is None else LM_WEIGHT,
        sil_score=0.0,
        log_add=True,
        criterion_type=fl.CriterionType.CTC,
    )
    # Silence is a class of its own there; -1 is none of these.
    decoder = fl.LexiconFreeDecoder(options, language_model, -1, 0, [])

    def one(row: np.ndarray) -> tuple[int, ...]:
        row = np.ascontiguousarray(row, np.float32)
        tokens = decoder.decode(row.ctypes.data, *row.shape)[0].tokens
        labels, before = [], 0
        for token in tokens:
            if token not in (0, before, -1):
                labels.append(int(token))
            before = token
        return tuple(labels)

    return lambda log_probs: [one(row) for row in log_probs]


def fast_ctc_decode(
    num_classes: int, width: int, model: pathlib.Path | None, *, is_fair: bool
) -> Decode:
    """It reads probabilities. Fair: the largest cut that it allows, or 0.001."""
    from fast_ctc_decode import beam_search  # pyright: ignore[reportMissingImports]

    del model
    alphabet = ["-", *symbols(num_classes)[1:]]
    cut = min(1e-3, 0.99 / num_classes) if is_fair else 0.0

    def decode(log_probs: np.ndarray) -> Labels:
        return [
            _of_text(beam_search(np.exp(row), alphabet, width, cut)[0])
            for row in log_probs
        ]

    return decode


LM_WEIGHT = 0.5


def _with(make: Callable[..., Decode], **options: Any) -> Callable[..., Decode]:
    return lambda *sizes: make(*sizes, **options)


# With all 1,024 classes tensorflow, and without pruning the others, take minutes.
PEERS: dict[str, Peer] = {
    "TensorFlow": Peer("tensorflow", tensorflow, is_batched=True),
    "Keras on JAX": Peer("keras", keras, is_batched=True, most_classes=64),
    "pyctcdecode": Peer("pyctcdecode", _with(pyctcdecode, is_fair=False)),
    "pyctcdecode, its pruning": Peer("pyctcdecode", _with(pyctcdecode, is_fair=True)),
    "flashlight-text": Peer(
        "flashlight", _with(flashlight, is_fair=False), has_model=True
    ),
    "flashlight-text, W + 1 classes": Peer(
        "flashlight", _with(flashlight, is_fair=True), has_model=True
    ),
    "fast-ctc-decode": Peer(
        "fast_ctc_decode",
        _with(fast_ctc_decode, is_fair=False),
        has_first_only=True,
        most_classes=64,
    ),
    "fast-ctc-decode, its pruning": Peer(
        "fast_ctc_decode",
        _with(fast_ctc_decode, is_fair=True),
        has_first_only=True,
        most_classes=64,
    ),
}
