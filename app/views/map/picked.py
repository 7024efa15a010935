"""What picking points of a map selects, and the table of what is picked."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from app import headings, state
from app.links import view_link
from app.sentences import count
from app.views.map import sentences as map_sentences
from app.views.map.adapters import selection_of_adapters
from app.views.map.kept import Mapped
from routing import Focus, RoutingTrace, Selection

__all__ = ["MOST_PICKED", "pick", "picked_table"]

MOST_PICKED = 300
"""Most points that a selection names: it is part of the link, and a link of many pages is none."""


def pick(trace: RoutingTrace, selection: Selection, points: pd.DataFrame, *, of: Mapped) -> None:
    """Make points the selection; for callbacks."""
    named = points["prompt"].nunique() if of == "token" else len(points)
    if named > MOST_PICKED:
        noun = "prompt" if of == "token" else of
        st.toast(map_sentences.of_picked(named, noun=noun, most=MOST_PICKED), icon=":material/lasso_select:")
    elif of == "expert":
        experts = tuple((str(layer), int(e)) for layer, e in zip(points["layer"], points["expert"], strict=True))
        state.select(replace(selection, experts=experts))
    elif of == "adapter":
        state.select(selection_of_adapters(trace, points, selection))
    elif of == "token" and len(points) == 1:
        token = points.iloc[0]
        state.select(replace(selection, focus=Focus(prompt=str(token["prompt"]), position=int(token["position"]))))
    else:
        # A selection names no tokens, so it is their prompts that every view can show.
        prompts = tuple(dict.fromkeys(points["prompt"].astype(str)))
        state.select(replace(selection, prompts=prompts, focus=None))


def picked_table(selection: Selection, points: pd.DataFrame, *, of: Mapped) -> None:
    """Draw what is picked, with links to where it is told more of."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        headings.part(f"{count(len(points), of)} picked", width="stretch")
        if of in ("expert", "adapter"):
            view_link("tasks", "Their tasks", icon=":material/grid_on:")
            view_link("load", "Their load", icon=":material/balance:")
        else:
            first = points.iloc[0]
            position = int(first["position"]) if of == "token" else None
            focus = selection.focus or Focus(prompt=str(first["prompt"]), position=position)
            view_link("tokens", "Read them", icon=":material/segment:", selection=replace(selection, focus=focus))
    if of == "expert":
        shown = points[["name", "layer", "serves", "lift"]].sort_values("lift", ascending=False, na_position="last")
        columns = {
            "name": "expert",
            "serves": st.column_config.TextColumn("serves most", help="Empty where nothing is beyond chance."),
            "lift": st.column_config.NumberColumn("lift (log₂ ratio)", format="%.2f"),
        }
    elif of == "adapter":
        shown = points[["name", "site", "n_uses", "task", "task_share"]].sort_values("n_uses", ascending=False)
        columns = {
            "name": "adapter",
            "n_uses": st.column_config.NumberColumn("uses"),
            "task": "used most by",
            "task_share": st.column_config.NumberColumn("share of its uses", format="percent"),
        }
    elif of == "token":
        shown = points[["name", "prompt", "position", "task", "phase", "nll", "margin", "weight", "lead"]]
        columns = {
            "name": "token",
            "nll": st.column_config.NumberColumn("NLL (nats)", format="%.2f"),
            "margin": st.column_config.NumberColumn("margin (score)", format="%.3f"),
            "weight": st.column_config.NumberColumn("stands for", format="%.1f", help="Tokens of the trace."),
            "lead": st.column_config.TextColumn("where it stands", width="large"),
        }
    else:
        shown = points[["prompt", "task", "task_type", "outcome", "lead"]]
        columns = {"task_type": "type", "lead": st.column_config.TextColumn("text", width="large")}
    st.dataframe(shown, hide_index=True, column_config=columns, height=min(420, 38 + 35 * len(shown)))
