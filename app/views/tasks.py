"""Tasks: which experts serve which tasks?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import streamlit as st
import xarray as xr

from analysis.correlation import feature_correlation
from analysis.load import expert_load
from analysis.specialization import specialization
from app import cache, state, task_sentences
from app.components.plot_bridge import Click
from app.expert_detail import expert_detail
from app.panel import empty, mode, panel
from app.questions import expert_groups, expert_order, task_order
from figures.bars import feature_dots
from figures.grid import ColorScale, log2_scale
from figures.task_heatmap import Cells, cells_of, task_expert_heatmap
from figures.type_heatmap import cluster_type_heatmap
from routing import RoutingTrace, Selection

__all__ = ["render"]

_VALUES = ("lift", "rate", "load")
_VALUE_NAMES = {"lift": "lift", "rate": "rate", "load": "load"}
_TITLES = {
    "lift": "Use of each expert against its overall use",
    "rate": "Share of tokens that choose each expert",
    "load": "Share of each layer's work",
}
_DEFINITIONS = {
    "lift": ("lift", "q_value", "specialization"),
    "rate": ("activation_rate", "specialization"),
    "load": ("expert_load",),
}
_OVER = ("task", "task_type")
_OVER_NAMES = {"task": "tasks", "task_type": "task types"}
_ORDERS = ("clustered", "type", "recorded")
_ORDER_NAMES = {"clustered": "clustered", "type": "by type", "recorded": "recorded"}
_COLUMNS = ("layer", "clustered")
_COLUMN_NAMES = {"layer": "by layer", "clustered": "clustered"}
_ALL_LAYERS = "all layers"
_MOST_DOUBLINGS = 4.0


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the controls above the heatmap say."""

    values: Literal["lift", "rate", "load"]
    over: Literal["task", "task_type"]
    rows: str
    columns: str


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    if not trace.tasks or (trace.n_tokens == 0 and trace.level != "counts"):
        empty("This run holds no tokens of any task.", "Record a set of tasks: `routescope record MODEL --tasks …`.")
        return
    asked = _Asked(
        values=state.chosen("values", _VALUES),
        over=state.chosen("over", _OVER),
        rows=state.chosen("rows", _ORDERS),
        columns=state.chosen("columns", _COLUMNS),
    )
    _heatmap(trace, selection, asked)
    if selection.experts:
        expert_detail(trace, selection, expert=selection.experts[0])
    else:
        st.caption("Click a cell to see what that expert serves: its tasks, tokens and prompts.")
    _types(trace, selection)


def _heatmap(trace: RoutingTrace, selection: Selection, asked: _Asked) -> None:
    n_permutations = 0 if trace.level == "counts" else 1000
    special = cache.answer(trace, specialization, over=asked.over, n_permutations=n_permutations)
    groups = _rows(trace, selection, asked)
    layers = list(selection.layers or trace.layers)
    special = special.sel(group=groups, layer=layers)
    values = special[asked.values] if asked.values != "load" else _load(trace, asked, groups=groups, layers=layers)
    muted = None
    if asked.values == "lift" and n_permutations:
        muted = ~special["significant"].astype(bool) & special["lift"].notnull()
    cells = cells_of(
        values,
        exists=trace.expert_exists,
        rows=groups,
        columns=_columns(trace, asked, layers=tuple(selection.layers)),
        muted=muted,
        details=(np.exp2(special["lift"]), special["rate"], special["q_value"]),
    )
    whole = not selection.tasks and asked.rows == "clustered" and asked.over == "task"
    figure = task_expert_heatmap(
        cells,
        scale=_scale(cells, asked, unit=str(values.attrs.get("unit", "share"))),
        value_text=_hover(asked, tested=n_permutations > 0, weighed=_weighed(special)),
        task_types=trace.task_types if asked.over == "task" else {name: name for name in groups},
        row_tree=_order(trace, selection, asked).order.linkage if whole else None,
        blocks=asked.columns == "layer",
        selected=selection.experts,
        names=trace.expert_names,
        mode=mode(),
    )

    def clicked(click: Click) -> None:
        _, expert = cells.at(float(click.x), float(click.y))
        state.select(replace(selection, experts=() if selection.experts == (expert,) else (expert,)))

    panel(
        f"{_TITLES[asked.values]}, {_OVER_NAMES[asked.over]} × experts",
        figure,
        key="tasks_heatmap",
        reading=_reading(special, values, asked) + _pooling(cells),
        table=lambda: _table(special),
        definitions=_DEFINITIONS[asked.values],
        on_click=clicked,
        controls=lambda: _controls(trace, selection),
    )


def _controls(trace: RoutingTrace, selection: Selection) -> None:
    def layer_picked(layer: str) -> None:
        state.select(replace(selection, layers=() if layer == _ALL_LAYERS else (layer,)))

    with st.container(horizontal=True, gap="small", vertical_alignment="top"):
        state.choose(
            "Color",
            _VALUES,
            name="values",
            shown=_VALUE_NAMES.__getitem__,
            help="Lift: use by the task over use by all. Rate: share of the task's tokens that choose the expert. "
            "Load: share of the layer's work for the task.",
        )
        state.choose("Rows", _OVER, name="over", shown=_OVER_NAMES.__getitem__)
        state.choose("Order of rows", _ORDERS, name="rows", shown=_ORDER_NAMES.__getitem__)
        state.choose("Order of experts", _COLUMNS, name="columns", shown=_COLUMN_NAMES.__getitem__)
        with st.container(width=130):
            current = selection.layers[0] if len(selection.layers) == 1 else _ALL_LAYERS
            state.pick(
                "Layer",
                [_ALL_LAYERS, *trace.layers],
                key="one_layer",
                value=current,
                on_change=layer_picked,
            )


