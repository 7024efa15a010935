"""Map: what is routed alike?"""

from __future__ import annotations

from dataclasses import asdict, replace

import pandas as pd
import streamlit as st

from analysis.maps import routing_clusters, routing_map
from analysis.projection import Projection
from app import cache, state
from app.components.plot_bridge import row_of
from app.jobs import Job
from app.links import view_link
from app.panel import Brush, empty, mode, panel
from app.questions import expert_groups
from app.sentences import count
from app.views.map import sentences as map_sentences
from app.views.map.adapters import selection_of_adapters
from app.views.map.controls import METHODS, Asked, controls, described_by, values_of
from app.views.map.kept import Mapped, MapQuestion, PromptGroups, groups_or_job, umap_or_job
from app.views.map.points import cluster_color, color_of, described, picked_rows
from figures.map_places import inside, kind_labels
from figures.scatter import MOST_POINTS, PointColor, scatter
from routing import Focus, RoutingTrace, Selection

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
# A selection is part of the link, and a link of many pages is none.
_MOST_PICKED = 300
_POLL_SECONDS = 1.0


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the map, what its colors say, and what is picked on it."""
    asked = controls(trace)
    of = asked.question.of
    plain = _principal_components(trace, asked.question)
    if plain.points.empty:
        empty(f"There is no {of} to place on a map.", "The run holds no routed token yet; let it record on.")
        return
    projection = plain if asked.method == "pca" else _umap(trace, asked.question, meanwhile=plain)
    points = _described(trace, projection, asked.question)
    picked = picked_rows(points, selection, of=of, trace=trace)
    if asked.method == "both":
        left, right = st.columns(2, gap="medium")
        with left:
            _draw(trace, selection, asked, projection, plain=plain, key=f"map_{of}")
        with right:
            _draw(trace, selection, asked, plain, plain=plain, key=f"map_{of}_beside")
    else:
        _draw(trace, selection, asked, projection, plain=plain, key=f"map_{of}")
    if len(picked):
        _picked_table(selection, points.iloc[picked], of=of)
    else:
        st.caption(f"Click {_A[of]}, or draw around several, to make them the selection of every view.")


def _draw(
    trace: RoutingTrace, selection: Selection, asked: Asked, projection: Projection, *, plain: Projection, key: str
) -> None:
    question = asked.question
    of, values = question.of, question.values
    points = _described(trace, projection, question)
    color, sentence = _color(trace, points, asked)
    picked = picked_rows(points, selection, of=of, trace=trace)

    def pick(rows: list[int]) -> None:
        _pick(trace, selection, points.iloc[rows], of=of)

    def brushed(brush: Brush) -> None:
        # Of a cloud too large to draw the browser knows a sample only; what was drawn around is known exactly.
        if brush.polygons and len(points) > MOST_POINTS:
            pick(inside(points, polygons=brush.polygons).tolist())
        else:
            pick([row_of(each) for each in brush.points])

    beside = None if projection.method == "pca" else plain.quality
    believed = map_sentences.of_map(projection, noun=of, beside=beside)
    which = f"{METHODS[projection.method]}: " if asked.method == "both" else ""
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
        ),
        key=key,
        reading=" ".join(filter(None, (sentence, believed, projection.note))),
        table=lambda: points.drop(columns=["text"]).assign(color=color.values.to_numpy()),
        definitions=_DEFINITIONS[of],
        on_click=lambda click: pick([row_of(click.customdata)]),
        on_brush=brushed,
    )
    st.caption(_parameters(trace, projection, asked))


def _described(trace: RoutingTrace, projection: Projection, question: MapQuestion) -> pd.DataFrame:
    return described(trace, projection.points, of=question.of, most_items=question.most_items, seed=question.seed)


def _principal_components(trace: RoutingTrace, question: MapQuestion) -> Projection:
    options = {name: value for name, value in asdict(question).items() if name != "min_dist"}
    return cache.answer(trace, routing_map, method="pca", **options)


def _umap(trace: RoutingTrace, question: MapQuestion, *, meanwhile: Projection) -> Projection:
    """The UMAP; the principal components as long as it is being computed."""
    found = umap_or_job(trace, question, jobs=cache.jobs())
    if isinstance(found, Projection):
        return found
    if found.state == "failed":
        st.error(f"UMAP ended with an error; these are principal components.\n\n```\n{found.message}\n```")
    else:
        _wait_for_umap(trace, question)
    return meanwhile


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


def _parameters(trace: RoutingTrace, projection: Projection, asked: Asked) -> str:
    options = projection.options
    parts = [METHODS[projection.method], values_of(trace, asked.question.of)[asked.question.values]]
    if projection.method == "umap":
        parts += [f"{options['n_neighbors']} neighbors", f"least distance {options['min_dist']}"]
    return " · ".join([*parts, f"seed {options['seed']}"])


def _pick(trace: RoutingTrace, selection: Selection, points: pd.DataFrame, *, of: Mapped) -> None:
    named = points["prompt"].nunique() if of == "token" else len(points)
    if named > _MOST_PICKED:
        noun = "prompt" if of == "token" else of
        st.toast(map_sentences.of_picked(named, noun=noun, most=_MOST_PICKED), icon=":material/lasso_select:")
    elif of == "expert":
        experts = tuple((str(layer), int(e)) for layer, e in zip(points["layer"], points["expert"], strict=True))
        state.select(replace(selection, experts=experts))
    elif of == "adapter":
        state.select(selection_of_adapters(trace, points, selection))
    elif of == "token" and len(points) == 1:
        token = points.iloc[0]
        state.select(replace(selection, focus=Focus(prompt=str(token["prompt"]), position=int(token["position"]))))
    else:
        # A selection names no tokens, so it is their prompts that every view can show.
        prompts = tuple(dict.fromkeys(points["prompt"].astype(str)))
        state.select(replace(selection, prompts=prompts, focus=None))


def _picked_table(selection: Selection, points: pd.DataFrame, *, of: Mapped) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"#### {count(len(points), of)} picked", width="stretch")
        if of in ("expert", "adapter"):
            view_link("tasks", "Their tasks", icon=":material/grid_on:")
            view_link("load", "Their load", icon=":material/balance:")
        else:
            first = points.iloc[0]
            position = int(first["position"]) if of == "token" else None
            focus = selection.focus or Focus(prompt=str(first["prompt"]), position=position)
            view_link("tokens", "Read them", icon=":material/segment:", selection=replace(selection, focus=focus))
    if of == "expert":
        shown = points[["name", "layer", "serves", "lift"]].sort_values("lift", ascending=False, na_position="last")
        columns = {
            "name": "expert",
            "serves": st.column_config.TextColumn("serves most", help="Empty where nothing is beyond chance."),
            "lift": st.column_config.NumberColumn("lift (log₂ ratio)", format="%.2f"),
        }
    elif of == "adapter":
        shown = points[["name", "site", "n_uses", "task", "task_share"]].sort_values("n_uses", ascending=False)
        columns = {
            "name": "adapter",
            "n_uses": st.column_config.NumberColumn("uses"),
            "task": "used most by",
            "task_share": st.column_config.NumberColumn("share of its uses", format="percent"),
        }
    elif of == "token":
        shown = points[["name", "prompt", "position", "task", "phase", "nll", "margin", "weight", "lead"]]
        columns = {
            "name": "token",
            "nll": st.column_config.NumberColumn("NLL (nats)", format="%.2f"),
            "margin": st.column_config.NumberColumn("margin (score)", format="%.3f"),
            "weight": st.column_config.NumberColumn("stands for", format="%.1f", help="Tokens of the trace."),
            "lead": st.column_config.TextColumn("where it stands", width="large"),
        }
    else:
        shown = points[["prompt", "task", "task_type", "outcome", "lead"]]
        columns = {"task_type": "type", "lead": st.column_config.TextColumn("text", width="large")}
    st.dataframe(shown, hide_index=True, column_config=columns, height=min(420, 38 + 35 * len(shown)))
