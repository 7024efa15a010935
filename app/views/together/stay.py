"""How long tokens stay with an expert along a text, and what the token's id decides alone."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from app import headings, slow_answers, state
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.views.together import path_sentences as told
from app.views.together.paths import SLOW_PATHS
from app.views.together.tables import stay_tables, table_of
from figures.comparisons import repetition_dots
from figures.paths import context_dots
from figures.structure import word_matrix
from routing import RoutingTrace, Selection

__all__ = ["stay_part"]


def stay_part(trace: RoutingTrace, selection: Selection, within: Selection) -> None:
    """Draw what neighbors share, and how far the token's id decides.

    Args:
        trace: the trace.
        selection: what is looked at.
        within: the tasks and prompts that are counted.
    """
    if trace.unit == "prompt":
        empty("The routers of this run decide once for a whole prompt.", "It has no tokens that follow each other.")
        return
    found = slow_answers.tables(
        trace,
        stay_tables,
        what="Neighbors are being compared",
        slow=slow_answers.cells_to_scan(trace) > SLOW_PATHS,
        within=within,
    )
    if found is None:
        return
    layers = [label for label in trace.layers if not selection.layers or label in selection.layers]
    repetition, words, experts = (
        found[name][found[name]["layer"].isin(layers)] for name in ("repetition", "layers", "experts")
    )
    left, right = st.columns(2, gap="large")
    with left:
        panel(
            "Do neighbors go to the same expert?",
            repetition_dots(repetition.set_index("layer"), mode=mode()),
            key="together_repetition",
            reading=told.of_repetition(repetition),
            table=lambda: repetition,
            definitions=("repetition",),
        )
    with right:
        if words["share"].notna().any():
            panel(
                "Does the token's id alone decide?",
                context_dots(words, mode=mode()),
                key="together_context",
                reading=told.of_context(words),
                table=lambda: words,
                definitions=("context_independence",),
            )
        else:
            headings.part("Does the token's id alone decide?")
            st.markdown(told.of_context(words))
    decided = words[words["share_low"] > 0]["layer"]
    if experts["specialization"].notna().any():
        reading = told.of_words(experts[experts["layer"].isin(decided)], names=trace.expert_names)
        _words(trace, selection, experts, reading)


def _words(trace: RoutingTrace, selection: Selection, experts: pd.DataFrame, reading: str) -> None:
    layers = [label for label in trace.layers if label in set(experts["layer"])]

    def clicked(click: Click) -> None:
        expert = (layers[round(click.y)], round(click.x))
        state.select(replace(selection, experts=() if selection.experts == (expert,) else (expert,)))

    panel(
        "Which experts are those of certain words?",
        word_matrix(table_of(experts, "layer", "expert"), layers=layers, framed=selection.experts, mode=mode()),
        key="together_words",
        reading=reading + " Click a cell to select the expert.",
        table=lambda: experts.dropna(subset=["specialization"]),
        definitions=("context_independence",),
        on_click=clicked,
    )
