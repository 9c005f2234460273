"""An n-gram model as an automaton: a state is what it remembers of the words so far.

    p(w | h) = what the model says of h w, if it knows it,
               else backoff(h) * p(w | h without its first word)

A history needs a state of its own only if the model knows a word after it, or weighs
the way back from it; any other says what its longest known ending says.
"""

from typing import NamedTuple

import numpy as np

from jax_ctc._decoding.arpa import Arpa, Words

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"


class Automaton(NamedTuple):
    """S states, the empty history being 0, and M words, which are numbered as given."""

    start: int  # the state after <s>
    back: np.ndarray  # [S] int32, the state without the first word
    back_weight: np.ndarray  # [S] float32, nats
    final: np.ndarray  # [S] float32, nats of </s>, all back-offs in it
    unigram: np.ndarray  # [M] float32, nats of each word after nothing
    after: np.ndarray  # [M] int32, the state it leads to
    state: np.ndarray  # [A] int32, arcs of all longer n-grams: from which state,
    word: np.ndarray  # [A] int32, by which word,
    log_prob: np.ndarray  # [A] float32, with how many nats,
    target: np.ndarray  # [A] int32, to which state
    order: int


def build(arpa: Arpa, words: list[str]) -> Automaton:
    """Return the automaton over these words, all of them known to the model.

    n-grams over other words can never be met, and are left out.
    """
    number = {word: i for i, word in enumerate(words)}

    def can_follow(history: Words) -> bool:
        return all(w in number for w in history[history[:1] == (BEGIN,) :])

    known = {
        gram: said
        for gram, said in arpa.grams.items()
        if can_follow(gram[:-1]) and (gram[-1] in number or gram[-1] in (BEGIN, END))
    }
    remembered = {
        gram
        for gram, said in known.items()
        if len(gram) < arpa.order and said.log_backoff != 0 and gram[-1] != END
    }
    remembered |= {gram[:-1] for gram in known if len(gram) > 1}
    if (BEGIN,) in known:
        remembered.add((BEGIN,))
    states: dict[Words, int] = {(): 0}
    for history in sorted(remembered, key=lambda h: (len(h), h)):
        if history:
            states[history] = len(states)

    def state_of(history: Words) -> int:
        while history not in states:
            history = history[1:]
        return states[history]

    back = np.zeros(len(states), np.int32)
    weight = np.zeros(len(states), np.float32)
    for history, state in states.items():
        if history:
            back[state] = state_of(history[1:])
            said = known.get(history)
            weight[state] = said.log_backoff if said else 0.0
    return Automaton(
        states.get((BEGIN,), 0),
        back,
        weight,
        _final(known, states, back, weight),
        *_unigrams(known, words, state_of),
        *_arcs(known, number, states, state_of),
        order=arpa.order,
    )


def _final(known, states, back, weight) -> np.ndarray:
    """Return the nats of </s> after each history; 0 where the model has none."""
    final = np.zeros(len(states), np.float32)
    for history, state in states.items():  # the shorter ones first
        said = known.get((*history, END))
        if said is not None:
            final[state] = said.log_prob
        elif history:
            final[state] = weight[state] + final[back[state]]
    return final


def _unigrams(known, words, state_of) -> tuple[np.ndarray, np.ndarray]:
    log_prob = np.array([known[(word,)].log_prob for word in words], np.float32)
    return log_prob, np.array([state_of((word,)) for word in words], np.int32)


def _arcs(
    known, number, states, state_of
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    arcs = [
        (states[gram[:-1]], number[gram[-1]], said.log_prob, state_of(gram))
        for gram, said in known.items()
        if len(gram) > 1 and gram[-1] in number
    ]
    columns = zip(*arcs, strict=True) if arcs else ((), (), (), ())
    types = np.int32, np.int32, np.float32, np.int32
    state, word, log_prob, target = (
        np.array(c, t) for c, t in zip(columns, types, strict=True)
    )
    return state, word, log_prob, target
