"""Unselected: what did the router almost do?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from analysis.confidence import margins, routing_entropy
from analysis.runners_up import near_ties, runner_up_matrix
from app import cache, choices, headings, state
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.views.adapters.panels import adapter_panels
from app.views.unselected import sentences as told
from figures.grid import ColorScale, log2_scale
from figures.margins import spread_by_layer
from figures.square import matrix_heatmap
from figures.theme import PERCENT_TICKS
from routing import RoutingTrace, Selection

__all__ = ["render"]

_WITHIN = ("0.001", "0.005", "0.01", "0.05")
_SECOND = {"lift": "against independence", "share": "share"}
_MOST_DOUBLINGS = 3.0


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    if trace.n_tokens == 0:
        empty("This run holds no token, so nothing says what the router almost did.", "What its weights say:")
        adapter_panels(trace, selection)
        return
    within = replace(selection, experts=(), focus=None)
    if trace.dense_routing:
        empty(
            "Every expert of this run is always selected, so none comes second.",
            "How they are weighed is on the Routes view.",
        )
    elif trace.n_ranks <= min(facts.top_k for facts in trace.layer_facts):
        empty(
            "This run keeps no runner-up, so nothing says what the router almost did.",
            "Record it again with `--runners-up 1` or more.",
        )
    else:
        spread = cache.answer(trace, margins, within=within, by=None)
        if not spread["n_tokens"].any():
            empty("No token of this selection was routed.", "Clear a task, a prompt or a layer above.")
        else:
            _confidence(trace, within, spread)
            _ties(trace, selection, within)
            _second(trace, selection, within)
    adapter_panels(trace, selection)


def _confidence(trace: RoutingTrace, within: Selection, spread: pd.DataFrame) -> None:
    undecided = cache.answer(trace, routing_entropy, within=within, by=None) if trace.level == "full" else None
    left, right = st.columns(2, gap="large")
    with left:
        panel(
            "How far ahead the selected were",
            spread_by_layer(spread, value_title="margin (selection score)", reference=0.0, mode=mode()),
            key="unselected_margins",
            reading=told.of_margins(spread, unit=trace.unit, undecided=undecided),
            table=lambda: cache.answer(trace, margins, within=within, by="task").reset_index(),
            definitions=("margins",),
        )
    with right:
        if undecided is None:
            headings.part("How undecided the router was")
            empty("An entropy needs logits, which this run does not hold.", "Record it at level `full`.")
            return
        panel(
            "How undecided the router was",
            spread_by_layer(undecided, value_title="entropy (share of ln experts)", mode=mode()),
            key="unselected_entropy",
            reading=told.of_entropies(undecided),
            table=lambda: cache.answer(trace, routing_entropy, within=within, by="task").reset_index(),
            definitions=("routing_entropy",),
        )


def _ties(trace: RoutingTrace, selection: Selection, within: Selection) -> None:
    margin = float(choices.chosen("tie", _margins(), default="0.01"))
    layers = cache.answer(trace, near_ties, within=within, by=None, at_most=margin)
    tasks = cache.answer(trace, near_ties, within=within, by="task", at_most=margin)
    shares = tasks["share"].unstack("layer").reindex(columns=list(layers.index))
    shares = shares.reindex([task for task in trace.tasks if task in shares.index])
    bounds = [tasks[name].unstack("layer").reindex_like(shares).to_numpy() for name in ("share_low", "share_high")]

    def clicked(click: Click) -> None:
        task, layer = str(shares.index[round(click.y)]), str(shares.columns[round(click.x)])
        same = selection.tasks == (task,) and selection.layers == (layer,)
        state.select(replace(selection, tasks=() if same else (task,), layers=() if same else (layer,)))

    panel(
        "Near ties, task by task",
        matrix_heatmap(
            shares.to_numpy(float),
            rows=[str(task) for task in shares.index],
            columns=[str(layer) for layer in shares.columns],
            scale=ColorScale(
                title=f"share of {trace.unit}s",
                low=0.0,
                high=float(np.nanmax(shares, initial=0.01)),
                tick_format=PERCENT_TICKS,
            ),
            value_text="%{z:.1%} of its " + trace.unit + "s (95 %: %{customdata[0]:.1%} to %{customdata[1]:.1%})",
            details=np.stack(bounds, axis=-1),
            row_title="task",
            column_title="layer",
            row_types=trace.task_types,
            absent_name="no margin known",
            mode=mode(),
        ),
        key="unselected_ties",
        reading=told.of_near_ties(layers, tasks, within=margin, unit=trace.unit),
        table=lambda: tasks.reset_index(),
        definitions=("near_ties",),
        on_click=clicked,
        controls=lambda: choices.choose(
            "A tie is a margin of at most",
            _margins(),
            name="tie",
            default="0.01",
            help="In selection scores: the scale of the router's softmax or sigmoid.",
        ),
    )


def _margins() -> tuple[str, ...]:
    """Margins to choose from, with one that a link asks for."""
    asked = state.option("tie") or ""
    try:
        known = {float(each) for each in _WITHIN} | {float(asked)}
    except ValueError:
        return _WITHIN
    return tuple(f"{each:.5g}" for each in sorted(each for each in known if 0 < each < 1))


def _second(trace: RoutingTrace, selection: Selection, within: Selection) -> None:
    ranked = [facts.label for facts in trace.layer_facts if facts.top_k < min(trace.n_ranks, facts.n_experts)]
    labels = [label for label in ranked if not selection.layers or label in selection.layers]
    if not labels:
        return
    wanted = selection.experts[0][0] if selection.experts else labels[len(labels) // 2]
    layer = choices.chosen("layer", labels, default=wanted if wanted in labels else labels[0])
    shown = choices.chosen("second", tuple(_SECOND))
    table = cache.answer(trace, runner_up_matrix, within=replace(within, layers=()), layer=layer)
    names = [_short(trace, layer, int(e)) for e in table["expert"].values]
    lift = table["lift"].to_numpy()
    z = table["share"].to_numpy() if shown == "share" else np.where(np.isfinite(lift), lift, np.nan)
    details = [
        np.exp2(lift),
        table["share"].to_numpy(),
        table["expected_share"].to_numpy(),
        table["q_value"].to_numpy(),
    ]
    if shown == "share":
        high = float(np.nanmax(z, initial=0.01))
        scale = ColorScale(title=f"share of {trace.unit}s", low=0.0, high=high, tick_format=PERCENT_TICKS)
    else:
        scale = log2_scale([z], title="came second ÷ independence", most=_MOST_DOUBLINGS, quantile=0.98)

    def clicked(click: Click) -> None:
        expert = (layer, int(table["expert"].values[round(click.y)]))
        state.select(replace(selection, experts=() if selection.experts == (expert,) else (expert,)))

    def controls() -> None:
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            with st.container(width=420 if len(labels) > 1 else "content"):
                kind = "slider" if len(labels) > 1 else "segmented"
                default = wanted if wanted in labels else labels[0]
                choices.choose("Layer", labels, name="layer", default=default, kind=kind)
            with st.container(width="content"):
                choices.choose("Color", tuple(_SECOND), name="second", shown=_SECOND.__getitem__)

    picked = [e for label, e in selection.experts if label == layer]
    panel(
        f"Who comes second in {layer} when an expert is selected",
        matrix_heatmap(
            z,
            rows=names,
            columns=names,
            scale=scale,
            value_text=f"comes second for %{{customdata[1]:.1%}} of the {trace.unit}s that select it<br>"
            "independence: %{customdata[2]:.1%} · ×%{customdata[0]:.2f} · q %{customdata[3]:.3f}",
            details=np.stack(details, axis=-1),
            muted=~table["significant"].to_numpy() if shown == "lift" else None,
            row_title="selected",
            column_title="came second",
            absent_name="itself, or never",
            selected_rows=picked,
            mode=mode(),
        ),
        key="unselected_second",
        reading=told.of_runners_up(table, names=trace.expert_names, unit=trace.unit)
        + " Click a cell to look at the selected expert.",
        table=lambda: _rows(table),
        definitions=("runner_up_matrix", "margins"),
        on_click=clicked,
        controls=controls,
    )


def _rows(table: object) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_dataframe().reset_index()  # type: ignore[attr-defined]
    return frame[frame["expert"] != frame["runner_up"]]


def _short(trace: RoutingTrace, layer: str, expert: int) -> str:
    names = trace.expert_names.get(layer)
    return names[expert] if names else f"E{expert}"
