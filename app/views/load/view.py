"""Load: who does the work, where is it unbalanced, and for which tasks?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st
import xarray as xr

from analysis.experts import expert_profile
from analysis.load import expert_load, idle_experts, load_balance
from app import cache, choices, headings, sentences, state
from app.components.plot_bridge import Click, Label
from app.links import expert_link, tell_lost_run
from app.panel import data_popover, definitions_popover, empty, mode, panel
from app.runs import Run
from app.training import CURVES, training_panels
from app.views.load import panels as load_panels
from app.views.load.made_of import of_worst_layer
from app.views.load.orders import COLUMNS, ROWS, Arranged, arranged, of_order
from app.views.load.verdicts import verdicts
from app.views.tasks.part import pick
from figures.bars import share_bars
from figures.heatmap import load_heatmap
from figures.lines import Track, layer_tracks
from routing import RoutingTrace, Selection, expert_name

__all__ = ["render"]

_THRESHOLDS = ("1.25", "1.5", "2", "3")
_NO_RUN = "no other run"


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    if trace.n_tokens == 0 and trace.level != "counts":
        empty("This run holds no tokens yet.", "Let the recording run on, and reload the page.")
        return
    within = replace(selection, experts=(), focus=None)
    balance = cache.answer(trace, load_balance, within=within)
    if balance["max_over_mean"].isna().all():
        empty("No token of this selection was routed.", "Clear a task or a layer above.")
        return
    threshold = float(choices.chosen("uneven", _THRESHOLDS, default="1.5"))
    # Drawn later it would push the rest down; where it takes long it leaves its place and comes by itself.
    with st.container(key="load_answer"):
        verdicts(trace, selection, batch_size=load_panels.batch_size())
    part = choices.choose(
        "Part", list(load_panels.PARTS), name="part", shown=load_panels.PARTS.__getitem__, label_visibility="collapsed"
    )
    match part:
        case "passes":
            load_panels.passes(trace, selection, balance=balance)
        case "places":
            load_panels.places(trace, selection)
        case "causes":
            load_panels.causes(trace, selection, balance=balance, threshold=threshold)
        case "run":
            load_panels.course(trace, selection, balance=balance)
        case _:
            _experts(trace, selection, within, balance=balance, threshold=threshold)


def _experts(
    trace: RoutingTrace, selection: Selection, within: Selection, *, balance: pd.DataFrame, threshold: float
) -> None:
    other = _other(trace, within)
    load = cache.answer(trace, expert_load, within=within)
    _heatmap(trace, selection, load=load, balance=balance, threshold=threshold, other=other)
    _tracks(balance=balance, threshold=threshold, other=other)
    left, right = st.columns(2, gap="large")
    with left:
        _drivers(trace, selection, within, balance=balance)
    with right:
        _idle(trace, within)
    training_panels(trace, CURVES["max_over_mean"], heading="Since when", key="load")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Other:
    """The run to compare with, narrowed as this one is as far as it can be."""

    name: str
    trace: RoutingTrace
    load: xr.DataArray
    balance: pd.DataFrame


def _others(trace: RoutingTrace) -> dict[str, Run]:
    return {run.name: run for run in cache.runs() if run.path != str(trace.path)}


def _other(trace: RoutingTrace, within: Selection) -> _Other | None:
    tell_lost_run("base")
    name = state.option("base", _NO_RUN) or _NO_RUN
    run = _others(trace).get(name)
    if run is None:
        return None
    base = cache.trace_of(run)
    shared = within.held_by(base)
    return _Other(
        name=name,
        trace=base,
        load=cache.answer(base, expert_load, within=shared),
        balance=cache.answer(base, load_balance, within=shared),
    )


def _heatmap(
    trace: RoutingTrace,
    selection: Selection,
    *,
    load: xr.DataArray,
    balance: pd.DataFrame,
    threshold: float,
    other: _Other | None,
) -> None:
    rows, columns = choices.chosen("layer_order", list(ROWS)), choices.chosen("expert_order", list(COLUMNS))
    within = replace(selection, experts=(), focus=None)
    order = arranged(trace, within=within, load=load, balance=balance, rows=rows, columns=columns)

    def clicked(click: Click) -> None:
        pick(selection, order.at(round(click.y), round(click.x)))

    def named(label: Label) -> None:
        if label.axis == "y":
            layer = (order.layers[round(label.at)],)
            state.select(replace(selection, layers=() if selection.layers == layer else layer))
        else:
            experts = tuple(order.at(row, round(label.at)) for row in range(len(order.layers)))
            there = tuple(each for each in experts if bool(trace.expert_exists.sel(layer=each[0], expert=each[1])))
            state.select(replace(selection, experts=() if selection.experts == there else there))

    panel(
        "Load of every expert against the even share of its layer",
        load_heatmap(
            load.sel(layer=order.layers),
            exists=trace.expert_exists.sel(layer=order.layers),
            selected=selection.experts,
            beside=None if other is None else other.load,
            order=order.experts,
            row_tree=order.tree,
            names=trace.expert_names,
            mode=mode(),
        ),
        key="load_heatmap",
        reading=sentences.of_balance(balance, threshold=threshold)
        + of_order(order, rows=rows, columns=columns)
        + " Click a cell to look at that expert, or the name of a layer to select it.",
        table=lambda: load.to_dataframe(name="load").dropna().reset_index(),
        definitions=("expert_load", "max_over_mean"),
        made_of=of_worst_layer(balance),
        on_click=clicked,
        on_label=named,
        controls=lambda: _controls(trace),
    )
    if other is not None:
        _other_heatmap(other, order, load=load, threshold=threshold)


def _controls(trace: RoutingTrace) -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        choices.choose(
            "A layer is uneven above",
            _THRESHOLDS,
            name="uneven",
            default="1.5",
            shown=lambda each: f"{each} ×",
            help="The load of the busiest expert over the mean load of its layer.",
        )
        for label, name, orders in (("Order of layers", "layer_order", ROWS), ("of experts", "expert_order", COLUMNS)):
            with st.container(width=170):
                choices.choose(label, list(orders), name=name, shown=orders.__getitem__, kind="select")
        if others := _others(trace):
            with st.container(width=300):
                choices.choose("Compare with", [_NO_RUN, *others], name="base", kind="select")


def _other_heatmap(other: _Other, order: Arranged, *, load: xr.DataArray, threshold: float) -> None:
    held = {str(layer) for layer in other.load["layer"].values}
    layers = [layer for layer in order.layers if layer in held]
    # The same expert in the same place, where both runs have the same ones.
    same = len(layers) == len(order.layers) == len(held) and other.load.sizes["expert"] == load.sizes["expert"]
    layers = layers if same else [str(layer) for layer in other.load["layer"].values]
    panel(
        f"The same in {sentences.escaped(other.name)}",
        load_heatmap(
            other.load.sel(layer=layers),
            exists=other.trace.expert_exists.sel(layer=layers),
            beside=load,
            order=order.experts if same else None,
            mode=mode(),
        ),
        key="load_heatmap_base",
        reading=sentences.of_balance(other.balance, threshold=threshold),
        table=lambda: other.load.to_dataframe(name="load").dropna().reset_index(),
        definitions=("expert_load", "max_over_mean"),
    )


def _tracks(*, balance: pd.DataFrame, threshold: float, other: _Other | None) -> None:
    tracks = (
        Track(column="max_over_mean", title="max ÷ mean load", threshold=threshold),
        Track(column="cv", title="coefficient of variation"),
        Track(column="entropy_normalized", title="normalized entropy (1 = even)", number_format=".3f"),
        Track(column="effective_experts", title="effective experts", number_format=".1f"),
    )
    if other is not None:
        reading = sentences.of_comparison(balance, other.balance, name=other.name)
    else:
        reading = (
            "Bars are 95 % intervals from drawing prompts again; entropy 1 and as many effective experts as there "
            "are experts mean an even layer."
        )
    panel(
        "How even each layer is",
        layer_tracks(
            balance,
            tracks,
            other=None if other is None else other.balance,
            names=("this run", _NO_RUN if other is None else other.name),
            mode=mode(),
        ),
        key="load_tracks",
        reading=reading,
        table=lambda: _with_other(balance, other),
        definitions=("load_balance", *(track.column for track in tracks)),
        made_of=of_worst_layer(balance),
    )


def _with_other(balance: pd.DataFrame, other: _Other | None) -> pd.DataFrame:
    rows = balance.reset_index()
    if other is None:
        return rows
    return pd.concat(
        [rows.assign(run="this run"), other.balance.reset_index().assign(run=other.name)], ignore_index=True
    )


def _drivers(trace: RoutingTrace, selection: Selection, within: Selection, *, balance: pd.DataFrame) -> None:
    hottest = str(balance["max_over_mean"].idxmax())
    layer, expert = selection.experts[0] if selection.experts else (hottest, int(balance.loc[hottest, "hottest"]))
    profile = cache.answer(trace, expert_profile, within=replace(within, layers=()), layer=layer, expert=expert)
    which = "The picked expert" if selection.experts else "The busiest expert"
    name = sentences.escaped(expert_name(layer, expert, names=trace.expert_names))
    panel(
        f"{which}, {name}: which tasks bring it work",
        share_bars(profile.by_task, task_types=trace.task_types, unit=trace.unit, mode=mode()),
        key="load_drivers",
        reading=sentences.of_drivers(profile, layer=layer, expert=expert, unit=trace.unit),
        table=lambda: profile.by_task.reset_index(),
        definitions=("expert_profile",),
    )
    expert_link(trace, layer, expert)


def _idle(trace: RoutingTrace, within: Selection) -> None:
    idle = cache.answer(trace, idle_experts, within=within)
    n_experts = int(trace.expert_exists.sel(layer=list(within.layers or trace.layers)).sum())
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        headings.part("Idle experts", width="stretch")
        definitions_popover(("idle_experts",), key="idle")
        data_popover(lambda: idle, key="idle", definitions=("idle_experts",))
    st.markdown(sentences.of_idle(idle, n_experts=n_experts))
    if not idle.empty:
        shown = pd.DataFrame(
            {
                "expert": [
                    expert_name(*each, names=trace.expert_names)
                    for each in zip(idle["layer"], idle["expert"], strict=True)
                ],
                "tokens": idle["n_tokens"],
                "prompts": idle["n_prompts"],
                "chance by tokens": idle["chance_idle"].map(sentences.chance),
                "chance by prompts": idle["chance_idle_prompts"].map(sentences.chance),
            }
        )
        st.dataframe(shown, hide_index=True, height=min(360, 38 + 35 * len(shown)))
