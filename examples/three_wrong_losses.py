"""Three CTC "losses" people write by mistake, beside `ctc_loss`.

Question: what do they give on numbers small enough to add up by hand, and which cheap
test would have exposed each one? Run it with `python -m examples.three_wrong_losses`;
docs/why_ctc_losses_go_wrong.md explains what it prints.

The wrong losses are kept wrong on purpose, and in plain NumPy, the way they are found
in the wild. Letters: T frames, V classes including blank, U labels, S = 2U + 1 states
of the label with a blank before, between and after its symbols.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jax_ctc import ctc_loss

Array = NDArray[np.float64]
Labels = Sequence[int]
Loss = Callable[[Array, Labels], float]

PROBS = np.array([[0.1, 0.2, 0.7], [0.3, 0.6, 0.1], [0.8, 0.1, 0.1]])
LABELS = (1, 2)
BLANK = 0

# A network emits logits, not log-probabilities: the same softmax, any offset. Without
# an offset here, a loss that forgets to normalise would look right.
OFFSET = 2.0
LOGITS = np.log(PROBS) + OFFSET

# A network that has learnt the label: certain of the path 1, blank, 2.
SURE = 50.0 * np.eye(3)[[1, 0, 2]]

# An untrained network on an utterance of a real length: every class equally likely.
LONG_LOGITS = np.zeros((500, 30))
LONG_LABELS = tuple(1 + n % 29 for n in range(50))

# Three equal labels need a blank between each two: five frames, and here are three.
IMPOSSIBLE = (1, 1, 1)


# --- What the loss is: add up the paths -------------------------------------------


def collapse(path: Sequence[int], blank_id: int = BLANK) -> tuple[int, ...]:
    """Labels that a path spells: merge equal neighbours, then drop the blanks.

    Args:
        path: [T] class ids, one per frame.
        blank_id: Class id of the blank.
    """
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank_id)


def paths(
    labels: Labels, num_frames: int, num_classes: int, blank_id: int = BLANK
) -> list[tuple[int, ...]]:
    """Every path of T frames that collapses to the labels, by trying all V^T.

    Args:
        labels: [U] class ids.
        num_frames: T.
        num_classes: V, blank included.
        blank_id: Class id of the blank.
    """
    every_path = itertools.product(range(num_classes), repeat=num_frames)
    return [path for path in every_path if collapse(path, blank_id) == tuple(labels)]


def path_probability(probs: Array, path: Sequence[int]) -> float:
    """Product of the probabilities that one path reads, one per frame.

    Args:
        probs: [T, V] probabilities.
        path: [T] class ids.
    """
    return math.prod(float(probs[frame, symbol]) for frame, symbol in enumerate(path))


def label_sequences(
    num_frames: int, num_classes: int, blank_id: int = BLANK
) -> Iterator[tuple[int, ...]]:
    """Every label sequence of length 0 to T: all that T frames could spell, and more.

    Args:
        num_frames: T.
        num_classes: V, blank included.
        blank_id: Class id of the blank.
    """
    symbols = [symbol for symbol in range(num_classes) if symbol != blank_id]
    for length in range(num_frames + 1):
        yield from itertools.product(symbols, repeat=length)


def total_probability(loss: Loss, scores: Array) -> float:
    """Sum of exp(-loss) over every label sequence; 1 for a loss that is a CTC loss.

    Each path spells exactly one label sequence, so the probabilities of all label
    sequences add up to that of all paths, which is 1.

    Args:
        loss: Function of the scores and a label sequence.
        scores: [T, V], whatever the loss takes: logits or probabilities.
    """
    num_frames, num_classes = scores.shape
    sequences = label_sequences(num_frames, num_classes)
    return math.fsum(math.exp(-loss(scores, labels)) for labels in sequences)


# --- Mistake 1: label n read from frame n -----------------------------------------


def position_indexed_loss(probs: Array, labels: Labels) -> float:
    """WRONG: cross-entropy of label n at frame n; later frames are never read.

    Args:
        probs: [T, V] probabilities.
        labels: [U] class ids, U <= T.
    """
    symbols = np.asarray(labels, dtype=int)
    return float(-np.log(probs[np.arange(len(symbols)), symbols]).sum())


# --- Mistake 2: one blank at each end, then one frame per symbol ------------------


def padded_label_loss(probs: Array, labels: Labels, blank_id: int = BLANK) -> float:
    """WRONG: scores the single path [blank, labels, blank], as far as it fits.

    Args:
        probs: [T, V] probabilities.
        labels: [U] class ids.
        blank_id: Class id of the blank.
    """
    padded = [blank_id, *labels, blank_id]
    # strict=False is the mistake: U + 2 symbols and T frames need not be equally many.
    return -sum(
        math.log(frame[symbol]) for frame, symbol in zip(probs, padded, strict=False)
    )


def padded_label_loss_by_index(
    probs: Array, labels: Labels, blank_id: int = BLANK
) -> float:
    """WRONG: the same by array indexing; JAX reads the last frame again and again.

    NumPy would raise IndexError here. `jax.numpy` clamps an index that is too large.

    Args:
        probs: [T, V] probabilities.
        labels: [U] class ids.
        blank_id: Class id of the blank.
    """
    padded = jnp.array([blank_id, *labels, blank_id])
    return float(-jnp.log(jnp.asarray(probs)[jnp.arange(len(padded)), padded]).sum())


# --- Mistake 3: a forward pass, with "proper normalisation" filled in -------------


def interleave(labels: Labels, blank_id: int = BLANK) -> list[int]:
    """The S = 2U + 1 states: a blank before, between and after the labels.

    Args:
        labels: [U] class ids.
        blank_id: Class id of the blank.
    """
    states = [blank_id] * (2 * len(labels) + 1)
    states[1::2] = labels
    return states


def may_skip(states: Sequence[int]) -> NDArray[np.bool_]:
    """Which states may be entered from two back, jumping over a blank.

    A label may, unless it equals the label before it: those two need the blank, or
    they would merge into one.

    Args:
        states: [S] class ids with the blanks between.
    """
    # Two back from a blank is a blank too, so this one test also keeps blanks out.
    return np.array(
        [s >= 2 and states[s] != states[s - 2] for s in range(len(states))], dtype=bool
    )


def forward_step(alpha: Array, emit: Array, skips: NDArray[np.bool_]) -> Array:
    """One frame of the forward recursion.

    Args:
        alpha: [S] sum over the paths that are in each state after the last frame.
        emit: [S] what this frame gives to each state's class.
        skips: [S] which states may be entered from two back.
    """
    stay = alpha
    move = np.concatenate([np.zeros(1), alpha])[: len(alpha)]
    skip = np.where(skips, np.concatenate([np.zeros(2), alpha])[: len(alpha)], 0.0)
    return emit * (stay + move + skip)


def forward_table(
    probs: Array,
    labels: Labels,
    blank_id: int = BLANK,
    skips: NDArray[np.bool_] | None = None,
) -> Array:
    """Forward variables of every frame, not rescaled: fine for a handful of frames.

    Args:
        probs: [T, V] what each frame gives to each class, T >= 1.
        labels: [U] class ids.
        blank_id: Class id of the blank.
        skips: [S] which states may be entered from two back; by the rule if None.

    Returns:
        [T, S] forward variables.
    """
    states = interleave(labels, blank_id)
    skips = may_skip(states) if skips is None else skips
    # A path starts in the first blank or the first label.
    rows = [np.where(np.arange(len(states)) < 2, probs[0, states], 0.0)]
    for frame in probs[1:]:
        rows.append(forward_step(rows[-1], frame[states], skips))
    return np.stack(rows)


def rescaled_forward(
    probs: Array, labels: Labels, blank_id: int = BLANK
) -> tuple[Array, float]:
    """Forward pass whose variables are divided by their sum after every frame.

    Right as it stands. The mistakes are in what is read from its two results.

    Args:
        probs: [T, V] positive probabilities, T >= 1.
        labels: [U] class ids.
        blank_id: Class id of the blank.

    Returns:
        The last frame's variables, [S], adding up to 1; and the log of all that was
        divided out.
    """
    states = interleave(labels, blank_id)
    skips = may_skip(states)
    alpha = np.where(np.arange(len(states)) < 2, probs[0, states], 0.0)
    log_scale = math.log(alpha.sum())
    alpha = alpha / alpha.sum()
    for frame in probs[1:]:
        alpha = forward_step(alpha, frame[states], skips)
        log_scale += math.log(alpha.sum())
        alpha = alpha / alpha.sum()
    return alpha, log_scale


def end_states(alpha: Array) -> float:
    """Sum over the states a path may end in: the last label and the last blank.

    Args:
        alpha: [S] forward variables of the last frame.
    """
    return float(alpha[-2:].sum())


def negative_log(probability: float) -> float:
    """-log, with +inf at 0 instead of an exception."""
    return -math.log(probability) if probability > 0 else math.inf


def lost_scale_forward_loss(probs: Array, labels: Labels) -> float:
    """WRONG: the right end states, but what was divided out is never put back.

    Args:
        probs: [T, V] probabilities.
        labels: [U] class ids.
    """
    alpha, _ = rescaled_forward(probs, labels)
    return negative_log(end_states(alpha))


def every_state_forward_loss(probs: Array, labels: Labels) -> float:
    """WRONG: the right scale, but paths still halfway through the label count too.

    Args:
        probs: [T, V] probabilities.
        labels: [U] class ids.
    """
    _, log_scale = rescaled_forward(probs, labels)
    return -log_scale


def unnormalised_forward_loss(logits: Array, labels: Labels) -> float:
    """WRONG: takes logits for log-probabilities, so nothing adds up to 1.

    Args:
        logits: [T, V] scores straight from a network.
        labels: [U] class ids.
    """
    return negative_log(end_states(forward_table(np.exp(logits), labels)[-1]))


def touching_repeats_forward_loss(probs: Array, labels: Labels) -> float:
    """WRONG: every label may skip the blank before it, even an equal neighbour.

    Args:
        probs: [T, V] probabilities.
        labels: [U] class ids.
    """
    state = np.arange(2 * len(labels) + 1)
    skips = (state >= 2) & (state % 2 == 1)
    return negative_log(end_states(forward_table(probs, labels, skips=skips)[-1]))


def corrected_forward_loss(probs: Array, labels: Labels) -> float:
    """RIGHT: the end states, with all that was divided out put back.

    Args:
        probs: [T, V] probabilities.
        labels: [U] class ids.
    """
    alpha, log_scale = rescaled_forward(probs, labels)
    return negative_log(end_states(alpha)) - log_scale


# --- All of them, as functions of logits ------------------------------------------


def softmax(logits: Array) -> Array:
    """Probabilities of the logits, [T, V] -> [T, V]."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def of_logits(loss: Loss) -> Loss:
    """The same loss with a softmax in front, so that all of them take logits."""
    return lambda logits, labels: loss(softmax(logits), labels)


