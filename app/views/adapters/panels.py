"""What a hypernetwork made from the experts that were not selected: its adapters, their likeness, what they add."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st
import xarray as xr

from analysis.adapter_ratio import adapter_ratios
from analysis.similarity import distinct_adapters, expert_relations, expert_similarities
from app import cache, choices, headings
from app.panel import data_popover, definitions_popover, empty, mode, panel
from app.sentences import escaped
from app.views.adapters import sentences as told
from app.views.adapters.across import sharing_panel
from app.views.adapters.map import LAYOUTS, adapter_projection, map_panel, pick_adapters
from app.views.causes.panels import effects_panel
from app.views.map.adapters import adapter_rows, color_of_adapters, described_adapters, selection_of_adapters
from figures.grid import ColorScale
from figures.scatter import PointColor
from figures.square import matrix_heatmap, similarity_scale
from figures.theme import OKABE_ITO, OTHER, PERCENT_TICKS
from routing import RoutingTrace, Selection

__all__ = ["adapter_panels", "ratio_panel"]

_COLORS = {"expert": "selected expert", "task": "task", "site": "layer", "type": "task type"}
_ALIKE_DEFINITIONS = ("expert_similarities", "expert_relations", "mantel")
_KINDS = {"embedding": "Embeddings", "adapter": "Adapters of their sets", "weights": "Weights"}
_ALL = "all layers"


def adapter_panels(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the part of the view that is about adapters made from selected sets, and about experts' vectors."""
    made = [site.label for site in trace.adapters.sites if site.made_from == "selected_set"] if trace.adapters else []
    alike = bool(made) or bool({"expert_embedding", "expert_weight_similarity"} & set(trace.vectors))
    if not made and not alike:
        headings.section("Adapters made from unselected experts")
        empty(
            "This run's model makes none.",
            "HyperMoE does: choose a run of one in the run picker, or record a HyperMoE model of your own.",
        )
        return
    if made:
        headings.section("What was made from the unselected experts")
        _map(trace, selection)
    _likeness(trace, selection)
    if made:
        sharing_panel(trace)
    if not made or trace.n_tokens == 0:
        return
    if trace.adapter_ratio is not None:
        ratio_panel(trace, by="expert", key="unselected_ratio")
    effects_panel(trace)


def _map(trace: RoutingTrace, selection: Selection) -> None:
    assert trace.adapters is not None
    kinds = ["parameters", *trace.adapters.conditioning_rows]
    values = choices.chosen("vector", kinds)
    layout = choices.chosen("layout", tuple(LAYOUTS))
    hue = choices.chosen("hue", tuple(_COLORS))
    sites = [site.label for site in trace.adapters.sites if site.made_from == "selected_set"]
    site = choices.chosen("site", [_ALL, *sites])
    sites_table = cache.answer(trace, distinct_adapters)
    projection = adapter_projection(trace, values=values, layout=layout)
    points = described_adapters(trace, projection.points)
    if site != _ALL:
        points = points[points["site"] == site].reset_index(drop=True)
    if points.empty:
        empty("No adapter was made at this layer.", "Choose another one.")
        return
    color, sentence = _color(trace, points, hue=hue)

    def pick(rows: list[int]) -> None:
        pick_adapters(selection, selection_of_adapters(trace, points.iloc[rows], selection))

    def controls() -> None:
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            words = {name: name.replace("_", " ") for name in kinds}
            choices.choose("Described by", kinds, name="vector", shown=words.__getitem__)
            choices.choose("Color by", tuple(_COLORS), name="hue", shown=_COLORS.__getitem__)
            choices.choose("Layout", tuple(LAYOUTS), name="layout", shown=LAYOUTS.__getitem__)
            if len(sites) > 1:
                with st.container(width=150):
                    choices.choose("Layer", [_ALL, *sites], name="site", kind="select")

    chosen = np.flatnonzero(adapter_rows(trace, points, selection))
    map_panel(
        f"{len(points):,} {'adapters' if values == 'parameters' else values.replace('_', ' ') + 's'} on a map",
        projection,
        points,
        key="unselected_map",
        color=color,
        noun="adapter",
        sentences=(told.of_sites(sites_table if site == _ALL else sites_table.loc[[site]]), sentence),
        unit="parameter" if values == "parameters" else "component of the vector",
        on_pick=pick,
        picked=tuple(chosen.tolist()) if 0 < len(chosen) < len(points) else (),
        definitions=("adapter_signatures", "distinct_adapters"),
        controls=controls,
    )


