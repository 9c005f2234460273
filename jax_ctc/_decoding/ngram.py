"""An n-gram model over classes, as arrays on the device."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_ctc._checks.given import ArrayLike, Index, Vocabulary
from jax_ctc._checks.vocabularies import class_texts
from jax_ctc._decoding import histories, saved
from jax_ctc._decoding.arpa import read_arpa
from jax_ctc._decoding.guide import score_sequences
from jax_ctc._decoding.hashing import HashTable
from jax_ctc._decoding.histories import BEGIN, END, UNKNOWN, Automaton

# Scores and targets of every state and class, if they are no more than this.
_DENSE_BYTES = 64 * 2**20


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dense:
    """Every state's answer for every word, back-off resolved: one look-up."""

    scores: Any  # [S, M] float32, nats
    targets: Any  # [S, M] int32
    final: Any  # [S] float32
    start: Any  # [] int32

    @staticmethod
    def of(model: Automaton) -> "Dense":
        """Fill the table, the shorter histories first: the longer correct them."""
        num_states, num_words = len(model.back), len(model.unigram)
        scores = np.empty((num_states, num_words), np.float32)
        targets = np.empty((num_states, num_words), np.int32)
        order = np.argsort(model.state, kind="stable")
        ends = np.searchsorted(model.state[order], np.arange(num_states + 1))
        for state in range(num_states):
            if state == 0:
                scores[0], targets[0] = model.unigram, model.after
            else:
                back = model.back[state]
                scores[state] = scores[back] + model.back_weight[state]
                targets[state] = targets[back]
            own = order[ends[state] : ends[state + 1]]
            scores[state, model.word[own]] = model.log_prob[own]
            targets[state, model.word[own]] = model.target[own]
        arrays = scores, targets, model.final, np.int32(model.start)
        return Dense(*map(jnp.asarray, arrays))

    def look(
        self, state: Int[Array, "..."], word: Int[Array, "..."]
    ) -> tuple[Float[Array, "..."], Int[Array, "..."]]:
        """Return log p of each word after each state, and where it leads."""
        score = self.scores.at[state, word].get(mode="promise_in_bounds")
        return score, self.targets.at[state, word].get(mode="promise_in_bounds")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hashed:
    """The n-grams that the model has; back-off is walked, `order` - 1 times."""

    arcs: HashTable
    back: Any  # [S] int32
    back_weight: Any  # [S] float32
    unigram: Any  # [M] float32
    after: Any  # [M] int32
    final: Any  # [S] float32
    start: Any  # [] int32
    order: int = dataclasses.field(metadata={"static": True})

    @staticmethod
    def of(model: Automaton) -> "Hashed":
        """Hash the arcs."""
        arcs = HashTable.of(model.state, model.word, model.log_prob, model.target)
        arrays = (
            *(model.back, model.back_weight, model.unigram, model.after, model.final),
            np.int32(model.start),
        )
        return Hashed(arcs, *map(jnp.asarray, arrays), order=model.order)

    def look(
        self, state: Int[Array, "..."], word: Int[Array, "..."]
    ) -> tuple[Float[Array, "..."], Int[Array, "..."]]:
        """Return log p of each word after each state, and where it leads."""

        def of(row: jax.Array, index: jax.Array) -> jax.Array:
            return row.at[index].get(mode="promise_in_bounds")

        score = jnp.zeros_like(state + word, jnp.float32)
        target, is_done = jnp.zeros_like(state + word), score != 0
        for _ in range(self.order - 1):
            is_found, value, leads_to = self.arcs.find(state, word)
            is_new = is_found & ~is_done
            score = jnp.where(is_new, score + value, score)
            target = jnp.where(is_new, leads_to, target)
            is_done = is_done | is_found
            score = jnp.where(is_done, score, score + of(self.back_weight, state))
            state = jnp.where(is_done, state, of(self.back, state))
        score = jnp.where(is_done, score, score + of(self.unigram, word))
        return score, jnp.where(is_done, target, of(self.after, word))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NGram:
    r"""An n-gram model whose words are the classes: characters, phones or word pieces.

    A pytree of arrays, to be passed to `beam_search_decode` as `language_model`, inside
    `jit` or not. Make it by `from_arpa`, once, and `save` it.

    Attributes:
        table: its n-grams; a full table where that is small, a hash table elsewhere.
        words: [V] int32, the model's number of each class.

    Example:
        >>> import pathlib, tempfile, jax.numpy as jnp, jax_ctc
        >>> arpa = r'''\data\
        ... ngram 1=4
        ...
        ... \1-grams:
        ... -0.5 a
        ... -0.8 b
        ... -0.6 </s>
        ... -9 <s>
        ...
        ... \end\
        ... '''
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "ab.arpa"
        >>> _ = path.write_text(arpa)
        >>> model = jax_ctc.NGram.from_arpa(path, ["", "a", "b"])
        >>> f"{model.log_prob(jnp.array([1, 2])):.4f}"  # -1.9 log 10, </s> included
        '-4.3749'
    """

    table: Dense | Hashed
    words: Any

    @staticmethod
    def from_arpa(
        path: Any,
        vocabulary: Vocabulary,
        *,
        blank_id: Index = 0,
        dense: bool | None = None,
    ) -> "NGram":
        """Read an ARPA file, as kenlm's `lmplz` and SRILM write it, plain or .gz.

        Args:
            path: the file.
            vocabulary: text of each class id, a sequence or a mapping, spelt as in the
                model; that of the blank is not looked at. A class that the model does
                not know, `<s>` and `</s>` among them, is its `<unk>`.
            blank_id: the blank class.
            dense: whether to make a full table of [states, V], the quickest. Default:
                if it takes no more than 64 MiB.

        Returns:
            NGram: with the scores of kenlm to 1e-5 nats, back-off, `<s>`, `</s>` and
            `<unk>` included. n-grams over words that are no class are left out.

        Raises:
            ValueError: the file is no ARPA file, or is cut off, with the line's number;
                or classes are unknown to a model without `<unk>`, with their texts.
            TypeError: `vocabulary` holds something else than texts.
            OSError: the file cannot be opened.

        Cost:
            On the host, about a second for 100,000 n-grams.
        """
        texts = class_texts(vocabulary, blank_id)
        arpa = read_arpa(path)
        model_words, number = number_words(texts, arpa.grams, path)
        automaton = histories.build(arpa, model_words)
        if dense is None:
            size = 8 * len(automaton.back) * max(len(model_words), 1)
            dense = size <= _DENSE_BYTES
        table = Dense.of(automaton) if dense else Hashed.of(automaton)
        return NGram(table, jnp.asarray(number))

    @property
    def num_classes(self) -> int:
        """V, that of the vocabulary."""
        return self.words.shape[0]

    def initial(self) -> Any:
        """Return the state after `<s>`."""
        return self.table.start

    def score(
        self, state: Int[Array, " W"], labels: Int[Array, " K"]
    ) -> Float[Array, "W K"]:
        """Return log p of each label after each state, in nats."""
        word = self.words.at[labels].get(mode="clip")
        return self.table.look(state[:, None], word[None, :])[0]

    def advance(
        self, state: Int[Array, " W"], label: Int[Array, " W"]
    ) -> Int[Array, " W"]:
        """Return the states after one more label each."""
        word = self.words.at[label].get(mode="clip")
        return self.table.look(state, word)[1]

    def end(self, state: Int[Array, " W"]) -> Float[Array, " W"]:
        """Return log p of `</s>`, in nats."""
        return self.table.final.at[state].get(mode="promise_in_bounds")

    def log_prob(
        self, labels: ArrayLike, lengths: ArrayLike | None = None
    ) -> Float[Array, "..."]:
        """Return log p of whole label sequences, `</s>` included.

        Args:
            labels: [..., L] integer class ids, none of them the blank, padded.
            lengths: [...] integer, 0..L. Default: all L.

        Returns:
            [...] float32, nats.
        """
        return score_sequences(self, labels, lengths)

    def save(self, path: Any) -> None:
        """Write the arrays to a .npz file, without pickles."""
        saved.save(self, path, **_CLASSES)

    @staticmethod
    def load(path: Any) -> "NGram":
        """Read what `save` wrote.

        Raises:
            ValueError: it wrote something else, or something else did.
        """
        return saved.load(path, NGram, **_CLASSES)


