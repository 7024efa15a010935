"""Pairs of experts that are chosen by the same token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from analysis.single_expert import expert_lifts, similar_experts
from app import cache, choices, headings, slow_answers, state
from app.components.plot_bridge import Click
from app.links import expert_link
from app.panel import empty, mode, panel
from app.sentences import escaped
from app.views.together import sentences as told
from app.views.together.tables import Tables, both_ways, pair_tables, table_of
from figures.paths import pair_dots
from figures.structure import coactivation_matrix
from routing import RoutingTrace, Selection, expert_name

__all__ = ["SLOW_PAIRS", "pairs_part"]

SLOW_PAIRS = 4_000_000
"""Tokens × layers of which pairs take longer than a second to count."""

_ORDERS = {"likes": "those together side by side", "number": "by number"}
_N_STRONGEST = 14


def pairs_part(trace: RoutingTrace, selection: Selection, within: Selection) -> None:
    """Draw who works together in one token.

    Args:
        trace: the trace.
        selection: what is looked at.
        within: the tasks and prompts that are counted.
    """
    layers = [label for label in trace.layers if not selection.layers or label in selection.layers]
    paired = [label for label in layers if _top_k(trace, label) > 1]
    if trace.dense_routing or not paired:
        empty(told.of_single_choices(layers[0], dense=trace.dense_routing), "Its paths through the layers can be told.")
        return
    found = slow_answers.tables(
        trace,
        pair_tables,
        what="Pairs of experts are being counted",
        slow=slow_answers.cells_to_scan(trace) > SLOW_PAIRS,
        within=within,
    )
    if found is None:
        return
    pairs = found["pairs"]
    strongest = pairs[pairs["layer"].isin(layers)].dropna(subset=["p_value"])
    strongest = strongest.sort_values(["significant", "lift_low"], ascending=False, kind="stable").head(_N_STRONGEST)
    default = _default_layer(selection, strongest, paired)
    layer = choices.chosen("layer", paired, default=default)
    left, right = st.columns([3, 2], gap="large")
    with left:
        _matrix(trace, selection, found, layer=layer, paired=paired, default=default)
    with right:
        _pair(trace, selection, pairs, layer=layer, within=within)
        _strongest(trace, selection, found, strongest, layers=layers)


def _matrix(
    trace: RoutingTrace,
    selection: Selection,
    found: Tables,
    *,
    layer: str,
    paired: list[str],
    default: str,
) -> None:
    order = _drawn(found["experts"], layer=layer, order=choices.chosen("order", tuple(_ORDERS)))
    rows = found["pairs"][found["pairs"]["layer"] == layer]
    about = found["layers"].set_index("layer").loc[layer]
    weighed = bool(np.isfinite(about["rho"]))

    def clicked(click: Click) -> None:
        _select_pair(selection, (layer, order[round(click.y)]), (layer, order[round(click.x)]))

    def controls() -> None:
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            if len(paired) > 1:
                with st.container(width=300):
                    choices.choose("Layer", paired, name="layer", default=default, kind="slider")
            choices.choose("Order of experts", tuple(_ORDERS), name="order", shown=_ORDERS.__getitem__)

    # A single expert is marked where it meets itself.
    picked = [expert for label, expert in selection.experts if label == layer]
    panel(
        f"Pairs of experts of {escaped(layer)}",
        coactivation_matrix(
            table_of(both_ways(rows), "layer", "expert", "other"),
            layer=layer,
            order=order,
            names=trace.expert_names.get(layer),
            framed=[(picked[0], picked[min(1, len(picked) - 1)])] if picked else [],
            mode=mode(),
        ),
        key="together_pairs",
        reading=told.of_pairs(rows, layer=layer, names=trace.expert_names, unit=trace.unit)
        + told.of_weights(about)
        + " Click a cell to select both experts.",
        table=lambda: rows,
        definitions=("coactivation", "mantel") if weighed else ("coactivation",),
        on_click=clicked,
        controls=controls,
    )


def _strongest(
    trace: RoutingTrace, selection: Selection, found: Tables, strongest: pd.DataFrame, *, layers: list[str]
) -> None:
    about = found["layers"][found["layers"]["layer"].isin(layers)]
    if strongest.empty:
        headings.part("Strongest pairs")
        st.markdown(told.of_strongest_pairs(about))
        return
    pairs = [
        ((str(layer), int(one)), (str(layer), int(other)))
        for layer, one, other in strongest[["layer", "expert", "other"]].itertuples(index=False)
    ]
    names = trace.expert_names

    def clicked(click: Click) -> None:
        one, other = pairs[round(click.y)]
        _select_pair(selection, one, other)

    panel(
        "Strongest pairs",
        pair_dots(
            strongest,
            names=[f"{expert_name(*one, names=names)} + {_short(trace, other)}" for one, other in pairs],
            value_title="together ÷ chance",
            mode=mode(),
        ),
        key="together_strongest",
        reading=told.of_strongest_pairs(about),
        table=lambda: strongest,
        definitions=("coactivation", "q_value"),
        on_click=clicked,
    )


def _pair(trace: RoutingTrace, selection: Selection, pairs: pd.DataFrame, *, layer: str, within: Selection) -> None:
    chosen = _chosen_pair(selection, layer)
    if chosen is None:
        return
    rows = both_ways(pairs[pairs["layer"] == layer])
    row = rows[(rows["expert"] == chosen[0]) & (rows["other"] == chosen[1])].iloc[0]
    lifts = cache.answer(trace, expert_lifts, within=within)
    alike = similar_experts(trace, layer=layer, expert=chosen[0], lifts=lifts)
    alike = alike[(alike["layer"] == layer) & (alike["expert"] == chosen[1])]
    with st.container(key="together_pair", border=True):
        names = [expert_name(layer, each, names=trace.expert_names) for each in chosen]
        st.markdown(
            told.of_pair(
                row,
                layer=layer,
                names=trace.expert_names,
                unit=trace.unit,
                alike=None if alike.empty else alike.iloc[0],
            )
        )
        with st.container(horizontal=True, gap="medium"):
            for expert, name in zip(chosen, names, strict=True):
                with st.container(width="content"):
                    expert_link(trace, layer, expert, label=f"Page of {escaped(name)}")


def _default_layer(selection: Selection, strongest: pd.DataFrame, paired: list[str]) -> str:
    """That of the selected experts, else of the strongest pair."""
    wanted = [layer for layer, _ in selection.experts[:1]] + strongest["layer"].astype(str).tolist()[:1]
    return next((layer for layer in wanted if layer in paired), paired[0])


def _drawn(experts: pd.DataFrame, *, layer: str, order: str) -> list[int]:
    own = experts[experts["layer"] == layer]
    by = "place" if order == "likes" else "expert"
    return [int(each) for each in own.sort_values(by)["expert"]]


def _chosen_pair(selection: Selection, layer: str) -> tuple[int, int] | None:
    """The first two selected experts of the layer."""
    own = [expert for label, expert in selection.experts if label == layer]
    return (own[0], own[1]) if len(own) > 1 else None


def _select_pair(selection: Selection, one: tuple[str, int], other: tuple[str, int]) -> None:
    """Select two experts, or neither where these are selected already; the layer shown follows them."""
    pair = tuple(dict.fromkeys((one, other)))
    same = set(selection.experts) == set(pair)
    state.select(replace(selection, experts=() if same else pair), layer=one[0])


def _short(trace: RoutingTrace, expert: tuple[str, int]) -> str:
    names = trace.expert_names.get(expert[0])
    return names[expert[1]] if names else f"E{expert[1]}"


def _top_k(trace: RoutingTrace, layer: str) -> int:
    return trace.layer_facts[trace.layers.index(layer)].top_k
