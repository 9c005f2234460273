"""n-gram models in ARPA form, and what they say, by the textbook."""

import math

import numpy as np

LN10 = math.log(10)


def write(path, grams):
    """Write {words: (log10 p, log10 back-off)} as an ARPA file."""
    order = max(map(len, grams))
    lines = ["\\data\\"]
    sections = [[g for g in grams if len(g) == n] for n in range(1, order + 1)]
    lines += [f"ngram {n}={len(s)}" for n, s in enumerate(sections, start=1)]
    for n, section in enumerate(sections, start=1):
        lines += ["", f"\\{n}-grams:"]
        for gram in section:
            p, backoff = grams[gram]
            tail = f"\t{backoff:.7g}" if n < order and backoff != 0 else ""
            lines.append(f"{p:.7g}\t{' '.join(gram)}{tail}")
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")
    return path


def random_model(words, order, *, seed, unknown=True, share=0.4):
    """Return some n-grams over the words, each with all of its beginnings and ends."""
    rng = np.random.default_rng(seed)
    grams = {("<s>",): (-99.0, float(-rng.exponential()))}
    for word in [*words, "</s>", *["<unk>"][: int(unknown)]]:
        backoff = 0.0 if word == "</s>" else float(-rng.exponential())
        grams[word,] = (float(-0.3 - rng.exponential()), backoff)
    longest = [g for g in grams if g not in (("</s>",), ("<unk>",))]
    for n in range(2, order + 1):
        found = []
        for gram in longest:
            for word in [*words, "</s>"]:
                longer = (*gram, word)
                if rng.random() < share and longer[1:] in grams:
                    is_history = n < order and word != "</s>"
                    backoff = float(-rng.exponential()) if is_history else 0.0
                    grams[longer] = (float(-rng.exponential()), backoff)
                    if is_history:
                        found.append(longer)
        longest = found
    return grams


def log_prob(grams, words, *, begin=True, end=True):
    """Return log p in nats, in float64, by default of words from `<s>` to `</s>`."""
    order = max(map(len, grams))

    def score(history, word):
        if (*history, word) in grams:
            return grams[*history, word][0]
        if not history:
            return grams["<unk>",][0]
        backoff = grams[history][1] if history in grams else 0.0
        return backoff + score(history[1:], word)

    said = ["<s>"] if begin else []
    said += [w if (w,) in grams else "<unk>" for w in words]
    said += ["</s>"] if end else []
    total = 0.0
    for place in range(int(begin), len(said)):
        history = tuple(said[max(0, place - order + 1) : place])
        total += score(history, said[place])
    return total * LN10
