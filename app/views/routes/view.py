"""Routes: which whole layers does each task take?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
import xarray as xr

from analysis.correlation import feature_correlation
from analysis.route_dynamics import route_dynamics
from analysis.routes import RouteGrouping, RouteMode, route_entropy, route_grouping, route_similarity, task_routes
from app import cache, choices, headings, state
from app.components.plot_bridge import Click
from app.links import view_link
from app.panel import empty, mode, panel
from app.views.routes import sentences as told
from app.views.routes.snapshots import Snapshots, route_snapshots
from app.views.tasks import sentences as task_sentences
from figures.bars import feature_dots
from figures.grid import ColorScale
from figures.lines import Track, layer_tracks, training_curves
from figures.route_dynamics import correlation_curves
from figures.square import matrix_heatmap, similarity_scale
from figures.task_heatmap import Cells, cells_of, task_expert_heatmap
from figures.theme import PERCENT_TICKS
from figures.trees import whole_tree
from routing import RoutingTrace, Selection

__all__ = ["render"]

_MODES: dict[str, str] = {
    "recorded": "as recorded",
    "route": "the model's own",
    "route_softmax_t1": "softmax at temperature 1",
}
_TASKS_FOLLOWED = 3
"""Fewest tasks of a type whose experts are followed over training: two tasks go with something in any set of routes."""
_ORDERS = {"model": "recorded", "type": "by type", "clustered": "clustered"}
_SCALE = ColorScale(title="share of the layer", low=0.0, high=1.0, tick_format=PERCENT_TICKS)


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    if trace.unit != "prompt":
        empty(
            "The routers of this run decide token by token, not once for a task.",
            "Task-level MoE decides by task: choose a run of one in the run picker. For this run:",
        )
        view_link("tasks", "Which experts serve which tasks?", icon=":material/grid_on:")
        return
    if any(facts.expert_names for facts in trace.layer_facts):
        empty("This run's router retrieves prototypes of tasks; it routes no layers.", "What it retrieved:")
        view_link("adapters", "Which adapter does each task get, and is it its own?", icon=":material/extension:")
        return
    if trace.n_tokens == 0:
        empty("This run holds no prompt yet.", "Let the recording run on, and reload the page.")
        return
    modes = ["recorded", *(name for name in _MODES if name in trace.vectors)]
    asked = cast(RouteMode, choices.chosen("routes", modes))
    grouping = cache.answer(trace, route_grouping, mode=asked)
    _map(trace, selection, grouping, modes=modes, asked=asked)
    left, right = st.columns(2, gap="large")
    with left:
        _features(trace, selection)
    with right:
        _entropy(trace, asked)
    _alike(trace, grouping, asked)
    _dynamics(trace, selection)


def _map(
    trace: RoutingTrace, selection: Selection, grouping: RouteGrouping, *, modes: list[str], asked: RouteMode
) -> None:
    order = choices.chosen("rows", tuple(_ORDERS))
    routes = cache.answer(trace, task_routes, mode=asked)
    routes = routes.sel(
        layer=[label for label in routes["layer"].values if label in (selection.layers or trace.layers)]
    )
    rows = [name for name in _ordered(routes, grouping, order=order) if _shown(name, trace, selection)]
    exists = trace.expert_exists
    cells = cells_of(routes, exists=exists, rows=rows)
    whole = order == "clustered" and len(rows) == routes.sizes["task"]

    def clicked(click: Click) -> None:
        _, expert = cells.at(float(click.x), float(click.y))
        state.select(replace(selection, experts=() if selection.experts == (expert,) else (expert,)))

    def controls() -> None:
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            if len(modes) > 1:
                choices.choose(
                    "Routes",
                    modes,
                    name="routes",
                    shown=_MODES.__getitem__,
                    help="As recorded: means over the prompts of a task. The others are read off the router for every "
                    "task that it knows, in its own mode and temperature, or noise-free at temperature 1.",
                )
            choices.choose("Order of tasks", tuple(_ORDERS), name="rows", shown=_ORDERS.__getitem__)

    panel(
        "Share of each layer that a task gives each expert",
        _figure(cells, routes, selection, tree=grouping.order.linkage if whole else None),
        key="routes_map",
        reading=told.of_grouping(grouping) + " Click a cell to select the expert for every view.",
        table=lambda: routes.to_dataframe(name="share").dropna().reset_index(),
        definitions=("task_routes", "route_grouping"),
        on_click=clicked,
        controls=controls,
    )


def _figure(cells: Cells, routes: xr.DataArray, selection: Selection, *, tree: np.ndarray | None) -> go.Figure:
    types = dict(zip(map(str, routes["task"].values), map(str, routes["task_type"].values), strict=True))
    return task_expert_heatmap(
        cells,
        scale=_SCALE,
        value_text="%{z:.1%} of the layer",
        task_types=types,
        row_tree=None if tree is None else whole_tree(tree),
        selected=selection.experts,
        mode=mode(),
    )


def _ordered(routes: xr.DataArray, grouping: RouteGrouping, *, order: str) -> list[str]:
    names = [str(name) for name in routes["task"].values]
    if order == "model":
        return names
    clustered = [str(grouping.labels.index[place]) for place in grouping.order.order]
    if order == "clustered":
        return clustered
    types = dict(zip(names, map(str, routes["task_type"].values), strict=True))
    kinds = list(dict.fromkeys(types.values()))
    return sorted(clustered, key=lambda name: kinds.index(types[name]))


def _shown(task: str, trace: RoutingTrace, selection: Selection) -> bool:
    # Tasks that the model knows and the run does not have cannot be selected, nor left out.
    return not selection.tasks or task in selection.tasks or task not in trace.tasks


def _features(trace: RoutingTrace, selection: Selection) -> None:
    table = cache.answer(trace, feature_correlation)
    table = table.sel(layer=list(selection.layers or trace.layers))
    if not table.sizes["feature"]:
        headings.part("Which experts go with a type of task")
        empty("No type is shared by several tasks of this run.", "Record more tasks of each type.")
        return
    panel(
        "Which experts go with a type of task",
        feature_dots(table, mode=mode()),
        key="routes_features",
        reading=task_sentences.of_features(table)
        + " Experts of a layer are not independent: what one gains, another loses.",
        table=lambda: table[["r", "p_value", "p_any"]].to_dataframe().dropna(subset=["r"]).reset_index(),
        definitions=("feature_correlation",),
    )


def _entropy(trace: RoutingTrace, asked: RouteMode) -> None:
    entropy = cache.answer(trace, route_entropy, mode=asked)
    panel(
        "How far tasks part ways in each layer",
        layer_tracks(
            entropy,
            (
                Track(column="effective_experts", title="effective experts", number_format=".2f"),
                Track(column="task_entropy", title="entropy of a task (nats)"),
                Track(column="specialization", title="specialization (nats)"),
            ),
            mode=mode(),
        ),
        key="routes_entropy",
        reading=told.of_entropy(entropy),
        table=lambda: entropy.reset_index(),
        definitions=("route_entropy",),
    )


def _alike(trace: RoutingTrace, grouping: RouteGrouping, asked: RouteMode) -> None:
    alike = cache.answer(trace, route_similarity, mode=asked)
    names = [str(grouping.labels.index[place]) for place in grouping.order.order]
    values = alike.sel(task=names, other=names).to_numpy().copy()
    np.fill_diagonal(values, np.nan)
    types = dict(zip(map(str, alike["task"].values), map(str, alike["task_type"].values), strict=True))
    panel(
        "Which tasks are routed alike",
        matrix_heatmap(
            values,
            rows=names,
            columns=names,
            scale=similarity_scale([values]),
            value_text="cosine of their routes %{z:.3f}",
            absent_name="itself",
            row_types=types,
            mode=mode(),
        ),
        key="routes_alike",
        reading=told.of_likeness(values, types=[types[name] for name in names])
        + " Tasks stand in the order of their clusters, found on these numbers.",
        table=lambda: alike.to_dataframe(name="cosine").reset_index(),
        definitions=("route_similarity", "route_grouping"),
    )


def _dynamics(trace: RoutingTrace, selection: Selection) -> None:
    found = route_snapshots(trace)
    headings.section("How the routes came to be")
    if found is None or len(found.traces) < 2:
        empty(
            "No routes of earlier steps lie beside this run's checkpoint.",
            "The recipe `python -m moe_models.recipes.task_moe` writes them to routes.npz; record from that folder.",
        )
        return
    if not found.lead_here:
        empty(
            "The routes beside this run's checkpoint do not lead to those of this run: they are of another training.",
            "The checkpoint was replaced since; record it again.",
        )
        return
    steps = {str(step): each for step, each in found.traces.items()}
    dynamics = cache.answer_over(steps, route_dynamics, mode="route_softmax_t1", min_tasks=_TASKS_FOLLOWED, n=2)
    _snapshot(found, selection)
    left, right = st.columns(2, gap="large")
    with left:
        entropy = dynamics.entropy.reset_index()
        panel(
            "How far tasks part ways, over training",
            training_curves(entropy, value="specialization", value_title="specialization (nats)", mode=mode()),
            key="routes_over_training",
            reading=told.of_dynamics(dynamics.entropy),
            table=lambda: entropy,
            definitions=("route_entropy", "route_dynamics"),
        )
    with right:
        if dynamics.correlations.empty:
            empty("No type is shared by several tasks.", "With more tasks of each type, experts can be followed.")
            return
        panel(
            "Experts that go with a type at the end, over training",
            correlation_curves(dynamics.correlations, mode=mode()),
            key="routes_correlations",
            reading=told.of_correlations(dynamics.correlations),
            table=lambda: dynamics.correlations.reset_index(),
            definitions=("route_dynamics", "feature_correlation"),
        )


def _snapshot(found: Snapshots, selection: Selection) -> None:
    steps = list(found.traces)
    step = int(choices.chosen("step", [str(each) for each in steps], default=str(steps[-1])))
    trace = found.traces[step]
    routes = cache.answer(trace, task_routes, mode="route_softmax_t1")
    rows: Sequence[str] = list(trace.tasks)
    stage, within = found.stages[step]
    panel(
        "The routes at one step",
        _figure(cells_of(routes, exists=trace.expert_exists, rows=rows), routes, selection, tree=None),
        key="routes_snapshot",
        reading=told.of_snapshot(
            step=within,
            temperature=found.temperatures[step],
            stage=stage if len({each for each, _ in found.stages.values()}) > 1 else None,
            n_tasks=len(rows),
        ),
        table=lambda: _rows(routes),
        definitions=("task_routes",),
        controls=lambda: choices.choose(
            "Step", [str(each) for each in steps], name="step", default=str(steps[-1]), kind="slider"
        ),
    )


def _rows(routes: xr.DataArray) -> pd.DataFrame:
    return routes.to_dataframe(name="share").dropna().reset_index()
