"""Tasks: which experts serve which tasks?"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app import choices
from app.panel import empty
from app.views.expert.detail import expert_detail
from app.views.tasks.answers import draw_answers
from app.views.tasks.cells import draw_cells
from app.views.tasks.controls import draw_controls
from app.views.tasks.features import draw_features
from app.views.tasks.layers import draw_layers
from app.views.tasks.structure import draw_structure
from routing import RoutingTrace, Selection

__all__ = ["render"]

# Each part: what it is called, and what draws it.
_PARTS: dict[str, tuple[str, Callable[[RoutingTrace, Selection], None]]] = {
    "cells": ("tasks × experts", draw_cells),
    "controls": ("what controls leave", draw_controls),
    "features": ("features", draw_features),
    "clusters": ("clusters", draw_structure),
    "layers": ("layers", draw_layers),
    "answers": ("right answers", draw_answers),
}
_WITH_EXPERT = ("cells", "controls", "features", "answers")


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    if not trace.tasks or (trace.n_tokens == 0 and trace.level != "counts"):
        empty("This run holds no tokens of any task.", "Record a set of tasks: `routescope record MODEL --tasks …`.")
        return
    part = choices.choose(
        "Part",
        tuple(_PARTS),
        name="part",
        shown=lambda name: _PARTS[name][0],
        label_visibility="collapsed",
    )
    if part != "cells" and _nothing_is_left(trace, selection):
        empty("No prompt is of the selected tasks and selected by itself, too.", "Let go of the tasks or the prompts.")
        return
    _PARTS[part][1](trace, selection)
    if part not in _WITH_EXPERT:
        return
    if selection.experts:
        expert_detail(trace, selection, expert=selection.experts[0])
    elif part == "cells":
        st.caption("Click a cell to see what that expert serves: its tasks, tokens and prompts.")


def _nothing_is_left(trace: RoutingTrace, selection: Selection) -> bool:
    """Whether the selected prompts are of other tasks than the selected ones."""
    if not (selection.tasks and selection.prompts):
        return False
    table = trace.prompts
    return not (table["prompt"].isin(selection.prompts) & table["task"].isin(selection.tasks)).any()
