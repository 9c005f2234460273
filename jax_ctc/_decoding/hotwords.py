"""Words and phrases that are worth more than the scores say: names, terms, commands."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_ctc._checks.given import ArrayLike, Index, Option, Vocabulary
from jax_ctc._checks.vocabularies import check_separator, class_texts, piece
from jax_ctc._decoding import automaton, saved
from jax_ctc._decoding.automaton import Phrase
from jax_ctc._decoding.guide import score_sequences

_BOUNDARY = " "  # what parts the words of a phrase


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hotwords:
    """Phrases with a bonus, as an automaton over classes.

    A pytree of arrays, to be passed to `beam_search_decode` as `hotwords`, inside `jit`
    or not. Every occurrence of every phrase adds its bonus to the score, bit by bit as
    it is spelt; where a phrase breaks off, what it has had is taken back.

    Attributes:
        gains: [nodes, V] float32, nats that each label adds in each node.
        targets: [nodes, V] int32, where it leads.
        final: [nodes] float32, nats that the end of the labels adds.
        start: [] int32, the first node.

    Example:
        >>> import jax.numpy as jnp, jax_ctc
        >>> hotwords = jax_ctc.Hotwords.from_phrases(["ab"], ["", "a", "b"], bonus=2.0)
        >>> hotwords.bonus(jnp.array([[1, 2, 1], [1, 1, 1]])).tolist()
        [4.0, 0.0]
    """

    gains: Any
    targets: Any
    final: Any
    start: Any

    @staticmethod
    def from_phrases(
        phrases: Any,
        vocabulary: Vocabulary,
        *,
        bonus: ArrayLike,
        separator: Option | None = None,
        blank_id: Index = 0,
    ) -> "Hotwords":
        """Make the automaton of some phrases.

        Args:
            phrases: a list of texts; or of sequences of class ids, for vocabularies
                whose texts are no spelling (phones).
            vocabulary: text of each class id, a sequence or a mapping; that of the
                blank is not looked at. A phrase may be spelt in any of its pieces.
            bonus: nats for every character of a phrase (for every class of a phrase of
                ids); one number, or one for each phrase. 0.5 to 3 is usual.
            separator: how the texts of classes part words, as in `token_spans`. With
                it, phrases have " " between words, and only whole words count.
                Default: phrases are spelt as the classes are, and count within words.
            blank_id: the blank class.

        Returns:
            Hotwords: 8 * V bytes for each different beginning of the phrases.

        Raises:
            ValueError: a phrase is empty or cannot be spelt in the classes, or `bonus`
                is neither one finite number nor one for each phrase.
            TypeError: `phrases` is one text or mixes texts and ids, `separator` came
                with ids, or `vocabulary` holds something else than texts.
        """
        texts = class_texts(vocabulary, blank_id)
        mark = None if separator is None else check_separator(separator)
        is_text = _check_phrases(phrases, mark)
        if is_text:
            spellings = [None if t is None else _spelling(t, mark) for t in texts]
        else:
            spellings = [None if t is None else (k,) for k, t in enumerate(texts)]
        bonuses = _check_bonus(bonus, len(phrases))
        patterns = []
        for phrase, each in zip(phrases, bonuses, strict=True):
            pattern = _pattern(phrase, float(each), mark)
            _check_spelling(phrase, pattern, spellings, is_parted=mark is not None)
            patterns.append(pattern)
        found = automaton.build(patterns, once=None if mark is None else _BOUNDARY)
        nobody = (np.zeros(len(found.reward)), np.zeros(len(found.reward), np.int32))
        walks = [nobody if s is None else found.walk(s) for s in spellings]
        gains, targets = (np.stack(x, axis=1) for x in zip(*walks, strict=True))
        # At the end a word ends, and no promise is kept any more.
        gain, target = found.walk(_BOUNDARY if mark else ())
        final = gain - found.promise[target]
        start = int(target[0])
        return Hotwords(
            jnp.asarray(gains, jnp.float32),
            jnp.asarray(targets, jnp.int32),
            jnp.asarray(final, jnp.float32),
            jnp.asarray(start, jnp.int32),
        )

    @property
    def num_classes(self) -> int:
        """V, that of the vocabulary."""
        return self.gains.shape[1]

    def initial(self) -> Any:
        """Return the state before the first label."""
        return self.start

    def score(
        self, state: Int[Array, " W"], labels: Int[Array, " K"]
    ) -> Float[Array, "W K"]:
        """Return what each label adds after each state, in nats."""
        where = self.gains.at[state[:, None], labels[None, :]]
        return where.get(mode="clip")

    def advance(
        self, state: Int[Array, " W"], label: Int[Array, " W"]
    ) -> Int[Array, " W"]:
        """Return the states after one more label each."""
        return self.targets.at[state, label].get(mode="clip")

    def end(self, state: Int[Array, " W"]) -> Float[Array, " W"]:
        """Return what the end of the labels adds, in nats."""
        return self.final.at[state].get(mode="clip")

    def bonus(
        self, labels: ArrayLike, lengths: ArrayLike | None = None
    ) -> Float[Array, "..."]:
        """Return the bonus of whole label sequences.

        Args:
            labels: [..., L] integer class ids, none of them the blank, padded.
            lengths: [...] integer, 0..L. Default: all L.

        Returns:
            [...] float32, nats.
        """
        return score_sequences(self, labels, lengths)

    def save(self, path: Any) -> None:
        """Write the arrays to a .npz file, without pickles."""
        saved.save(self, path, Hotwords=Hotwords)

    @staticmethod
    def load(path: Any) -> "Hotwords":
        """Read what `save` wrote.

        Raises:
            ValueError: it wrote something else, or something else did.
        """
        return saved.load(path, Hotwords, Hotwords=Hotwords)


def _check_phrases(phrases: Any, separator: str | None) -> bool:
    """Tell whether phrases are texts, or raise."""
    if isinstance(phrases, str) or not isinstance(phrases, Sequence):
        raise TypeError(
            "`phrases` must be a list of texts, or of lists of class ids; got"
            f" {phrases!r}"
        )
    kinds = {isinstance(phrase, str) for phrase in phrases}
    if len(kinds) > 1 or (kinds == {False} and separator is not None):
        raise TypeError(
            "`phrases` must all be texts, or all be lists of class ids, which take no"
            " `separator`"
        )
    for phrase in phrases:
        if len(phrase) == 0 or (isinstance(phrase, str) and not phrase.strip()):
            raise ValueError(f"`phrases` holds an empty one: {phrase!r}")
    return kinds != {False}


def _check_bonus(bonus: Any, count: int) -> np.ndarray:
    array = np.asarray(bonus, np.float64)
    if array.shape not in ((), (count,)) or not np.isfinite(array).all():
        raise ValueError(
            "`bonus` must be a finite number of nats, or one for each of the"
            f" {count} phrases; got {bonus!r}"
        )
    return np.broadcast_to(array, (count,))


def _spelling(text: str, separator: str | None) -> tuple[str, ...]:
    """Return the characters of a class, those that part words among them."""
    if separator is None:
        return tuple(text)
    one = piece(text, separator)
    return (*_BOUNDARY * one.begins, *one.text, *_BOUNDARY * one.ends)


def _pattern(phrase: Any, bonus: float, separator: str | None) -> Phrase:
    """Return what is looked for: of whole words, what parts them from others too."""
    units = tuple(phrase)
    if separator is not None:
        units = (_BOUNDARY, *_BOUNDARY.join(phrase.split()), _BOUNDARY)
    is_free = [separator is not None and unit == _BOUNDARY for unit in units]
    return Phrase(units, tuple(0.0 if free else bonus for free in is_free))


def _check_spelling(
    phrase: Any,
    pattern: Phrase,
    spellings: Sequence[tuple[Any, ...] | None],
    *,
    is_parted: bool,
) -> None:
    """Raise unless some classes one after the other spell the phrase."""
    units = pattern.units
    known = {spelling for spelling in spellings if spelling}
    longest = max(map(len, known), default=0)
    reached = [False] * (len(units) + 1)
    # The first word needs nothing before it, and the last one nothing after it.
    reached[0] = True
    reached[1] = is_parted
    for start in range(len(units)):
        for end in range(start + 1, min(start + longest, len(units)) + 1):
            reached[end] |= reached[start] and units[start:end] in known
    if not (reached[-1] or (is_parted and reached[-2])):
        single = {unit for spelling in known for unit in spelling}
        missing = sorted({str(unit) for unit in units if unit not in single} - {" "})
        lacks = f", which lack {', '.join(map(repr, missing))}" if missing else ""
        raise ValueError(
            f"{phrase!r} cannot be spelt in the classes of `vocabulary`{lacks}"
        )
