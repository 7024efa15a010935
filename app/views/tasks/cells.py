"""Tasks × experts, cell by cell: the heatmap of the view Tasks, its orders, colors and zoom."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import streamlit as st
import xarray as xr

from analysis.load import expert_load
from app import cache, choices, state
from app.components.plot_bridge import Click, Label, Range, Tooltip
from app.panel import mode, panel
from app.views.tasks import sentences as task_sentences
from app.views.tasks.cell_rows import cell_rows
from app.views.tasks.made_of import of_cell
from app.views.tasks.orders import tested
from app.views.tasks.part import pick
from app.views.tasks.table import (
    COLUMNS,
    ROWS,
    Asked,
    Ordered,
    Window,
    column_types,
    experts_in_order,
    groups_in_order,
    tree_of_columns,
    tree_of_rows,
)
from figures.grid import ColorScale, log2_scale
from figures.task_heatmap import MOST_TOLD, Cells, cells_of, task_expert_heatmap
from figures.theme import PERCENT_TICKS
from figures.trees import Tree
from routing import RoutingTrace, Selection, expert_name

__all__ = ["draw_cells"]

_VALUES: tuple[Literal["lift", "rate", "load"], ...] = ("lift", "rate", "load")
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
_OVER: tuple[Literal["task", "task_type"], ...] = ("task", "task_type")
_OVER_NAMES = {"task": "tasks", "task_type": "task types"}
_ALL_LAYERS = "all layers"
_MOST_DOUBLINGS = 4.0


def draw_cells(trace: RoutingTrace, selection: Selection) -> None:
    """Draw how much each task uses each expert, against what all prompts do."""
    asked = Asked(
        values=choices.chosen("values", _VALUES),
        over=choices.chosen("over", _OVER),
        rows=choices.chosen("rows", tuple(ROWS)),
        columns=choices.chosen("columns", tuple(COLUMNS)),
    )
    _heatmap(trace, selection, asked)


def _heatmap(trace: RoutingTrace, selection: Selection, asked: Asked) -> None:
    # Orders first: of a large run, one thing after another is found beside the page, and these take seconds.
    trees = tree_of_rows(trace, selection, asked), tree_of_columns(trace, selection, asked)
    special = tested(trace, over=asked.over)
    n_permutations = int(special.attrs["n_permutations"])
    layers = list(selection.layers or trace.layers)
    # A large table is copied only where a part of it is shown.
    special = special.sel(layer=layers) if selection.layers else special
    rows = groups_in_order(trace, selection, asked, special=special, found=trees[0])
    columns = experts_in_order(trace, selection, asked, special=special, found=trees[1])
    groups, experts = rows.names, columns.names
    special = special.sel(group=groups) if len(groups) < special.sizes["group"] else special
    values = special[asked.values] if asked.values != "load" else _load(trace, asked, groups=groups, layers=layers)
    shape = (len(groups), len(experts))
    window = Window.from_text(state.option("zoom"), asked, shape=shape)
    (top, bottom), (left, right) = (window.rows, window.columns) if window else ((0, shape[0]), (0, shape[1]))
    muted = None
    if asked.values == "lift" and n_permutations:
        muted = ~special["significant"].astype(bool) & special["lift"].notnull()
    cells = cells_of(
        values,
        exists=trace.expert_exists,
        rows=groups[top:bottom],
        columns=experts[left:right],
        muted=muted,
        details=((special["lift"], np.exp2), special["rate"], special["q_value"]),
    )
    figure = task_expert_heatmap(
        cells,
        scale=_scale(values, muted, asked, unit=str(values.attrs.get("unit", "share"))),
        value_text=_hover(asked, tested=n_permutations > 0, weighed=_weighed(special)),
        task_types=trace.task_types if asked.over == "task" else {name: name for name in groups},
        row_tree=_tree(rows, first=top, n_pooled=1),
        column_tree=_tree(columns, first=left, n_pooled=cells.n_pooled),
        blocks=asked.columns == "layer" or columns.waits,
        selected=selection.experts,
        names=trace.expert_names,
        column_types=column_types(trace) if asked.columns != "layer" and n_permutations else None,
        mode=mode(),
    )

    def clicked(click: Click) -> None:
        if isinstance(click.customdata, int):
            _pick_group(trace, selection, cells.groups[click.customdata], over=asked.over)
            return
        pick(selection, cells.at(float(click.x), float(click.y))[1])

    def named(label: Label) -> None:
        if label.axis == "y":
            _pick_group(trace, selection, cells.groups[round(label.at)], over=asked.over)
        elif len(layers) == 1:
            pick(selection, cells.experts[int(cells.columns[round(label.at)])])
        else:
            layer = cells.experts[int(cells.columns[round(label.at)])][0]
            state.select(replace(selection, layers=(layer,)))

    def zoomed(seen: Range | None) -> None:
        found = None if seen is None else Window.of_range(seen, cells, origin=(top, left))
        whole = found is None or (found.rows, found.columns) == ((0, shape[0]), (0, shape[1]))
        state.set_options(zoom=None if found is None or whole else found.to_text(asked, shape=shape))

    panel(
        f"{_TITLES[asked.values]}, {_OVER_NAMES[asked.over]} × experts",
        figure,
        key="tasks_heatmap",
        reading=_reading(special, values, asked, picked=selection.experts)
        + _pooling(cells)
        + _of_orders(trace, rows, columns, asked)
        + _part(window, shape),
        table=lambda: cell_rows(special, groups=groups[top:bottom], experts=experts[left:right]),
        definitions=_DEFINITIONS[asked.values],
        made_of=of_cell(special, picked=selection.experts),
        on_click=clicked,
        controls=lambda: _controls(trace, selection, zoomed=window is not None),
        on_label=named,
        on_range=zoomed,
        tooltip=_tooltip(trace, cells, asked, tested=n_permutations > 0) if cells.values.size > MOST_TOLD else None,
    )


def _of_orders(trace: RoutingTrace, rows: Ordered, columns: Ordered, asked: Asked) -> str:
    return task_sentences.of_orders(
        rows=_n_leaves(rows),
        columns=_n_leaves(columns),
        n_experts=len(columns.names),
        n_tasks=len(trace.tasks),
        values=_VALUE_NAMES[asked.values],
    )


def _n_leaves(ordered: Ordered) -> int | None:
    found = ordered.clustered
    return None if found is None or found.linkage is None else len(found.linkage) + 1


def _tree(ordered: Ordered, *, first: int, n_pooled: int) -> Tree | None:
    """The tree beside rows or columns that it ordered, in drawn cells."""
    if ordered.clustered is None:
        return None
    return ordered.clustered.tree(
        {name: (place - first + 0.5) / n_pooled - 0.5 for place, name in enumerate(ordered.names)}
    )


def _pick_group(trace: RoutingTrace, selection: Selection, group: str, *, over: str) -> None:
    """Make a row's tasks the selection, or let them go."""
    tasks = (group,) if over == "task" else tuple(t for t, kind in trace.task_types.items() if kind == group)
    state.select(replace(selection, tasks=() if selection.tasks == tasks else tasks))


