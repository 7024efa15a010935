"""Map: what is routed alike?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import pandas as pd
import streamlit as st

from analysis.maps import routing_clusters, routing_map
from analysis.projection import Projection
from app import cache, map_sentences, state
from app.jobs import Job
from app.links import view_link
from app.map_points import cluster_color, color_of, described, picked_rows
from app.maps import Mapped, MapQuestion, PromptGroups, groups_or_job, umap_or_job
from app.panel import Brush, empty, mode, panel
from app.questions import expert_groups
from app.sentences import count
from figures.map_places import inside, kind_labels
from figures.scatter import MOST_POINTS, PointColor, scatter
from routing import Focus, RoutingTrace, Selection

__all__ = ["render"]

_COLORS: dict[Mapped, tuple[str, ...]] = {
    "expert": ("task", "type", "cluster", "layer"),
    "prompt": ("task", "type", "cluster", "score"),
}
_A: dict[Mapped, str] = {"expert": "an expert", "prompt": "a prompt"}
_METHODS = {"umap": "UMAP", "pca": "PCA"}
_AXES = {"umap": "UMAP", "pca": "Component"}
_UNITS = {"lift": "log₂ ratio", "load": "share of assignments", "rate": "share of tokens"}
_VALUES = {"lift": "lift", "load": "load", "rate": "activation rate"}
_NEIGHBORS = ("5", "10", "15", "30", "50")
_DISTANCES = ("0.0", "0.1", "0.3", "0.5")
_SEEDS = ("0", "1", "2", "3", "4")
# A selection is part of the link, and a link of many pages is none.
_MOST_PICKED = 300
_POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the controls ask for."""

    color: str
    method: str
    question: MapQuestion


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the map, what its colors say, and what is picked on it."""
    asked = _controls(trace)
    projection = _projection(trace, asked)
    of = asked.question.of
    if projection.points.empty:
        empty(f"There is no {of} to place on a map.", "The run holds no routed token yet; let it record on.")
        return
    points = described(trace, projection.points, of=of)
    values = asked.question.values
    color, sentence = _color(trace, points, asked)
    picked = picked_rows(points, selection, of=of)

    def pick(rows: list[int]) -> None:
        _pick(selection, points.iloc[rows], of=of)

    def brushed(brush: Brush) -> None:
        # Of a cloud too large to draw the browser knows a sample only; what was drawn around is known exactly.
        if brush.polygons and len(points) > MOST_POINTS:
            pick(inside(points, polygons=brush.polygons).tolist())
        else:
            pick([_row(each) for each in brush.points])

    panel(
        f"{count(len(points), of)} by the {_VALUES[values]} of their {'tasks' if of == 'expert' else 'experts'}",
        scatter(
            points,
            color=color,
            mode=mode(),
            axis=_AXES[projection.method],
            unit=_UNITS[values] if projection.method == "pca" else "no unit",
            labels=None if color.is_numeric else kind_labels(points, color.values),
            picked=picked,
        ),
        key=f"map_{of}",
        reading=" ".join(filter(None, (sentence, map_sentences.of_map(projection, noun=of), projection.note))),
        table=lambda: points.drop(columns=["text"]).assign(color=color.values.to_numpy()),
        definitions=("project", "map_quality", "clusters"),
        on_click=lambda click: pick([_row(click.customdata)]),
        on_brush=brushed,
    )
    st.caption(_parameters(projection, asked))
    if len(picked):
        _picked_table(selection, points.iloc[picked], of=of)
    else:
        st.caption(f"Click {_A[of]}, or draw around several, to make them the selection of every view.")


def _controls(trace: RoutingTrace) -> _Asked:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="map_controls"):
        mapped: list[Mapped] = ["expert"] if trace.experts is None else ["expert", "prompt"]
        with st.container(width="content"):
            of = state.choose("Map of", mapped, name="of", shown=lambda each: f"{each.capitalize()}s")
        # What an expert serves beyond chance takes prompts to tell.
        colors = _COLORS[of] if trace.level != "counts" else ("layer", "cluster")
        with st.container(width="content"):
            color = state.choose("Color by", colors, name="color", shown=str.capitalize)
        with st.container(width="content"):
            method = state.choose("Layout", list(_METHODS), name="layout", shown=_METHODS.__getitem__)
        with st.popover("Parameters", icon=":material/tune:", key="map_parameters"):
            values = state.choose(
                "Described by", list(_VALUES), name="values", shown=_VALUES.__getitem__, help="What a signature holds."
            )
            near = state.choose(
                "Neighbors",
                _NEIGHBORS,
                name="near",
                default="15",
                help="How many neighbors UMAP tries to keep, and how many the quality is judged by.",
            )
            apart = state.choose(
                "Least distance", _DISTANCES, name="apart", default="0.1", help="How close UMAP may put points."
            )
            seed = state.choose("Seed", _SEEDS, name="seed", help="Another seed, another map; what stays is real.")
    question = MapQuestion(of=of, values=values, n_neighbors=int(near), min_dist=float(apart), seed=int(seed))
    return _Asked(color=color, method=method, question=question)


def _projection(trace: RoutingTrace, asked: _Asked) -> Projection:
    """The map that is asked for; the principal components as long as it is being computed."""
    if asked.method == "umap":
        found = umap_or_job(trace, asked.question, jobs=cache.jobs())
        if isinstance(found, Projection):
            return found
        if found.state == "failed":
            st.error(f"UMAP ended with an error; these are principal components.\n\n```\n{found.message}\n```")
        else:
            _wait_for_umap(trace, asked.question)
    options = {name: value for name, value in asdict(asked.question).items() if name != "min_dist"}
    return cache.answer(trace, routing_map, method="pca", **options)


def _color(trace: RoutingTrace, points: pd.DataFrame, asked: _Asked) -> tuple[PointColor, str]:
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
    found = groups_or_job(trace, values=values, seed=asked.question.seed, jobs=cache.jobs())
    if isinstance(found, PromptGroups):
        n_features = int(trace.expert_exists.sum())
        color, sentence = cluster_color(points, found.clustering, of=of, n_features=n_features)
        agreed = map_sentences.of_agreement(found.with_tasks, what="tasks")
        return color, f"{sentence} {agreed} {map_sentences.OF_SHARED_WORDS}"
    if found.state == "failed":
        st.error(f"The search for clusters ended with an error; colors are tasks.\n\n```\n{found.message}\n```")
    else:
        _wait_for_groups(trace, asked.question)
    return color_of(trace, points, of=of, color="task")


@st.fragment(run_every=_POLL_SECONDS)
def _wait_for_umap(trace: RoutingTrace, question: MapQuestion) -> None:
    """Say that the UMAP is being computed, until it is there."""
    found = umap_or_job(trace, question, jobs=cache.jobs())
    _tell(found, what="UMAP is being computed", meanwhile="these are principal components")


@st.fragment(run_every=_POLL_SECONDS)
def _wait_for_groups(trace: RoutingTrace, question: MapQuestion) -> None:
    """Say that clusters are being searched, until they are there."""
    found = groups_or_job(trace, values=question.values, seed=question.seed, jobs=cache.jobs())
    _tell(found, what="Clusters are being searched and tested", meanwhile="colors are tasks")


def _tell(found: object, *, what: str, meanwhile: str) -> None:
    if not isinstance(found, Job) or found.state in ("done", "failed"):
        st.rerun()
    elif found.state == "waiting":
        st.caption(f":material/hourglass: {what}, after another computation; meanwhile {meanwhile}.")
    else:
        # UMAP compiles itself when it is first used on a machine.
        st.caption(
            f":material/progress_activity: {what}, for {found.seconds:.0f} s so far (the first may take a minute); "
            f"meanwhile {meanwhile}."
        )


def _parameters(projection: Projection, asked: _Asked) -> str:
    options = projection.options
    parts = [_METHODS[projection.method], f"signatures: {_VALUES[asked.question.values]}"]
    if projection.method == "umap":
        parts += [f"{options['n_neighbors']} neighbors", f"least distance {options['min_dist']}"]
    return " · ".join([*parts, f"seed {options['seed']}"])


def _row(customdata: object) -> int:
    return int(customdata[0] if isinstance(customdata, (list, tuple)) else customdata)  # type: ignore[call-overload]


def _pick(selection: Selection, points: pd.DataFrame, *, of: Mapped) -> None:
    if len(points) > _MOST_PICKED:
        st.toast(map_sentences.of_picked(len(points), noun=of, most=_MOST_PICKED), icon=":material/lasso_select:")
    elif of == "expert":
        experts = tuple((str(layer), int(e)) for layer, e in zip(points["layer"], points["expert"], strict=True))
        state.select(replace(selection, experts=experts))
    else:
        state.select(replace(selection, prompts=tuple(points["prompt"].astype(str)), focus=None))


def _picked_table(selection: Selection, points: pd.DataFrame, *, of: Mapped) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"#### {count(len(points), of)} picked", width="stretch")
        if of == "expert":
            view_link("tasks", "Their tasks", icon=":material/grid_on:")
            view_link("load", "Their load", icon=":material/balance:")
        else:
            first = Focus(prompt=str(points["prompt"].iloc[0]))
            view_link("tokens", "Read them", icon=":material/segment:", selection=replace(selection, focus=first))
    if of == "expert":
        shown = points[["name", "layer", "serves", "lift"]].sort_values("lift", ascending=False, na_position="last")
        columns = {
            "name": "expert",
            "serves": st.column_config.TextColumn("serves most", help="Empty where nothing is beyond chance."),
            "lift": st.column_config.NumberColumn("lift (log₂ ratio)", format="%.2f"),
        }
    else:
        shown = points[["prompt", "task", "task_type", "outcome", "lead"]]
        columns = {"task_type": "type", "lead": st.column_config.TextColumn("text", width="large")}
    st.dataframe(shown, hide_index=True, column_config=columns, height=min(420, 38 + 35 * len(shown)))