def library_loss(logits: Array, labels: Labels) -> float:
    """`jax_ctc.ctc_loss` of one utterance, as a Python float.

    Args:
        logits: [T, V] scores.
        labels: [U] class ids.
    """
    return float(ctc_loss(jnp.asarray(logits), jnp.asarray(labels, dtype=jnp.int32)))


LOSSES: dict[str, Loss] = {
    "1  by position": of_logits(position_indexed_loss),
    "2a padded, zip": of_logits(padded_label_loss),
    "2b padded, jnp": of_logits(padded_label_loss_by_index),
    "3a scale lost": of_logits(lost_scale_forward_loss),
    "3b every state": of_logits(every_state_forward_loss),
    "3c raw logits": unnormalised_forward_loss,
    "3d repeats touch": of_logits(touching_repeats_forward_loss),
    "ctc_loss(probs)": of_logits(library_loss),
    "3  corrected": of_logits(corrected_forward_loss),
    "ctc_loss(logits)": library_loss,
}


# --- Printing ---------------------------------------------------------------------


class Sheet(NamedTuple):
    """A table to print: its title, its column names and its rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def spell(symbols: Sequence[int]) -> str:
    """A path or a label as text, the blank as an underscore."""
    return " ".join("_" if symbol == BLANK else str(symbol) for symbol in symbols)


def decimals(value: float) -> str:
    """A number to four places, and no minus sign on what rounds to zero."""
    return f"{round(value, 4) + 0.0:.4f}"


def paths_sheet() -> Sheet:
    """Every path that spells the label, with its probability and their sum."""
    rows: list[tuple[str, ...]] = []
    for path in paths(LABELS, *PROBS.shape):
        factors = [f"{PROBS[frame, symbol]:.1f}" for frame, symbol in enumerate(path)]
        value = path_probability(PROBS, path)
        rows.append((spell(path), " * ".join(factors), f"{value:.3f}"))
    total = math.fsum(path_probability(PROBS, p) for p in paths(LABELS, *PROBS.shape))
    rows.append(("sum", "", f"{total:.3f}"))
    rows.append(("-log of the sum", "", decimals(negative_log(total))))
    rows.append(("ctc_loss", "", decimals(library_loss(np.log(PROBS), LABELS))))
    title = f"Paths of {len(PROBS)} frames that spell {spell(LABELS)}   (_ is blank)"
    return Sheet(title, ("path", "factors", "probability"), rows)


def forward_sheet() -> Sheet:
    """The forward variables, a row per state and a column per frame."""
    table = forward_table(PROBS, LABELS)
    rows = [
        (spell([state]), *(f"{value:.3f}" for value in table[:, s]))
        for s, state in enumerate(interleave(LABELS))
    ]
    rows.append(("all states", *(f"{value:.3f}" for value in table.sum(axis=1))))
    rows.append(("end states", *(f"{end_states(row):.3f}" for row in table)))
    frames = tuple(f"frame {frame}" for frame in range(len(table)))
    return Sheet("Forward variables", ("state", *frames), rows)


def losses_sheet() -> Sheet:
    """Each loss, its total over all labels, and how it takes three easy tests."""
    rows: list[tuple[str, ...]] = []
    for name, loss in LOSSES.items():
        value = loss(LOGITS, LABELS)
        numbers = (
            value,
            math.exp(-value),
            total_probability(loss, LOGITS),
            loss(LOGITS - OFFSET, LABELS),
            loss(SURE, LABELS),
            loss(LOGITS, IMPOSSIBLE),
        )
        rows.append((name, *(decimals(number) for number in numbers)))
    columns = (
        "loss",
        "value",
        "e^-value",
        "total",
        f"logits-{OFFSET:g}",
        "sure",
        f"[{spell(IMPOSSIBLE)}]",
    )
    return Sheet("Wrong and right (the total must be 1)", columns, rows)


def long_sheet() -> Sheet:
    """The forward passes on a long utterance, where two of the mistakes hide."""
    names = ("3a scale lost", "3b every state", "3  corrected", "ctc_loss(logits)")
    rows: list[tuple[str, ...]] = [
        (name, f"{LOSSES[name](LONG_LOGITS, LONG_LABELS):.2f}") for name in names
    ]
    num_frames, num_classes = LONG_LOGITS.shape
    rows.append(("frames", str(num_frames)))
    rows.append(("labels", str(len(LONG_LABELS))))
    rows.append(("classes", str(num_classes)))
    return Sheet("Untrained, a real length", ("loss", "value"), rows)


def print_sheets(sheets: Sequence[Sheet]) -> None:
    """Prints the tables; only this function needs `rich`."""
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
    except ImportError as error:
        message = "This example needs rich: pip install 'jax_ctc[examples]'"
        raise SystemExit(message) from error
    console = Console()
    for sheet in sheets:
        # The widest table has to fit 80 columns, where rich would start to wrap.
        table = Table(title=sheet.title, title_justify="left", box=SIMPLE_HEAD)
        table.padding = (0, 1, 0, 0)
        for index, column in enumerate(sheet.columns):
            justify = "right" if index else "left"
            table.add_column(column, justify=justify, no_wrap=True)
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)


def main() -> None:
    """Prints the paths, the forward variables and the losses."""
    print_sheets([paths_sheet(), forward_sheet(), losses_sheet(), long_sheet()])


if __name__ == "__main__":
    main()
