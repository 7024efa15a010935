"""Paths through several layers, and how much layers tell about each other."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from app import choices, headings, slow_answers, state
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.sentences import escaped
from app.views.together import path_sentences as told
from app.views.together.tables import common_tables, path_tables, table_of, windows_of
from figures.paths import common_path_dots, path_dots
from figures.structure import layer_information_matrix
from routing import RoutingTrace, Selection

__all__ = ["SLOW_PATHS", "paths_part"]

SLOW_PATHS = 300_000
"""Tokens × layers of which paths, with their deals of texts, take longer than a reader waits."""

_AT_MOST = 0.05


def paths_part(trace: RoutingTrace, selection: Selection, within: Selection) -> None:
    """Draw the common paths, over how many tokens spread, and which layers tell about which.

    Args:
        trace: the trace.
        selection: what is looked at.
        within: the tasks and prompts that are counted.
    """
    windows = windows_of(trace)
    if selection.layers:
        windows = {name: labels for name, labels in windows.items() if set(labels) & set(selection.layers)}
    if not windows:
        empty("No two layers of this run follow each other in one stack.", "There is no path to look at.")
        return
    slow = slow_answers.cells_to_scan(trace) > SLOW_PATHS
    left, right = st.columns([3, 2], gap="large")
    with left:
        _common(trace, selection, within, windows=windows, slow=slow)
    found = slow_answers.tables(
        trace, path_tables, what="Paths are being held against other texts", slow=slow, within=within
    )
    if found is None:
        return
    with right:
        _entropy(found["entropy"], windows=list(windows), unit=trace.unit)
        _information(trace, selection, found["information"])


def _common(
    trace: RoutingTrace, selection: Selection, within: Selection, *, windows: dict[str, tuple[str, ...]], slow: bool
) -> None:
    name = choices.chosen("window", list(windows))
    layers = windows[name]
    found = slow_answers.tables(
        trace, common_tables, what="Paths are being counted", slow=slow, within=within, layers=layers
    )
    if found is None:
        return
    rows = found["paths"]

    def clicked(click: Click) -> None:
        experts = rows["experts"].iloc[round(click.y)].split()
        path = tuple((layer, int(expert)) for layer, expert in zip(layers, experts, strict=True))
        state.select(replace(selection, experts=() if selection.experts == path else path))

    def controls() -> None:
        if len(windows) > 1:
            with st.container(width=360):
                choices.choose("Layers", list(windows), name="window", kind="slider")

    panel(
        f"The most common paths through {escaped(name)}",
        common_path_dots(rows, mode=mode()),
        key="together_common",
        reading=told.of_common_paths(rows, layers=layers, unit=trace.unit) + " Click a path to select its experts.",
        table=lambda: rows,
        definitions=("common_paths", "path_entropy"),
        on_click=clicked,
        controls=controls,
    )


def _entropy(entropy: pd.DataFrame, *, windows: list[str], unit: str) -> None:
    rows = entropy[entropy["window"].isin(windows)]
    if rows.empty:
        headings.part("How many paths")
        st.markdown(told.of_path_entropy(rows, unit=unit))
        return
    panel(
        "How many paths",
        path_dots(rows, mode=mode()),
        key="together_entropy",
        reading=told.of_path_entropy(rows, unit=unit),
        table=lambda: rows,
        definitions=("path_entropy",),
    )


def _information(trace: RoutingTrace, selection: Selection, information: pd.DataFrame) -> None:
    rows = information
    if selection.layers:
        rows = rows[rows["layer"].isin(selection.layers)]
    order = [label for label in trace.layers if label in set(rows["layer"])]

    def clicked(click: Click) -> None:
        pair = tuple(dict.fromkeys((order[round(click.y)], trace.layers[round(click.x)])))
        state.select(replace(selection, layers=() if selection.layers == pair else pair))

    panel(
        "What layers settle",
        layer_information_matrix(
            table_of(rows, "layer", "other").sel(layer=order, other=list(trace.layers)), at_most=_AT_MOST, mode=mode()
        ),
        key="together_information",
        reading=told.of_information(rows) + " Click a cell to look at these layers alone.",
        table=lambda: rows.dropna(subset=["share"]),
        definitions=("layer_information",),
        on_click=clicked,
    )