def number_words(
    texts: list[str | None], known: Any, path: Any
) -> tuple[list[str], np.ndarray]:
    """Return the words of the model that are classes, and each class's number of these.

    The blank has number 0, which nobody asks for.
    """

    def is_known(text: str | None) -> bool:
        return text is not None and text not in (BEGIN, END) and (text,) in known

    has_unknown = (UNKNOWN,) in known
    unknown = [t for t in texts if t is not None and not is_known(t)]
    if unknown and not has_unknown:
        shown = ", ".join(map(repr, unknown[:10])) + (", ..." if unknown[10:] else "")
        raise ValueError(
            f"{path} has no <unk>, and {len(unknown)} classes of `vocabulary` are"
            f" unknown to it: {shown}. Spell them as the model does, or train it with"
            " <unk>"
        )
    if all(text is None for text in texts):
        raise ValueError("`vocabulary` must have at least one class besides the blank")
    words = dict.fromkeys(t for t in texts if t is not None and is_known(t))
    if unknown:
        words[UNKNOWN] = None
    number = {word: i for i, word in enumerate(words)}
    of_class = [
        0 if text is None else number.get(text, number.get(UNKNOWN, 0))
        for text in texts
    ]
    return list(words), np.array(of_class, np.int32)


_CLASSES: dict[str, type] = {
    "NGram": NGram,
    "Dense": Dense,
    "Hashed": Hashed,
    "HashTable": HashTable,
}
