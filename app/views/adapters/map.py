"""A map of adapters or of what they were made from: principal components at once, UMAP as soon as it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pandas as pd
import streamlit as st

from analysis.maps import routing_map
from analysis.projection import Projection
from app import cache, state
from app.components.plot_bridge import row_of
from app.jobs import Job
from app.panel import Brush, mode, panel
from app.views.map import sentences as map_sentences
from app.views.map.hidden import hidden_groups, hide
from app.views.map.kept import MapQuestion, umap_or_job
from app.waiting import found_or_waiting
from figures.map_places import kind_labels
from figures.scatter import PointColor, scatter
from routing import RoutingTrace, Selection

__all__ = ["LAYOUTS", "adapter_projection", "laid_out_or_waiting", "map_panel", "pick_adapters"]

LAYOUTS = {"umap": "UMAP", "pca": "PCA"}
_MOST_PICKED = 300
_QUESTION = MapQuestion(of="adapter", values="parameters", n_neighbors=15, min_dist=0.1, seed=0)


def adapter_projection(trace: RoutingTrace, *, values: str, layout: str) -> Projection:
    """A map of the trace's adapters by their parameters or a conditioning vector."""
    question = replace(_QUESTION, values=values)
    return laid_out_or_waiting(
        layout,
        made=lambda: umap_or_job(trace, question, jobs=cache.jobs()),
        meanwhile=lambda: cache.answer(trace, routing_map, of="adapter", values=values, method="pca"),
    )


def laid_out_or_waiting(
    layout: str, *, made: Callable[[], Projection | Job], meanwhile: Callable[[], Projection]
) -> Projection:
    """The UMAP if it is asked for and there, else the principal components, and a word on when it will be.

    Args:
        layout: "umap" or "pca".
        made: gives the UMAP, or the job that is making it.
        meanwhile: gives the principal components.
    """
    found = None
    if layout == "umap":
        found = found_or_waiting(
            made,
            "UMAP is being computed",
            failed="UMAP ended with an error; these are principal components.",
            meanwhile="these are principal components",
        )
    return meanwhile() if found is None else found


def map_panel(
    title: str,
    projection: Projection,
    points: pd.DataFrame,
    *,
    key: str,
    color: PointColor,
    noun: str,
    sentences: tuple[str, ...],
    unit: str,
    on_pick: Callable[[list[int]], None],
    picked: tuple[int, ...] = (),
    symbols: pd.Series | None = None,
    symbol_title: str = "",
    ringed: tuple[int, ...] = (),
    ringed_name: str = "",
    definitions: tuple[str, ...] = (),
    controls: Callable[[], object] | None = None,
) -> None:
    """Draw a map with how far it may be believed.

    Args:
        title: of the panel.
        projection: the map.
        points: its points with name and text.
        key: of the chart.
        color: what the colors say.
        noun: what a point is.
        sentences: of reading, before the one on the map's quality.
        unit: of the principal components.
        on_pick: called with rows of `points` that were clicked or drawn around.
        picked: rows that stand out.
        symbols: kind of each point that its shape tells.
        symbol_title: what the shapes tell.
        ringed: rows that must be found among the others.
        ringed_name: what these are.
        definitions: headings of docs/metrics.md beside those of maps.
        controls: draws the panel's own widgets.
    """
    is_pca = projection.method == "pca"

    def brushed(brush: Brush) -> None:
        on_pick([row_of(each) for each in brush.points])

    panel(
        title,
        scatter(
            points,
            color=color,
            mode=mode(),
            axis="Component" if is_pca else "UMAP",
            unit=unit if is_pca else "no unit",
            labels=None if color.is_numeric else kind_labels(points, color.values),
            symbols=symbols,
            symbol_title=symbol_title,
            ringed=ringed,
            ringed_name=ringed_name,
            picked=picked,
            hidden=hidden_groups(color.title),
            height=560,
        ),
        key=key,
        reading=" ".join(filter(None, (*sentences, map_sentences.of_map(projection, noun=noun), projection.note))),
        table=lambda: points.drop(columns=["text"]).assign(color=color.values.to_numpy()),
        definitions=(*definitions, "project", "map_quality"),
        on_click=lambda click: on_pick([row_of(click.customdata)]),
        on_brush=brushed,
        on_hide=partial(hide, color.title),
        controls=controls,
    )


def pick_adapters(selection: Selection, chosen: Selection) -> None:
    """Make what was picked on a map the selection, unless it is more than a link can carry."""
    n_picked = len(chosen.experts) + len(chosen.tasks) + len(chosen.prompts)
    if n_picked > _MOST_PICKED:
        said = map_sentences.of_picked(n_picked, noun="adapter", most=_MOST_PICKED)
        st.toast(said, icon=":material/lasso_select:")
    else:
        state.select(replace(chosen, focus=selection.focus))
