"""Adapters: which adapter does each task get, and is it its own?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from analysis.instances import instance_grouping, instance_map
from analysis.prototypes import (
    prototype_centers,
    prototype_relations,
    prototype_similarity,
    retrieval,
    retrieval_accuracy,
)
from analysis.similarity import adapter_similarity, distinct_adapters
from app import cache, choices, state
from app.components.plot_bridge import Click
from app.links import view_link
from app.panel import empty, mode, panel
from app.prompts import outcome_of, prompt_lead
from app.views.adapters import prototype_sentences as told
from app.views.adapters import sentences as adapter_sentences
from app.views.adapters.map import LAYOUTS, laid_out_or_waiting, map_panel
from app.views.adapters.panels import ratio_panel
from app.views.causes.panels import exchange_panel
from app.views.map.kept import instances_or_job
from figures.grid import ColorScale
from figures.scatter import PointColor
from figures.square import matrix_heatmap, similarity_scale
from figures.theme import OKABE_ITO, OTHER, PERCENT_TICKS, color_of_task_types, color_of_tasks
from routing import RoutingTrace, Selection

__all__ = ["render"]

_HUES = {"task": "task", "type": "task type", "score": "answer"}
_MOST_ALIKE = 160


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    made = {site.made_from for site in trace.adapters.sites} if trace.adapters is not None else set()
    vectors = set(trace.vectors)
    if not made and not {"instance", "prototype"} & vectors:
        empty(
            "This run's model makes no adapters for tasks or texts.",
            "PHA does: choose a run of one in the run picker, or record a PHA model of your own.",
        )
        return
    if trace.n_tokens == 0:
        empty("This run holds no text, so nothing is retrieved.", "What its weights say:")
    if "instance" in vectors:
        _instances(trace, selection)
    if trace.n_tokens and any(facts.expert_names for facts in trace.layer_facts):
        _retrieval(trace, selection)
    if {"instance", "prototype"} <= vectors:
        _centers(trace, selection)
    if made & {"task", "instance"}:
        _likeness(trace)
        if trace.n_tokens and trace.adapter_ratio is not None:
            ratio_panel(trace, by="task", key="adapters_ratio")
        if trace.n_tokens and "prototype" in vectors:
            exchange_panel(trace)
    elif made:
        empty(
            "This run's adapters are made from the selected experts, not from tasks.",
            "They are on the Unselected view.",
        )
        view_link("unselected", "What did the router almost do?", icon=":material/alt_route:")


def _instances(trace: RoutingTrace, selection: Selection) -> None:
    layout, hue = choices.chosen("layout", tuple(LAYOUTS)), choices.chosen("hue", tuple(_HUES))
    projection = laid_out_or_waiting(
        layout,
        made=lambda: instances_or_job(trace, seed=0, jobs=cache.jobs()),
        meanwhile=lambda: cache.answer(trace, instance_map, method="pca"),
    )
    points = _described(trace, projection.points)
    if points.empty:
        empty("No prompt of this run has an instance vector.", "Let the recording run on.")
        return
    palettes = {
        "task": color_of_tasks(trace) | {name: OTHER for name in set(points["task"]) - set(trace.tasks)},
        "type": color_of_task_types([*trace.task_types.values(), "other"]),
        "score": {"right": OKABE_ITO[2], "partly": OKABE_ITO[1], "wrong": OKABE_ITO[5]},
    }
    column = {"task": "task", "type": "task_type", "score": "outcome"}[hue]
    values = points[column].where(points[column] != "unknown", None)
    there = {name: color for name, color in palettes[hue].items() if (values == name).any()}
    picked = np.flatnonzero(
        (points["kind"] == "prompt") & points["task"].isin(selection.tasks)
        | points["prompt"].isin(selection.prompts) & (points["prompt"] != "")
    )

    def pick(rows: list[int]) -> None:
        chosen = points.iloc[rows]
        prompts = tuple(chosen.loc[chosen["kind"] == "prompt", "prompt"].astype(str))
        if prompts:
            state.select(replace(selection, prompts=prompts[:300], focus=None))
        else:
            tasks = tuple(name for name in chosen["task"] if name in trace.tasks)
            state.select(replace(selection, tasks=tasks))

    def controls() -> None:
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            choices.choose("Color by", tuple(_HUES), name="hue", shown=_HUES.__getitem__)
            choices.choose("Layout", tuple(LAYOUTS), name="layout", shown=LAYOUTS.__getitem__)

    grouping = cache.answer(trace, instance_grouping)
    n_prototypes = int((points["kind"] == "prototype").sum())
    map_panel(
        f"{len(points) - n_prototypes:,} prompts and {n_prototypes} prototypes by their vectors",
        projection,
        points,
        key="adapters_map",
        color=PointColor(title=_HUES[hue].capitalize(), values=values.reset_index(drop=True), colors=there),
        noun="point",
        sentences=(told.of_grouping(grouping),),
        unit="component of the vector",
        on_pick=pick,
        picked=tuple(picked.tolist()) if 0 < len(picked) < len(points) else (),
        symbols=points["kind"] if n_prototypes else None,
        symbol_title="Shape",
        ringed=tuple(np.flatnonzero(points["kind"] == "prototype").tolist()),
        ringed_name="prototype",
        definitions=("instance_map", "instance_grouping"),
        controls=controls,
    )


def _described(trace: RoutingTrace, points: pd.DataFrame) -> pd.DataFrame:
    leads = dict(zip(trace.prompts["prompt"], trace.prompts["text"].fillna("").astype(str), strict=True))
    names, texts = [], []
    for kind, prompt, task, task_type in zip(
        points["kind"], points["prompt"], points["task"], points["task_type"], strict=True
    ):
        is_prompt = kind == "prompt"
        names.append(str(prompt) if is_prompt else f"prototype of {task}")
        lead = prompt_lead(leads.get(prompt, ""), n_characters=160)
        texts.append(f"{task} ({task_type})\n{lead}" if is_prompt else str(task_type))
    return points.assign(name=names, text=texts, outcome=[outcome_of(score) for score in points["score"]])


def _retrieval(trace: RoutingTrace, selection: Selection) -> None:
    found, accuracy = cache.answer(trace, retrieval), cache.answer(trace, retrieval_accuracy)
    tasks = [str(name) for name in found["task"].values]

    def clicked(click: Click) -> None:
        task = tasks[round(click.y)]
        state.select(replace(selection, tasks=() if selection.tasks == (task,) else (task,)))

    panel(
        "Which prototype is retrieved for the prompts of each task",
        matrix_heatmap(
            found["share"].to_numpy(),
            rows=tasks,
            columns=[str(name) for name in found["prototype"].values],
            scale=ColorScale(title="share of prompts", low=0.0, high=1.0, tick_format=PERCENT_TICKS),
            value_text="%{z:.1%} of its prompts (%{customdata[0]:.0f})",
            details=found["n_prompts"].to_numpy()[..., None],
            row_title="task",
            column_title="retrieved prototype",
            absent_name="no prompt",
            row_types=trace.task_types,
            selected_rows=[tasks.index(task) for task in selection.tasks],
            mode=mode(),
        ),
        key="adapters_retrieval",
        reading=told.of_accuracy(accuracy, n_without=int((~found["has_prototype"].to_numpy().astype(bool)).sum())),
        table=lambda: found[["n_prompts", "share"]].to_dataframe().reset_index(),
        definitions=("retrieval", "retrieval_accuracy"),
        on_click=clicked,
    )


def _centers(trace: RoutingTrace, selection: Selection) -> None:
    found = cache.answer(trace, prototype_centers)
    tasks = [str(name) for name in found["task"].values]
    values = found["cosine"].to_numpy()
    panel(
        "Do prototypes stand in the middle of their tasks' examples?",
        matrix_heatmap(
            values,
            rows=tasks,
            columns=[str(name) for name in found["prototype"].values],
            scale=similarity_scale([values]),
            value_text="cosine %{z:.3f} with the mean of the task's vectors",
            row_title="mean of the examples of",
            column_title="prototype of",
            absent_name="no vector",
            row_types=trace.task_types,
            selected_rows=[tasks.index(task) for task in selection.tasks],
            mode=mode(),
        ),
        key="adapters_centers",
        reading=told.of_centers(found),
        table=lambda: found["cosine"].to_dataframe().reset_index(),
        definitions=("prototype_centers",),
    )


def _likeness(trace: RoutingTrace) -> None:
    assert trace.adapters is not None
    sites = [site.label for site in trace.adapters.sites if site.made_from in ("task", "instance")]
    site = choices.chosen("site", sites, default=sites[-1])
    table = cache.answer(trace, adapter_similarity, site=site, most_items=_MOST_ALIKE)
    keys = [str(key) for key in table["key"].values]
    has_prototypes = "prototype" in trace.vectors
    of_prototypes: np.ndarray | None = None
    if has_prototypes:
        alike = cache.answer(trace, prototype_similarity)
        # The same tasks in the order of the prototypes' tree, so that the eye can compare.
        alike = alike.isel(prototype=np.argsort(alike["leaf"].to_numpy()))
        shared = [name for name in (str(each) for each in alike["prototype"].values) if name in keys]
        places = [keys.index(name) for name in shared]
        table = table.isel(adapter=places, other=places)
        keys = shared
        of_prototypes = alike.sel(prototype=shared, other=shared).to_numpy().copy()
    if len(sites) > 1:
        with st.container(width=420):
            choices.choose("Adapters at", sites, name="site", default=sites[-1], kind="slider")
    adapters = table.to_numpy().copy()
    pictures = [(f"adapters are at {site}", adapters, "adapters_alike", "adapter_similarity")]
    if of_prototypes is not None:
        pictures.insert(0, ("prototypes are", of_prototypes, "adapters_prototypes", "prototype_similarity"))
    for column, (what, values, key, definition) in zip(st.columns(len(pictures), gap="large"), pictures, strict=True):
        np.fill_diagonal(values, np.nan)
        with column:
            panel(
                f"How alike the {what}",
                matrix_heatmap(
                    values,
                    rows=keys,
                    columns=keys,
                    scale=similarity_scale([values]),
                    value_text="cosine %{z:.3f}",
                    absent_name="itself",
                    row_types=trace.task_types,
                    mode=mode(),
                ),
                key=key,
                reading=adapter_sentences.of_cosines(values)
                + (
                    ""
                    if of_prototypes is not None
                    else f" {adapter_sentences.of_sites(cache.answer(trace, distinct_adapters))}"
                ),
                table=lambda values=values: pd.DataFrame(values, columns=keys).assign(task=keys),  # type: ignore[misc]
                definitions=(definition,),
            )
    if of_prototypes is not None:
        relations = cache.answer(trace, prototype_relations)
        st.markdown(told.of_prototype_relations(relations, site=site))
