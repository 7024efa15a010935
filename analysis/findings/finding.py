"""A finding, and the family of questions that it answers one of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Family", "Finding", "beyond", "interval", "p_text", "some"]

_Z_95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that stands out.

    Attributes:
        kind: the family that it belongs to, such as "specialist" or "uneven".
        sentence: what was found, with its figures.
        effect: its size, in `unit`.
        effect_low: lower end of its 95 % interval; None where there is none.
        effect_high: upper end of it.
        unit: of the effect.
        strength: size of what is sure of the effect, 0 to 1, the one scale by which findings are ranked.
        p_value: how often chance gives as much, for this one question.
        q_value: false-discovery rate over all questions that were asked for the list.
        uncertainty: what speaks for it not being chance, in words.
        view: the view that shows it, by its address.
        selection_query: the selection to show there, as `Selection.to_query` writes it.
        options: of the view, by their names in its address: the part of it, and what is chosen there.
    """

    kind: str
    sentence: str
    effect: float
    effect_low: float | None = None
    effect_high: float | None = None
    unit: str
    strength: float
    p_value: float
    q_value: float = float("nan")
    uncertainty: str
    view: str
    selection_query: dict[str, str]
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Family:
    """All questions of one kind, and what can be said where one is answered.

    Attributes:
        kind: name of the family.
        p_values: (question) p-value of each that was asked, whether or not it makes a sentence.
        candidates: number of the question, and the finding that it would be; those that are too small to matter, or
            not found again in the other half, are left out before.
    """

    kind: str
    p_values: np.ndarray
    candidates: Sequence[tuple[int, Finding]]


def beyond(value: np.ndarray | float, low: np.ndarray | float, high: np.ndarray | float, *, limit: float) -> np.ndarray:
    """One-sided p of a positive figure being beyond a limit, from its 95 % interval, normal on a log scale.

    Returns:
        as `value` · probability · 0 to 1; NaN where there is no interval.
    """
    value, low, high = (np.asarray(each, dtype=float) for each in (value, low, high))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.log(high / low) / (2 * _Z_95)
        z = np.log(value / limit) / spread
    found = np.array([0.5 * math.erfc(each / math.sqrt(2)) if each == each else np.nan for each in z.ravel()])
    return found.reshape(z.shape)


def interval(low: float | None, high: float | None, *, digits: int = 1) -> str:
    """An interval in brackets after its figure; nothing where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f" [{low:.{digits}f}, {high:.{digits}f}]"


def p_text(value: float) -> str:
    """How large a probability is, to follow its name."""
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def some(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"
