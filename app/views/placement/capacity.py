"""What a capacity would drop, and who would lose by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st
import xarray as xr

from app import choices, slow_answers, state
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.sentences import escaped
from app.views.placement import questions as placement_questions
from app.views.placement import sentences as told
from figures.curves import capacity_curve, layer_curves
from figures.dots import interval_dots
from figures.theme import PERCENT_TICKS
from routing import RoutingTrace, Selection

__all__ = ["capacity_panels"]

_QUEUES = {"token": "token by token", "rank": "first choices first"}
_MOST_AT_ONCE = 1_000_000
_FEW = 12


def capacity_panels(trace: RoutingTrace, selection: Selection, *, batch_size: int) -> None:
    """Draw drops by capacity factor and layer, then by position and by task.

    Args:
        trace: the trace.
        selection: what the user looks at.
        batch_size: prompts a batch.
    """
    within = replace(selection, experts=(), focus=None)
    factors = [f"{factor:g}" for factor in placement_questions.FACTORS[:-1]]
    priority = choices.chosen("queue", list(_QUEUES))
    factor = float(choices.chosen("capacity", factors, default="1.25"))
    tables = slow_answers.tables(
        trace,
        placement_questions.capacity_tables,
        what="Queues are being laid down",
        slow=slow_answers.cells_to_scan(trace) > _MOST_AT_ONCE,
        within=within,
        batch_size=batch_size,
        priority=priority,
    )
    if tables is None:
        return
    drops = placement_questions.capacity_of_tables(tables)
    rate = drops["drop_rate"].sel(factor=factor).to_series().dropna()
    if rate.empty:
        empty("No token of this selection was read in a pass.", "Clear a task or a layer above.")
        return

    def controls() -> None:
        with st.container(horizontal=True, gap="large"):
            choices.choose(
                "Capacity factor",
                factors,
                name="capacity",
                default="1.25",
                help="An expert takes this many times its even share of a pass; what comes later is dropped.",
            )
            choices.choose(
                "Who queues first",
                list(_QUEUES),
                name="queue",
                shown=_QUEUES.__getitem__,
                help="Token by token, later texts of a batch lose; first choices first, second choices lose.",
            )

    panel(
        "Assignments dropped, by capacity factor and layer",
        capacity_curve(drops, mode=mode()),
        key="placement_capacity",
        reading=told.of_drops(drops, factor=factor),
        table=lambda: tables["layers"],
        definitions=("capacity_drops",),
        controls=controls,
    )
    layers = [str(layer) for layer in rate.index]
    layer = choices.chosen("layer", layers, default=str(rate.idxmax()))
    choices.choose(
        "Who loses in",
        layers,
        name="layer",
        default=str(rate.idxmax()),
        kind="segmented" if len(layers) <= _FEW else "select",
    )
    left, right = st.columns(2, gap="large")
    with left:
        _by_position(drops, tables, factor=factor, layer=layer)
    with right:
        _by_task(selection, drops, tables, factor=factor, layer=layer)


def _by_position(drops: xr.Dataset, tables: placement_questions.Tables, *, factor: float, layer: str) -> None:
    rates = drops["drop_rate_by_position"].sel(factor=factor)
    here = _parts(drops, "position", factor=factor, layer=layer)
    panel(
        "By position in the text",
        layer_curves(
            rates["position"].values.tolist(),
            rates.transpose("layer", "position").to_numpy(),
            layers=[str(each) for each in rates["layer"].values],
            place_title="position",
            value_title="share of assignments dropped",
            reference=np.full(rates.sizes["position"], float(drops["even_router"].sel(factor=factor).mean())),
            reference_name="an even router",
            band=(layer, here["low"].to_numpy(float), here["high"].to_numpy(float)),
            number_format=".1%",
            mode=mode(),
        ).update_layout(yaxis_tickformat=PERCENT_TICKS),
        key="placement_by_position",
        reading=told.of_losers(here, what="position", layer=layer, overall=_overall(drops, factor, layer)),
        table=lambda: tables["positions"],
        definitions=("capacity_drops",),
    )


def _by_task(
    selection: Selection, drops: xr.Dataset, tables: placement_questions.Tables, *, factor: float, layer: str
) -> None:
    rates = _parts(drops, "task", factor=factor, layer=layer).dropna(subset="rate")
    rates = rates.sort_values("rate", ascending=False, kind="stable")
    tasks = [str(task) for task in rates.index]
    overall = _overall(drops, factor, layer)

    def clicked(click: Click) -> None:
        task = (tasks[round(click.y)],)
        state.select(replace(selection, tasks=() if selection.tasks == task else task))

    panel(
        f"By task, in {escaped(layer)}",
        interval_dots(
            tasks,
            {"dropped": tuple(rates[name].to_numpy(float) for name in ("rate", "low", "high"))},
            value_title="share of its assignments dropped",
            marks={"all tasks": np.full(len(tasks), overall)},
            number_format=".1%",
            mode=mode(),
        ).update_layout(xaxis_tickformat=PERCENT_TICKS, xaxis_rangemode="tozero"),
        key="placement_by_task",
        reading=told.of_losers(rates, what="task", layer=layer, overall=overall) + " Click a task to look at it alone.",
        table=lambda: tables["tasks"],
        definitions=("capacity_drops",),
        on_click=clicked,
    )


def _parts(drops: xr.Dataset, name: str, *, factor: float, layer: str) -> pd.DataFrame:
    """(task or position) · rate, low, high."""
    column = f"drop_rate_by_{name}"
    parts = {"rate": column, "low": f"{column}_low", "high": f"{column}_high"}
    here = drops.sel(factor=factor, layer=layer)
    return pd.DataFrame({key: here[value].to_series() for key, value in parts.items()})


def _overall(drops: xr.Dataset, factor: float, layer: str) -> float:
    return float(drops["drop_rate"].sel(factor=factor, layer=layer))