def _tooltip(trace: RoutingTrace, cells: Cells, asked: Asked, *, tested: bool) -> Tooltip:
    assert cells.details is not None
    lines = [("{} of the layer's assignments", cells.values, "percent")] if asked.values == "load" else []
    lines.append(("{} its overall use", np.log2(np.maximum(cells.details[..., 0], 1e-3)), "ratio"))
    lines.append(("{} of the tokens", cells.details[..., 1], "percent"))
    if tested:
        lines.append(("q {} against shuffled prompts", cells.details[..., 2], "number"))
    names = tuple(expert_name(*expert, names=trace.expert_names) for expert in cells.experts)
    return Tooltip(rows=cells.groups, columns=names, source=np.asarray(cells.source), lines=tuple(lines))


def _part(window: Window | None, shape: tuple[int, int]) -> str:
    if window is None:
        return " Drag over a part to zoom into it; click the name of a row or of a layer to select it."
    (top, bottom), (left, right) = window.rows, window.columns
    return (
        f" This is a part: rows {top + 1} to {bottom} of {shape[0]}, experts {left + 1:,} to {right:,} of {shape[1]:,} "
        "in this order."
    )


def _controls(trace: RoutingTrace, selection: Selection, *, zoomed: bool) -> None:
    def layer_picked(layer: str) -> None:
        state.select(replace(selection, layers=() if layer == _ALL_LAYERS else (layer,)))

    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        choices.choose(
            "Color",
            _VALUES,
            name="values",
            shown=_VALUE_NAMES.__getitem__,
            help="Lift: use by the task over use by all. Rate: share of the task's tokens that choose the expert. "
            "Load: share of the layer's work for the task.",
        )
        choices.choose("Rows", _OVER, name="over", shown=_OVER_NAMES.__getitem__)
        for label, name, orders in (("Order of rows", "rows", ROWS), ("Order of experts", "columns", COLUMNS)):
            with st.container(width=160):
                choices.choose(label, tuple(orders), name=name, shown=orders.__getitem__, kind="select")
        with st.container(width=130):
            current = selection.layers[0] if len(selection.layers) == 1 else _ALL_LAYERS
            choices.choose_one(
                "Layer",
                [_ALL_LAYERS, *trace.layers],
                key="one_layer",
                chosen=current,
                on_change=layer_picked,
            )
        if zoomed:
            st.button(
                "Whole table",
                icon=":material/zoom_out_map:",
                key="whole_table",
                on_click=state.set_options,
                kwargs={"zoom": None},
            )


