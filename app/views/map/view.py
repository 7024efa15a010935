"""Map: what is routed alike?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from analysis.maps import routing_clusters, routing_map
from analysis.projection import Projection
from app import cache, state
from app.components.plot_bridge import row_of
from app.links import tell_lost_run
from app.panel import Brush, empty, mode, panel
from app.questions import expert_groups
from app.sentences import count, escaped
from app.views.map import sentences as map_sentences
from app.views.map.cloud import LEAST, render_cloud
from app.views.map.controls import METHODS, NO_RUN, Asked, controls, described_by, other_runs, values_of
from app.views.map.hidden import hidden_groups, hide
from app.views.map.kept import Mapped, MapQuestion, groups_or_job, umap_or_job
from app.views.map.neighbors import draw_nearest, nearest_of_items, nearest_to_focus
from app.views.map.picked import pick as pick_points
from app.views.map.picked import picked_table
from app.views.map.points import cluster_color, color_of, described, picked_rows
from app.waiting import found_or_waiting
from figures.map_places import inside, kind_labels
from figures.scatter import MOST_POINTS, PointColor, scatter
from routing import RoutingTrace, Selection

__all__ = ["render"]

_A: dict[Mapped, str] = {"expert": "an expert", "prompt": "a prompt", "token": "a token", "adapter": "an adapter"}
_AXES = {"umap": "UMAP", "pca": "Component"}
_UNITS = {"lift": "log₂ ratio", "load": "share of assignments", "rate": "share of tokens", "parameters": "parameter"}
_DEFINITIONS: dict[Mapped, tuple[str, ...]] = {
    "expert": ("project", "map_quality", "clusters"),
    "prompt": ("project", "map_quality", "clusters"),
    "token": ("project", "map_quality", "token_overlap", "token_sample"),
    "adapter": ("project", "map_quality", "adapter_signatures"),
}


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the map, what its colors say, and what is picked on it."""
    asked = controls(trace)
    tell_lost_run("base")
    run = other_runs(trace).get(state.option("base") or NO_RUN)
    other = None if run is None else cache.trace_of(run)
    if asked.question.of == "token" and asked.question.most_items > LEAST:
        _clouds(trace, selection, asked, other=other)
        return
    of = asked.question.of
    plain = _principal_components(trace, asked.question)
    if plain.points.empty:
        empty(f"There is no {of} to place on a map.", "The run holds no routed token yet; let it record on.")
        return
    projection = plain if asked.method == "pca" else _umap(trace, asked.question, meanwhile=plain)
    points = _described(trace, projection, asked.question)
    picked = picked_rows(points, selection, of=of, trace=trace)
    found = _nearest(trace, selection, points.iloc[picked], asked)
    near = [] if found is None else np.flatnonzero(points["item"].astype(str).isin(found["key"].astype(str))).tolist()
    if other is not None:
        left, right = st.columns(2, gap="medium")
        with left:
            _draw(trace, selection, asked, projection, plain=plain, key=f"map_{of}", near=near)
        with right:
            _draw_other(other, selection, asked, name=run.name if run else "")
        st.caption(map_sentences.OF_TWO_RUNS)
    elif asked.method == "both":
        left, right = st.columns(2, gap="medium")
        with left:
            _draw(trace, selection, asked, projection, plain=plain, key=f"map_{of}", near=near)
        with right:
            _draw(trace, selection, asked, plain, plain=plain, key=f"map_{of}_beside", near=near)
    else:
        _draw(trace, selection, asked, projection, plain=plain, key=f"map_{of}", near=near)
    if len(picked):
        picked_table(selection, points.iloc[picked], of=of)
    else:
        st.caption(f"Click {_A[of]}, or draw around several, to make them the selection of every view.")
    if found is not None:
        draw_nearest(found, noun=of, selection=selection)


def _clouds(trace: RoutingTrace, selection: Selection, asked: Asked, *, other: RoutingTrace | None) -> None:
    """All tokens of one run, or of two."""
    if other is None or other.experts is None or other.unit != "token":
        render_cloud(trace, selection, asked)
    else:
        left, right = st.columns(2, gap="medium")
        with left:
            render_cloud(trace, selection, asked)
        with right:
            render_cloud(other, selection.held_by(other), asked, key="map_cloud_other", alone=False)
        st.caption(map_sentences.OF_TWO_RUNS)
    found = nearest_to_focus(trace, selection, values=asked.question.values)
    if found is not None:
        draw_nearest(found, noun="token", selection=selection)


def _draw_other(other: RoutingTrace, selection: Selection, asked: Asked, *, name: str) -> None:
    """The same map of another run, as far as it holds what is asked for."""
    of, values = asked.question.of, asked.question.values
    lacks = other.experts is None and of != "expert"
    if lacks or values not in values_of(other, of) or (of == "adapter" and other.adapters is None):
        empty(f"{escaped(name)} does not hold what this map is made of.", "Choose another run.")
        return
    shared = selection.held_by(other)
    plain = _principal_components(other, asked.question)
    if plain.points.empty:
        empty(f"There is no {of} in {escaped(name)} to place on a map.", "Choose another run.")
        return
    projection = plain if asked.method == "pca" else _umap(other, asked.question, meanwhile=plain)
    _draw(other, shared, asked, projection, plain=plain, key=f"map_{of}_other", title=escaped(name))


