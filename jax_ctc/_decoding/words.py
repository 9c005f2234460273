"""An n-gram model over words that are spelt in classes."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jax_ctc._checks.given import ArrayLike, Flag, Index, Number, Option, Vocabulary
from jax_ctc._checks.vocabularies import Piece, check_separator, class_texts, piece
from jax_ctc._decoding import histories, saved
from jax_ctc._decoding.arpa import read_arpa
from jax_ctc._decoding.guide import score_sequences
from jax_ctc._decoding.hashing import HashTable
from jax_ctc._decoding.histories import BEGIN, END, UNKNOWN
from jax_ctc._decoding.ngram import Hashed

# What pyctcdecode takes off an unknown word: ten powers of ten.
_UNKNOWN_PENALTY = 10 * float(np.log(10))
_LOST = -1  # the node of a word that is none of the model's


class WordState(NamedTuple):
    """What a prefix's last word has been spelt to, and the words before it."""

    node: Int[Array, "..."]  # of the trie; 0: no letter yet, -1: in none of its words
    history: Int[Array, "..."]  # of the model


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WordNGram:
    r"""An n-gram model over words, which rates a word when it ends.

    A pytree of arrays, to be passed to `beam_search_decode` as `language_model`, inside
    `jit` or not. Make it by `from_arpa`, once, and `save` it.

    Attributes:
        table: the model's n-grams.
        trie: the spellings of its words: (node, class) to node.
        word: [nodes] int32, the word spelt so far, -1 where it is none.
        begins: [V] bool, whether a word begins with the class.
        ends: [V] bool, whether a word ends with it.
        spells: [V] bool, whether it has letters.
        unknown: [] int32, the model's `<unk>`, -1 where it has none.
        penalty: [] float32, nats taken off a word that is cut off or unknown.
        lost: [] float32, nats taken off what can become no word of the model.
        any_ends: whether words end with any class at all.

    Example:
        >>> import pathlib, tempfile, jax.numpy as jnp, jax_ctc
        >>> arpa = r'''\data\
        ... ngram 1=4
        ...
        ... \1-grams:
        ... -0.5 ab
        ... -0.8 b
        ... -0.6 </s>
        ... -9 <s>
        ...
        ... \end\
        ... '''
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "words.arpa"
        >>> _ = path.write_text(arpa)
        >>> model = jax_ctc.WordNGram.from_arpa(path, ["", "a", "b", " "])
        >>> f"{model.log_prob(jnp.array([1, 2, 3, 2])):.4f}"  # "ab b": -1.9 log 10
        '-4.3749'
    """

    table: Hashed
    trie: HashTable
    word: Any
    begins: Any
    ends: Any
    spells: Any
    unknown: Any
    penalty: Any
    lost: Any
    any_ends: bool = dataclasses.field(metadata={"static": True})

    @staticmethod
    def from_arpa(
        path: Any,
        vocabulary: Vocabulary,
        separator: Option = " ",
        *,
        blank_id: Index = 0,
        unknown_penalty: Number = _UNKNOWN_PENALTY,
        known_words_only: Flag = False,
    ) -> "WordNGram":
        """Read an ARPA file whose words are spelt in the texts of the classes.

        Args:
            path: the file, plain or .gz.
            vocabulary: text of each class id, a sequence or a mapping; that of the
                blank is not looked at.
            separator: how the texts part words, as in `token_spans`: the text that a
                word begins with (" " or "|" where that is a class of its own, "▁" for
                SentencePiece), or "##", "@@" or "</w>".
            blank_id: the blank class.
            unknown_penalty: nats taken off a word that the model does not have, besides
                what its `<unk>` says, if it has one; taken off as soon as a word is
                spelt like none. Default: 23, as in pyctcdecode.
            known_words_only: drop what can become no word of the model at once. Only
                the last word may be cut off, at the price of `unknown_penalty`.

        Returns:
            WordNGram: a word is rated, in the context of those before it, when the next
            one begins or the labels end, as pyctcdecode does.

        Raises:
            ValueError: the file is no ARPA file, or is cut off, with the line's number;
                or no word of the model can be spelt in the classes.
            TypeError: `vocabulary` holds something else than texts.
            OSError: the file cannot be opened.

        Cost:
            On the host, a few seconds for 100,000 words.
        """
        mark = check_separator(separator)
        texts = class_texts(vocabulary, blank_id)
        pieces = [None if text is None else piece(text, mark) for text in texts]
        arpa = read_arpa(path)
        special = BEGIN, END, UNKNOWN
        words = [g[0] for g in arpa.grams if len(g) == 1 and g[0] not in special]
        edges, spelt = _spell(words, pieces)
        if not spelt:
            raise ValueError(
                f"no word of {path} can be spelt in the classes of `vocabulary`; it has"
                f" {words[:3]}. Is {separator!r} what parts words, and are the letters"
                " of the same case?"
            )
        word = np.full(1 + max(edges.values()), -1, np.int32)
        word[list(spelt.values())] = np.arange(len(spelt), dtype=np.int32)
        has_unknown = (UNKNOWN,) in arpa.grams
        known = [*spelt, UNKNOWN] if has_unknown else [*spelt]
        ends = np.array([p is not None and p.ends for p in pieces])
        arrays = (
            word,
            np.array([p is not None and p.begins for p in pieces]),
            ends,
            np.array([p is not None and p.text != "" for p in pieces]),
            np.int32(len(spelt) if has_unknown else -1),
            np.float32(unknown_penalty),
            np.float32(np.inf if known_words_only else unknown_penalty),
        )
        table = Hashed.of(histories.build(arpa, known))
        return WordNGram(
            table, _trie(edges), *map(jnp.asarray, arrays), any_ends=bool(ends.any())
        )

    @property
    def num_classes(self) -> int:
        """V, that of the vocabulary."""
        return self.begins.shape[0]

    def initial(self) -> WordState:
        """Return the state before the first word."""
        return WordState(jnp.zeros_like(self.table.start), self.table.start)

    def score(self, state: WordState, labels: Int[Array, " K"]) -> Float[Array, "W K"]:
        """Return what each label adds after each state, in nats."""
        column = jax.tree.map(lambda x: x[:, None], state)
        return self._step(column, labels[None, :])[0]

    def advance(self, state: WordState, label: Int[Array, " W"]) -> WordState:
        """Return the states after one more label each."""
        return self._step(state, label)[1]

    def end(self, state: WordState) -> Float[Array, " W"]:
        """Return log p of the last word, and of `</s>`, in nats."""
        gain, history = self._finish(state, self.penalty)
        return gain + _of(self.table.final, history)

    def log_prob(
        self, labels: ArrayLike, lengths: ArrayLike | None = None
    ) -> Float[Array, "..."]:
        """Return log p of whole label sequences, `</s>` included.

        Args:
            labels: [..., L] integer class ids, none of them the blank, padded.
            lengths: [...] integer, 0..L. Default: all L.

        Returns:
            [...] float32, nats, less the penalties of unknown words.
        """
        return score_sequences(self, labels, lengths)

    def _step(
        self, state: WordState, label: Int[Array, "..."]
    ) -> tuple[Float[Array, "..."], WordState]:
        """Spell on; where a word begins or ends with the label, rate a word."""
        begins, spells = _of(self.begins, label), _of(self.spells, label)
        gain, history = self._finish(state, self.lost)
        gain = jnp.where(begins, gain, 0)
        history = jnp.where(begins, history, state.history)
        node = jnp.where(begins, 0, state.node)
        is_found, _, target = self.trie.find(node, label)
        target = jnp.where(is_found, target, _LOST)
        gain = gain - jnp.where(
            spells & ~is_found & (node != _LOST), self.lost, jnp.float32(0)
        )
        state = WordState(jnp.where(spells, target, node), history)
        if not self.any_ends:
            return gain, state
        ends = _of(self.ends, label)
        of_word, history = self._finish(state, self.lost)
        return gain + jnp.where(ends, of_word, 0), WordState(
            jnp.where(ends, 0, state.node), jnp.where(ends, history, state.history)
        )

    def _finish(
        self, state: WordState, penalty: Float[Array, ""]
    ) -> tuple[Float[Array, "..."], Int[Array, "..."]]:
        """Rate the word that ends here, if there is one; return the history after it.

        What is lost has been taken off already; what is cut off is now.
        """
        node, history = state
        word = jnp.where(node > 0, _of(self.word, jnp.maximum(node, 0)), -1)
        is_cut_off = (node > 0) & (word < 0)
        word = jnp.where(word < 0, self.unknown, word)
        score, after = self.table.look(history, jnp.maximum(word, 0))
        score, after = jnp.where(word < 0, 0, score), jnp.where(word < 0, 0, after)
        score = score - jnp.where(is_cut_off, penalty, jnp.float32(0))
        return jnp.where(node == 0, 0, score), jnp.where(node == 0, history, after)

    def save(self, path: Any) -> None:
        """Write the arrays to a .npz file, without pickles."""
        saved.save(self, path, **_CLASSES)

    @staticmethod
    def load(path: Any) -> "WordNGram":
        """Read what `save` wrote.

        Raises:
            ValueError: it wrote something else, or something else did.
        """
        return saved.load(path, WordNGram, **_CLASSES)