def _rows(trace: RoutingTrace, selection: Selection, asked: _Asked) -> list[str]:
    shown = set(selection.tasks or trace.tasks)
    if asked.over == "task_type":
        return list(dict.fromkeys(trace.task_types[task] for task in trace.tasks if task in shown))
    if asked.rows == "recorded":
        names: Sequence[str] = trace.tasks
    else:
        names = _order(trace, selection, asked).names
        if asked.rows == "type":
            types = list(dict.fromkeys(trace.task_types.values()))
            names = sorted(names, key=lambda task: types.index(trace.task_types[task]))
    return [task for task in names if task in shown]


def _order(trace: RoutingTrace, selection: Selection, asked: _Asked):  # noqa: ANN202 (TaskOrder, through the cache)
    return cache.answer(trace, task_order, values=asked.values, layers=tuple(selection.layers))


def _columns(trace: RoutingTrace, asked: _Asked, *, layers: tuple[str, ...]) -> Sequence[tuple[str, int]] | None:
    if asked.columns == "layer":
        return None
    return cache.answer(trace, expert_order, values=asked.values, layers=layers).experts


def _load(trace: RoutingTrace, asked: _Asked, *, groups: list[str], layers: list[str]) -> xr.DataArray:
    load = cache.answer(trace, expert_load, by=asked.over)
    return load.rename({asked.over: "group"}).sel(group=groups, layer=layers)


def _weighed(special: xr.Dataset) -> bool:
    return special.attrs.get("measure") == "routed weight"


def _scale(cells: Cells, asked: _Asked, *, unit: str) -> ColorScale:
    if asked.values == "lift":
        counted = cells.values if cells.muted is None else cells.values[~cells.muted]
        # One cell in twenty may pass the ends: a task that shuns an expert altogether must not pale all others.
        return log2_scale([counted], title="use ÷ overall use", most=_MOST_DOUBLINGS, quantile=0.95)
    return ColorScale(title=unit, low=0.0, high=float(np.nanmax(cells.values, initial=0.01)), tick_format=".0%")


def _hover(asked: _Asked, *, tested: bool, weighed: bool) -> str:
    chance = "<br>q %{customdata[2]:.3f} against shuffled prompts" if tested else ""
    lines = (
        "×%{customdata[0]:.2f} its overall use<br>%{customdata[1]:.1%} of the "
        + ("weight" if weighed else "tokens")
        + chance
    )
    of_layer = f"%{{z:.1%}} of the layer's {'weight' if weighed else 'assignments'}<br>"
    return of_layer + lines if asked.values == "load" else lines


def _reading(special: xr.Dataset, values: xr.DataArray, asked: _Asked) -> str:
    if asked.values == "lift":
        return task_sentences.of_lift(special)
    of = ("weight", "weight") if _weighed(special) else ("tokens", "assignments")
    what = f"of its {of[0]}" if asked.values == "rate" else f"of its {of[1]} in that layer"
    return task_sentences.of_values(values, what=what, names=special.attrs.get("expert_names"))


def _pooling(cells: Cells) -> str:
    if cells.n_pooled == 1:
        return ""
    return f" Each column stands for {cells.n_pooled} neighbors and shows, row by row, the one that stands out most."


def _table(special: xr.Dataset) -> pd.DataFrame:
    columns = ["rate", "lift", "z", "p_value", "q_value", "significant"]
    rows = special[columns].to_dataframe().reset_index()
    return rows.dropna(subset=["rate"]).rename(columns={"group": str(special.attrs.get("over", "group"))})


def _types(trace: RoutingTrace, selection: Selection) -> None:
    types = list(dict.fromkeys(trace.task_types.values()))
    st.subheader("Are there experts for types of task?", anchor=False)
    if len(types) < 2:
        empty("All tasks of this run are of one type.", "Record tasks of several types to compare them.")
        return
    groups = cache.answer(trace, expert_groups, layers=tuple(selection.layers))
    left, right = st.columns(2, gap="large")
    with left:
        _type_experts(trace, selection)
    with right:
        if groups.types is None:
            st.markdown("#### Groups of experts × types of tasks")
            st.markdown(task_sentences.of_groups(groups))
        else:
            table = groups.types.table
            panel(
                "Groups of experts × types of tasks",
                cluster_type_heatmap(table, mode=mode()),
                key="tasks_types",
                reading=task_sentences.of_groups(groups),
                table=lambda: table.to_dataframe().reset_index(),
                definitions=("clusters", "silhouette", "stability", "expert_task_types"),
            )


def _type_experts(trace: RoutingTrace, selection: Selection) -> None:
    table = cache.answer(trace, feature_correlation)
    table = table.sel(layer=list(selection.layers or trace.layers))
    if not table.sizes["feature"]:
        st.markdown("#### Single experts for a type")
        st.markdown(task_sentences.of_features(table))
        return
    panel(
        "Single experts for a type",
        feature_dots(table, mode=mode()),
        key="tasks_features",
        reading=task_sentences.of_features(table),
        table=lambda: table[["r", "p_value", "p_any"]].to_dataframe().dropna(subset=["r"]).reset_index(),
        definitions=("feature_correlation",),
    )
