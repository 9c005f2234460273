"""What a beam search is asked for: checked, and parted into static and traced."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from jax_ctc._checks.given import ArrayLike
from jax_ctc._checks.options import check_blank_id, check_count, check_number, is_logits
from jax_ctc._decoding.guide import Guide
from jax_ctc._decoding.search import Plan

# With a language model a label may rise from far down: see `pruning`.
GUIDED_SLACK = 4
_METHODS = ("initial", "score", "advance", "end")


class Options(NamedTuple):
    """Everything about a call that is known when it is traced."""

    plan: Plan
    num_hypotheses: int  # N
    rerank: bool
    times: bool


def check_options(
    num_classes: int | None,
    *,
    blank_id: Any,
    beam_width: Any,
    beam_threshold: Any,
    num_hypotheses: Any,
    inputs: Any,
    max_labels: Any,
    rerank: Any,
    times: Any,
    is_guided: bool,
) -> Options:
    """Return the options, or raise; `num_classes` is None while it is not known."""
    width = check_count(beam_width, name="beam_width")
    wanted = check_count(num_hypotheses, name="num_hypotheses")
    if wanted > width:
        raise ValueError(
            "`num_hypotheses` must be at most `beam_width`, for a beam of"
            f" {width} prefixes holds no more; got {wanted}"
        )
    if num_classes is not None and width * (num_classes + 1) >= 2**31:
        raise ValueError(
            f"`beam_width` times V + 1 must be below 2**31; got {width} and"
            f" V={num_classes}"
        )
    plan = Plan(
        blank_id=check_blank_id(blank_id, num_classes),
        width=width,
        normalise=is_logits(inputs),
        max_labels=(
            None if max_labels is None else check_count(max_labels, name="max_labels")
        ),
        slack=GUIDED_SLACK if is_guided else 1,
        threshold=_check_threshold(beam_threshold),
    )
    flags = {"rerank": rerank, "times": times}
    for name, flag in flags.items():
        if not isinstance(flag, bool | np.bool):
            raise TypeError(
                f"`{name}` must be True or False, known when the function is traced;"
                f" got {flag!r}"
            )
    return Options(plan, wanted, bool(rerank), bool(times))


def _check_threshold(threshold: Any) -> float | None:
    """Return a positive Python float, or None, or raise."""
    if threshold is None:
        return None
    try:
        if isinstance(threshold, bool | np.bool | str | Tracer):
            raise TypeError
        nats = float(threshold)
    except (TypeError, ValueError):
        raise TypeError(
            "`beam_threshold` must be a number of nats, known when the function is"
            f" traced, or None; got {threshold!r}"
        ) from None
    if not 0 < nats < np.inf:
        raise ValueError(
            f"`beam_threshold` must be a positive, finite number of nats; got {nats}."
            " To drop none pass None"
        )
    return nats


def check_guide(
    num_classes: int | None,
    language_model: Any,
    lm_weight: ArrayLike,
    label_bonus: ArrayLike,
    hotwords: Any,
) -> Guide:
    """Return what the search goes by besides the scores, or raise."""
    models, weights = [], []
    weight = check_number(lm_weight, name="lm_weight")
    if language_model is not None:
        model = _check_model(language_model, "language_model", "NGram.from_arpa")
        models.append(_check_classes(model, "language_model", num_classes))
        weights.append(weight)
    if hotwords is not None:
        model = _check_model(hotwords, "hotwords", "Hotwords.from_phrases")
        models.append(_check_classes(model, "hotwords", num_classes))
        weights.append(jax.device_put(np.float32(1)))
    bonus = check_number(label_bonus, name="label_bonus")
    return Guide(tuple(models), tuple(weights), bonus)


def _check_model(model: Any, name: str, maker: str) -> Any:
    missing = [m for m in _METHODS if not callable(getattr(model, m, None))]
    if missing:
        raise TypeError(
            f"`{name}` must be a model as `{maker}` returns, or have the methods"
            f" {', '.join(_METHODS)}; got {type(model).__name__}, which lacks"
            f" {', '.join(missing)}"
        )
    return model


def _check_classes(model: Any, name: str, num_classes: int | None) -> Any:
    """Return the model if it has the classes of the scores, or does not say."""
    known = getattr(model, "num_classes", num_classes)
    if num_classes is not None and known != num_classes:
        raise ValueError(
            f"`{name}` is for the V={known} classes of the vocabulary that it was made"
            f" with, but the scores have V={num_classes}"
        )
    return model
