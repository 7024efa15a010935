"""Which prompts a reader may choose from, and how a list names them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from figures.pieces import snippet
from routing import RoutingTrace

__all__ = ["Outcome", "choices_around", "matching_prompts", "outcome_of", "outcomes", "prompt_labels", "prompt_lead"]

Outcome = Literal["all", "right", "partly", "wrong"]
OUTCOMES: tuple[Outcome, ...] = ("all", "right", "partly", "wrong")
_MARKS = {"right": "✓", "partly": "◐", "wrong": "✗", "unknown": "·"}


def matching_prompts(
    trace: RoutingTrace,
    *,
    tasks: tuple[str, ...] = (),
    prompts: tuple[str, ...] = (),
    outcome: Outcome = "all",
    text: str = "",
) -> tuple[int, ...]:
    """Rows of the prompts of these tasks, with this outcome, whose id or texts hold this text.

    Returns:
        (prompt) · row of `trace.prompts` · ascending; of a run that was stopped, first those that were read.
    """
    table = trace.prompts
    keep = pd.Series(data=True, index=table.index)
    if tasks:
        keep &= table["task"].isin(tasks)
    if prompts:
        keep &= table["prompt"].isin(prompts)
    if outcome != "all":
        keep &= table["score"].map(outcome_of) == outcome
    if text:
        found = pd.Series(data=False, index=table.index)
        for column in ("prompt", "text", "target", "prediction"):
            texts = table[column].fillna("").astype(str)
            found |= texts.str.contains(text, case=False, regex=False)
        keep &= found
    rows = table.index[keep]
    if not trace.provenance.complete and trace.unit == "token" and trace.level != "counts":
        was_read = np.isin(rows, trace.tokens["prompt"].unique())
        rows = rows[was_read].append(rows[~was_read])
    return tuple(int(row) for row in rows)


def outcome_of(score: float) -> str:
    """What a score says in a word: "right", "partly", "wrong" or "unknown"."""
    if pd.isna(score):
        return "unknown"
    if score >= 1:
        return "right"
    return "wrong" if score <= 0 else "partly"


def prompt_lead(text: str, *, n_characters: int) -> str:
    """The beginning of what sets a prompt apart: after its first line, which is its task's instruction as a rule."""
    first, _, rest = text.partition("\n")
    return snippet(rest if rest.strip() else first, n_characters=n_characters)


def choices_around(rows: tuple[int, ...], *, focus: int | None, most: int) -> tuple[int, ...]:
    """What a list of at most about `most` prompts offers: those around the one in focus, else the first.

    Args:
        rows: that match, ascending.
        focus: row that is being read; it stays on offer where it does not match.
        most: length of a list that a reader can still scan.

    Returns:
        (prompt) · row of `trace.prompts` · the focus first where it is none of `rows`, else ascending.
    """
    if focus is None or focus not in rows:
        return (() if focus is None else (focus,)) + rows[:most]
    # The window moves by halves, so that a step to the next prompt seldom sends a new list.
    half = most // 2
    start = max(0, rows.index(focus) // half * half - half // 2)
    return rows[start : start + most]


def prompt_labels(trace: RoutingTrace, *, rows: tuple[int, ...]) -> dict[int, str]:
    """Prompts as a list names them: outcome, task and the beginning of the text.

    Returns:
        row of `trace.prompts` → its label.
    """
    table = trace.prompts.loc[list(rows)]
    return {
        row: f"{_MARKS[outcome_of(score)]} {task} · {prompt_lead(str(text), n_characters=80)}"
        for row, score, task, text in zip(rows, table["score"], table["task"], table["text"], strict=True)
    }


def outcomes(trace: RoutingTrace) -> tuple[Outcome, ...]:
    """Outcomes that some prompt of the trace has, "all" first."""
    there = set(trace.prompts["score"].map(outcome_of))
    return tuple(word for word in OUTCOMES if word == "all" or word in there)