def _nearest(trace: RoutingTrace, selection: Selection, points: pd.DataFrame, asked: Asked) -> pd.DataFrame | None:
    """Who is nearest to the one point that is picked; None where it is not one."""
    of, values = asked.question.of, asked.question.values
    if of == "token":
        return nearest_to_focus(trace, selection, values=values)
    if len(points) != 1:
        return None
    return cache.answer(trace, nearest_of_items, of=of, values=values, item=str(points["item"].iloc[0]))


def _draw(
    trace: RoutingTrace,
    selection: Selection,
    asked: Asked,
    projection: Projection,
    *,
    plain: Projection,
    key: str,
    near: Sequence[int] = (),
    title: str = "",
) -> None:
    question = asked.question
    of, values = question.of, question.values
    points = _described(trace, projection, question)
    color, sentence = _color(trace, points, asked)
    picked = picked_rows(points, selection, of=of, trace=trace)

    def pick(rows: list[int]) -> None:
        pick_points(trace, selection, points.iloc[rows], of=of)

    def brushed(brush: Brush) -> None:
        # Of a cloud too large to draw the browser knows a sample only; what was drawn around is known exactly.
        if brush.polygons and len(points) > MOST_POINTS:
            pick(inside(points, polygons=brush.polygons).tolist())
        else:
            pick([row_of(each) for each in brush.points])

    beside = None if projection.method == "pca" else plain.quality
    believed = map_sentences.of_map(projection, noun=of, beside=beside)
    which = f"{METHODS[projection.method]}: " if asked.method == "both" and not title else ""
    which = f"{title}: " if title else which
    panel(
        f"{which}{count(len(points), of)} {described_by(trace, question)}",
        scatter(
            points,
            color=color,
            mode=mode(),
            axis=_AXES[projection.method],
            unit=_UNITS.get(values, "no unit") if projection.method == "pca" else "no unit",
            labels=None if color.is_numeric else kind_labels(points, color.values),
            picked=picked.tolist(),
            near=near,
            hidden=hidden_groups(color.title),
        ),
        key=key,
        reading=" ".join(filter(None, (sentence, believed, projection.note))),
        table=lambda: points.drop(columns=["text"]).assign(color=color.values.to_numpy()),
        definitions=_DEFINITIONS[of],
        on_click=lambda click: pick([row_of(click.customdata)]),
        on_brush=brushed,
        on_hide=partial(hide, color.title),
    )
    st.caption(_parameters(trace, projection, asked))


def _described(trace: RoutingTrace, projection: Projection, question: MapQuestion) -> pd.DataFrame:
    return described(trace, projection.points, of=question.of, most_items=question.most_items, seed=question.seed)


def _principal_components(trace: RoutingTrace, question: MapQuestion) -> Projection:
    options = {name: value for name, value in asdict(question).items() if name != "min_dist"}
    return cache.answer(trace, routing_map, method="pca", **options)


def _umap(trace: RoutingTrace, question: MapQuestion, *, meanwhile: Projection) -> Projection:
    """The UMAP; the principal components as long as it is being computed."""
    found = found_or_waiting(
        lambda: umap_or_job(trace, question, jobs=cache.jobs()),
        "UMAP is being computed",
        failed="UMAP ended with an error; these are principal components.",
        meanwhile="these are principal components",
    )
    return meanwhile if found is None else found


def _color(trace: RoutingTrace, points: pd.DataFrame, asked: Asked) -> tuple[PointColor, str]:
    """What the colors say; the tasks as long as clusters are being searched."""
    of, values = asked.question.of, asked.question.values
    if asked.color != "cluster":
        return color_of(trace, points, of=of, color=asked.color)
    if of == "expert":
        # By lift, these are the groups of the Tasks view.
        clustering = (
            cache.answer(trace, expert_groups).clustering
            if values == "lift"
            else cache.answer(trace, routing_clusters, of=of, values=values)
        )
        return cluster_color(points, clustering, of=of, n_features=len(trace.tasks))
    found = found_or_waiting(
        lambda: groups_or_job(trace, values=values, seed=asked.question.seed, jobs=cache.jobs()),
        "Clusters are being searched and tested",
        failed="The search for clusters ended with an error; colors are tasks.",
        meanwhile="colors are tasks",
    )
    if found is None:
        return color_of(trace, points, of=of, color="task")
    n_features = int(trace.expert_exists.sum())
    color, sentence = cluster_color(points, found.clustering, of=of, n_features=n_features)
    agreed = map_sentences.of_agreement(found.with_tasks, what="tasks")
    return color, f"{sentence} {agreed} {map_sentences.OF_SHARED_WORDS}"


def _parameters(trace: RoutingTrace, projection: Projection, asked: Asked) -> str:
    options = projection.options
    parts = [METHODS[projection.method], values_of(trace, asked.question.of)[asked.question.values]]
    if projection.method == "umap":
        parts += [f"{options['n_neighbors']} neighbors", f"least distance {options['min_dist']}"]
    return " · ".join([*parts, f"seed {options['seed']}"])