def _color(trace: RoutingTrace, points: pd.DataFrame, *, hue: str) -> tuple[PointColor, str]:
    if hue != "expert":
        return color_of_adapters(trace, points, color=hue)
    first = points["key"].str.split().str[0].astype(int).reset_index(drop=True)
    several = points["key"].str.contains(" ").any()
    common = first.value_counts(sort=False).sort_index().index.tolist()
    # More experts than hues: those beyond the palette share one gray, and their names are in the tooltip.
    colors = {f"E{e}": OKABE_ITO[i] if i < len(OKABE_ITO) else OTHER for i, e in enumerate(common)}
    kinds = first.map(lambda e: f"E{e}")
    word = "the lower-numbered of the selected experts" if several else "the selected expert"
    sentence = f"Colored by {word}; equal numbers of two layers are different experts."
    return PointColor(title="Selected expert", values=kinds, colors=colors), sentence


def _likeness(trace: RoutingTrace, selection: Selection) -> None:
    tables = cache.answer(trace, expert_similarities)
    held = [label for label in trace.layers if any(_known(tables, name, label) for name in tables)]
    held = [label for label in held if not selection.layers or label in selection.layers] or held
    if not held:
        return
    wanted = selection.experts[0][0] if selection.experts else held[-1]
    default = wanted if wanted in held else held[-1]
    layer = choices.chosen("alike", held, default=default)
    kinds = [name for name in _KINDS if name in tables and _known(tables, name, layer)]
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        headings.part(f"How alike the experts of {escaped(layer)} are", width="stretch")
        definitions_popover(_ALIKE_DEFINITIONS, key="unselected_alike")
        data_popover(lambda: _similarity_rows(tables), key="unselected_alike", definitions=_ALIKE_DEFINITIONS)
    if len(held) > 1:
        with st.container(width=420):
            choices.choose("Layer", held, name="alike", default=default, kind="slider", label_visibility="collapsed")
    n_experts = trace.layer_facts[trace.layers.index(layer)].n_experts
    names = [f"E{e}" for e in range(n_experts)]
    for column, kind in zip(st.columns(len(kinds), gap="small"), kinds, strict=True):
        values = tables[kind].sel(layer=layer).to_numpy()[:n_experts, :n_experts].copy()
        np.fill_diagonal(values, np.nan)
        with column:
            panel(
                _KINDS[kind],
                matrix_heatmap(
                    values,
                    rows=names,
                    columns=names,
                    scale=similarity_scale([values]),
                    value_text="cosine %{z:.3f}",
                    absent_name="itself",
                    mode=mode(),
                ),
                key=f"unselected_alike_{kind}",
                reading=told.of_cosines(values),
                table=lambda values=values: pd.DataFrame(values, columns=names).assign(expert=names),  # type: ignore[misc]
            )
    if sum(name in tables for name in _KINDS) > 1:
        relations = cache.answer(trace, expert_relations)
        st.markdown(told.of_relations(relations, layer=layer))
    elif trace.adapters is None:
        st.caption("Runs of HyperMoE have embeddings and adapters of experts beside their weights.")


def _known(tables: xr.Dataset, name: object, layer: str) -> bool:
    return bool(np.isfinite(tables[name].sel(layer=layer)).any())


def _similarity_rows(tables: xr.Dataset) -> pd.DataFrame:
    rows = tables.to_dataframe().reset_index()
    return rows[rows["expert"] < rows["other"]].dropna(subset=list(tables), how="all")


def ratio_panel(trace: RoutingTrace, *, by: str, key: str) -> None:
    """Draw how much adapters add, by site and expert or task."""
    table = cache.answer(trace, adapter_ratios, by=by)
    if table.empty:
        empty("No adapter was applied in this run.", "Record prompts of the tasks that the model knows.")
        return
    assert trace.adapters is not None
    # Unstacking sorts; layers come in the order of the model.
    sites = [site.label for site in trace.adapters.sites if site.label in table.index.get_level_values("site")]
    wide = [table[name].unstack(by).reindex(sites) for name in ("ratio", "ratio_low", "ratio_high")]
    order = [name for name in trace.tasks if name in wide[0].columns] if by == "task" else sorted(wide[0].columns)
    values, low, high = (each[order].to_numpy(float) for each in wide)
    names = [str(each) for each in order] if by == "task" else [f"E{each}" for each in order]
    panel(
        f"What adapters add, by layer and {by}",
        matrix_heatmap(
            values,
            rows=[str(site) for site in wide[0].index],
            columns=names,
            scale=ColorScale(
                title="÷ the layer's norm",
                low=0.0,
                high=float(np.nanmax(values, initial=0.01)),
                tick_format=PERCENT_TICKS,
            ),
            value_text="%{z:.1%} of the layer's norm (95 %: %{customdata[0]:.1%} to %{customdata[1]:.1%})",
            details=np.stack([low, high], axis=-1),
            row_title="layer",
            column_title=by,
            absent_name="never used",
            mode=mode(),
        ),
        key=key,
        reading=told.of_ratios(table, by=by, names=trace.expert_names),
        table=lambda: table.reset_index(),
        definitions=("adapter_ratios",),
    )
