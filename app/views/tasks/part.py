"""What the parts of the view Tasks share: the part of the run that is selected, and clicks that pick experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from app import state
from app.components.plot_bridge import Click
from app.slow_answers import cells_to_scan
from routing import RoutingTrace, Selection

__all__ = ["MOST_AT_ONCE", "is_large", "layers_of", "narrowed", "pick", "picked_row", "selected_groups"]

MOST_AT_ONCE = 400_000
"""Decisions of a trace up to which a question of permutations is answered while the reader waits: about a second."""


def narrowed(selection: Selection, *, tasks: bool = True) -> Selection:
    """The prompts of a selection, as what narrows a trace; its layers are drawn or not, its experts framed.

    Args:
        selection: what the reader selected.
        tasks: whether tasks narrow the trace, rather than the rows that are shown.
    """
    return Selection(tasks=selection.tasks if tasks else (), prompts=selection.prompts)


def is_large(trace: RoutingTrace) -> bool:
    """Whether a question of permutations takes longer than a reader should wait for a page."""
    return cells_to_scan(trace) > MOST_AT_ONCE


def layers_of(trace: RoutingTrace, selection: Selection) -> list[str]:
    """Labels of the layers that are shown."""
    return list(selection.layers or trace.layers)


def selected_groups(trace: RoutingTrace, selection: Selection, *, over: str, known: Sequence[str]) -> list[str]:
    """Tasks or types of the selected tasks, among those that a table holds."""
    shown = set(selection.tasks or trace.tasks)
    names = trace.tasks if over == "task" else dict.fromkeys(trace.task_types.values())
    wanted = shown if over == "task" else {trace.task_types[task] for task in shown}
    return [name for name in names if name in wanted and name in set(known)]


def pick(selection: Selection, expert: tuple[str, int]) -> None:
    """Make an expert the selection, or let it go; for callbacks."""
    state.select(replace(selection, experts=() if selection.experts == (expert,) else (expert,)))


def picked_row(selection: Selection, table: pd.DataFrame, click: Click) -> None:
    """Pick the expert of a clicked row of dots: rows of the table are drawn downward from 0."""
    row = round(float(click.y))
    if 0 <= row < len(table):
        pick(selection, (str(table["layer"].iloc[row]), int(table["expert"].iloc[row])))
