"""One way to read a batch, and what the lattice says of it."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_ctc import _recursion
from jax_ctc._diagnose.batch import live_frames
from jax_ctc._diagnose.guess import frequencies, log_guess
from jax_ctc._diagnose.quickly import OFTEN, ONCE, jit_quickly
from jax_ctc._diagnose.worker import checkpoint
from jax_ctc._lattice.problem import build
from jax_ctc._loss.losses import ctc_loss_with_status


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """Arrays on the host, flat over the batch, and which class is the blank.

    A mistake in the call is a wrong reading of the right arrays. Every hypothesis is
    another reading, and `log_p` and `knows` are how they are compared.
    """

    log_probs: np.ndarray  # [B, T, V] float32, normalised; uniform if unusable
    labels: np.ndarray  # [B, U] int32
    logit_lengths: np.ndarray  # [B] int32
    label_lengths: np.ndarray  # [B] int32
    blank_id: int

    @property
    def num_classes(self) -> int:
        """V."""
        return self.log_probs.shape[2]

    @functools.cached_property
    def live(self) -> np.ndarray:
        """[B, T] bool: the frames inside the lengths, all where one is no length."""
        return live_frames(self.logit_lengths, self.log_probs.shape[1])

    @functools.cached_property
    def inside(self) -> np.ndarray:
        """[B, U] bool: the labels inside the lengths, as far as they are lengths."""
        return np.arange(self.labels.shape[1])[None, :] < self.label_lengths[:, None]

    @functools.cached_property
    def _scored(self) -> tuple[np.ndarray, np.ndarray]:
        checkpoint()
        # Blank 0 always, so that readings that differ in it share one compilation.
        loss, status = _loss(
            _swap_columns(self.log_probs, self.blank_id),
            _swap_ids(self.labels, self.blank_id),
            self.logit_lengths,
            self.label_lengths,
        )
        return np.asarray(loss), np.asarray(status)

    @property
    def log_p(self) -> np.ndarray:
        """[B] log p(labels), -inf where an utterance cannot be scored."""
        loss, status = self._scored
        return np.where(status == 0, -loss, -np.inf)

    @property
    def status(self) -> np.ndarray:
        """[B] bits of `Status`."""
        return self._scored[1]

    @functools.cached_property
    def rival_log_p(self) -> np.ndarray:
        """[B] log p of what is left of the labels without ids that are no labels."""
        odd = (self.labels < 0) | (self.labels >= self.num_classes)
        odd = self.inside & (odd | (self.labels == self.blank_id))
        if not odd.any():
            return self.log_p
        order = np.argsort(odd, axis=1, kind="stable")
        rival = dataclasses.replace(
            self,
            labels=np.take_along_axis(self.labels, order, axis=1),
            label_lengths=(self.label_lengths - odd.sum(1)).astype(np.int32),
        )
        return np.maximum(self.log_p, rival.log_p)

    @functools.cached_property
    def best_beginning(self) -> np.ndarray:
        """[B] the most that is known of any beginning of the transcript; 0 at least."""
        log_p = log_prefixes(self)  # [B, U+1]
        log_share = np.log(np.maximum(self.share, 1e-30))
        ids = np.where(self.inside, np.clip(self.labels, 0, self.num_classes - 1), 0)
        of_labels = np.cumsum(np.where(self.inside, log_share[ids], 0), axis=1)
        of_labels = np.pad(of_labels, ((0, 0), (1, 0)))
        guess = np.maximum(self.guess, log_p + of_labels)
        with np.errstate(invalid="ignore"):
            knows = np.where(log_p > -np.inf, log_p - guess, -np.inf)
        place = np.arange(knows.shape[1])[None, :]
        knows = np.where(place <= self.label_lengths[:, None], knows, -np.inf)
        return np.maximum(knows.max(1), 0)

    @functools.cached_property
    def share(self) -> np.ndarray:
        """[V] how often each class is used as a label."""
        return frequencies(self.labels, self.label_lengths, self.num_classes)

    @functools.cached_property
    def guess(self) -> np.ndarray:
        """[B, U+1] log-probability of a guess of n labels."""
        checkpoint()
        return log_guess(
            self.log_probs,
            np.clip(self.logit_lengths, 0, self.log_probs.shape[1]),
            self.share,
            self.labels.shape[1],
            blank_id=self.blank_id,
        )

    @functools.cached_property
    def knows(self) -> np.ndarray:
        """[B] log p(labels) - log guess: what the scores know of the transcript."""
        return known(self, self.labels, self.label_lengths, self.log_p)


@jit_quickly(OFTEN)
def _loss(
    log_probs: Float[Array, "B T V"],
    labels: Int[Array, "B U"],
    logit_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"],
) -> tuple[Float[Array, " B"], Int[Array, " B"]]:
    """Return loss and status, blank 0."""
    return ctc_loss_with_status(log_probs, labels, logit_lengths, label_lengths)


def log_prefixes(reading: Reading) -> np.ndarray:
    """Return [B, U+1]: log p of the first n labels, n = 0..U."""
    checkpoint()
    frames = np.clip(reading.logit_lengths, 0, reading.log_probs.shape[1])
    return np.asarray(
        _prefixes(
            jnp.asarray(reading.log_probs),
            jnp.asarray(np.clip(reading.labels, 0, reading.num_classes - 1)),
            jnp.asarray(frames, jnp.int32),
            reading.blank_id,
        )
    )


@jit_quickly(ONCE, static_argnums=3)
def _prefixes(
    log_probs: Float[Array, "B T V"],
    labels: Int[Array, "B U"],
    logit_lengths: Int[Array, " B"],
    blank_id: int,
) -> Float[Array, "B S"]:
    problem = build(
        log_probs,
        labels,
        logit_lengths,
        jnp.full_like(logit_lengths, labels.shape[1]),
        jnp.ones_like(logit_lengths, bool),
        blank_id=blank_id,
        num_classes=log_probs.shape[2],
    )
    return _recursion.read(None, "prefixes", problem, normalise=False)


def known(
    reading: Reading, labels: np.ndarray, label_lengths: np.ndarray, log_p: np.ndarray
) -> np.ndarray:
    """Return log_p - log guess for labels [B, U], -inf where log_p is.

    The guess contains the transcript itself, so it is never less than its share of it.
    """
    is_scored = log_p > -np.inf
    count = np.where(is_scored, label_lengths, 0)
    guess = np.take_along_axis(reading.guess, count[:, None], axis=1)[:, 0]
    log_share = np.log(np.maximum(reading.share, 1e-30))
    inside = np.arange(labels.shape[1])[None, :] < count[:, None]
    ids = np.where(inside, labels, 0)
    of_labels = np.where(inside, log_share[ids], 0).sum(1)
    guess = np.maximum(guess, np.where(is_scored, log_p + of_labels, -np.inf))
    return np.where(is_scored, log_p - np.where(is_scored, guess, 0), -np.inf)


def _swap_ids(labels: np.ndarray, blank_id: int) -> np.ndarray:
    """Exchange the ids 0 and blank_id."""
    swapped = np.where(labels == 0, blank_id, labels)
    return np.where(labels == blank_id, 0, swapped).astype(np.int32)


def _swap_columns(scores: np.ndarray, blank_id: int) -> np.ndarray:
    """Exchange the classes 0 and blank_id."""
    if blank_id == 0:
        return scores
    order = np.arange(scores.shape[2])
    order[[0, blank_id]] = order[[blank_id, 0]]
    return scores[:, :, order]