def _of(row: jax.Array, index: Int[Array, "..."]) -> jax.Array:
    return row.at[index].get(mode="clip")


def _spell(
    words: list[str], pieces: list[Piece | None]
) -> tuple[dict[tuple[int, int], int], dict[str, int]]:
    """Return the trie's edges, (node, class) to node, and the node of each word.

    A node is what a word begins with. All ways to spell a word lead to the same one.
    """
    classes: dict[str, list[tuple[int, bool]]] = {}
    for k, one in enumerate(pieces):
        if one is not None and one.text:
            classes.setdefault(one.text, []).append((k, one.begins))
    longest = max(map(len, classes), default=0)
    nodes, edges, spelt = {"": 0}, {}, {}
    for word in words:
        reached = [True] + [False] * len(word)
        for start in range(len(word)):
            if not reached[start]:
                continue
            for end in range(start + 1, min(start + longest, len(word)) + 1):
                for k, begins in classes.get(word[start:end], ()):
                    if start == 0 or not begins:
                        node = nodes.setdefault(word[:end], len(nodes))
                        edges[nodes[word[:start]], k] = node
                        reached[end] = True
        if reached[-1] and word:
            spelt[word] = nodes[word]
    return edges, spelt


def _trie(edges: dict[tuple[int, int], int]) -> HashTable:
    pairs = np.array(list(edges), np.int32)
    targets = np.array(list(edges.values()), np.int32)
    return HashTable.of(pairs[:, 0], pairs[:, 1], np.zeros(len(edges)), targets)


_CLASSES: dict[str, type] = {
    "WordNGram": WordNGram,
    "Hashed": Hashed,
    "HashTable": HashTable,
}