def _load(trace: RoutingTrace, asked: Asked, *, groups: list[str], layers: list[str]) -> xr.DataArray:
    load = cache.answer(trace, expert_load, by=asked.over)
    return load.rename({asked.over: "group"}).sel(group=groups, layer=layers)


def _weighed(special: xr.Dataset) -> bool:
    return special.attrs.get("measure") == "routed weight"


def _scale(values: xr.DataArray, muted: xr.DataArray | None, asked: Asked, *, unit: str) -> ColorScale:
    """Colors of the whole table, so that a part of it keeps them."""
    numbers = values.to_numpy()
    if asked.values == "lift":
        counted = numbers if muted is None else numbers[~muted.to_numpy()]
        # One cell in twenty may pass the ends: a task that shuns an expert altogether must not pale all others.
        return log2_scale([counted], title="use ÷ overall use", most=_MOST_DOUBLINGS, quantile=0.95)
    return ColorScale(title=unit, low=0.0, high=float(np.nanmax(numbers, initial=0.01)), tick_format=PERCENT_TICKS)


def _hover(asked: Asked, *, tested: bool, weighed: bool) -> str:
    chance = "<br>q %{customdata[2]:.3f} against shuffled prompts" if tested else ""
    lines = (
        "×%{customdata[0]:.2f} its overall use<br>%{customdata[1]:.1%} of the "
        + ("weight" if weighed else "tokens")
        + chance
    )
    of_layer = f"%{{z:.1%}} of the layer's {'weight' if weighed else 'assignments'}<br>"
    return of_layer + lines if asked.values == "load" else lines


def _reading(
    special: xr.Dataset, values: xr.DataArray, asked: Asked, *, picked: tuple[tuple[str, int], ...] = ()
) -> str:
    if asked.values == "lift":
        shown = [expert for expert in picked if expert[0] in special["layer"].values]
        told = task_sentences.of_expert(special, *shown[0]) if len(shown) == 1 else ""
        waits = not special.attrs["n_permutations"] and special.attrs.get("waits")
        beyond = task_sentences.OF_WAITING if waits else task_sentences.of_lift(special)
        return f"{beyond} {told}".strip()
    of = ("weight", "weight") if _weighed(special) else ("tokens", "assignments")
    what = f"of its {of[0]}" if asked.values == "rate" else f"of its {of[1]} in that layer"
    return task_sentences.of_values(values, what=what, names=special.attrs.get("expert_names"))


def _pooling(cells: Cells) -> str:
    if cells.n_pooled == 1:
        return ""
    return f" Each column stands for {cells.n_pooled} neighbors and shows, row by row, the one that stands out most."
