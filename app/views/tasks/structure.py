"""Clusters of experts and of tasks: do they hold together, and are they what people call types of task?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from app import choices, headings, slow_answers, state
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.sentences import and_list, count, escaped
from app.views.tasks.part import layers_of, narrowed
from app.views.tasks.questions import structure
from app.views.tasks.structure_sentences import of_expert_clusters, of_task_clusters
from figures.grid import ColorScale
from figures.square import matrix_heatmap
from figures.theme import NUMBER_TICKS
from figures.type_heatmap import cluster_type_heatmap
from routing import RoutingTrace, Selection, expert_name

__all__ = ["draw_structure"]

_OF = {"expert": "experts by the tasks they serve", "task": "tasks by the experts they use"}
_METHODS = {"tree": "hierarchical", "blocks": "co-clustering", "density": "HDBSCAN"}
_MOST_MEMBERS = 12
_DEFINITIONS = ("clusters", "silhouette", "stability", "found_again", "co_clusters", "density_clusters")


def draw_structure(trace: RoutingTrace, selection: Selection) -> None:
    """Draw clusters, what speaks for them, and how they agree with the types that people gave the tasks."""
    with st.container(horizontal=True, gap="medium"):
        of = choices.choose("Clusters of", tuple(_OF), name="clusters_of", shown=_OF.__getitem__)
        method = choices.choose(
            "By",
            tuple(_METHODS),
            name="clusters_by",
            shown=_METHODS.__getitem__,
            help="Hierarchical: Ward's tree, cut where the silhouette is best. Co-clustering: blocks of experts and "
            "tasks together. HDBSCAN: dense regions; what is in none stays out.",
        )
    found = slow_answers.tables(
        trace,
        structure,
        what=f"{'Experts' if of == 'expert' else 'Tasks'} are being clustered and tested",
        slow=True,
        within=narrowed(selection),
        of=of,
        method=method,
        layers=tuple(selection.layers),
    )
    if found is None:
        return
    items, about = found["items"], found["about"].iloc[0]
    sizes = items.loc[items["cluster"] >= 0, "cluster"].value_counts().tolist()
    if of == "expert":
        _experts(trace, selection, found, reading=of_expert_clusters(about, sizes))
    else:
        _tasks(trace, selection, found, reading=of_task_clusters(about, sizes))


def _experts(trace: RoutingTrace, selection: Selection, found: slow_answers.Tables, *, reading: str) -> None:
    if "types" not in found:
        headings.part("Clusters of experts")
        st.markdown(reading)
        return
    table = found["types"].set_index(["cluster", "task_type"]).to_xarray()
    table["n_experts"] = table["n_experts"].isel(task_type=0)
    panel(
        "Clusters of experts × types of tasks",
        cluster_type_heatmap(table, mode=mode()),
        key="tasks_types",
        reading=reading,
        table=lambda: found["items"].drop(columns="place"),
        definitions=_DEFINITIONS + ("expert_task_types", "expert_agreement"),
    )
    if set(layers_of(trace, selection)) < set(trace.layers):
        st.caption("Only experts of the selected layers are clustered.")
    items = found["items"]
    for _, part in items[items["cluster"] >= 0].groupby("cluster"):
        names = [
            escaped(expert_name(str(row.layer), int(row.expert), names=trace.expert_names))
            for row in part.sort_values("place").itertuples()
        ]
        st.caption(f"{count(len(part), 'expert')}: {and_list(names, most=_MOST_MEMBERS)}")


def _tasks(trace: RoutingTrace, selection: Selection, found: slow_answers.Tables, *, reading: str) -> None:
    items = found["items"]
    if len(items) < 2:
        empty("A single task has nothing to be grouped with.", "Select more tasks.")
        return
    # Those that are in no cluster come last.
    last = items["cluster"].where(items["cluster"] >= 0, items["cluster"].max() + 1)
    order = items.assign(cluster_place=last).sort_values(["cluster_place", "place"], kind="stable").index.to_numpy()
    values = found["values"].to_numpy(float)[np.ix_(order, order)]
    names = items["task"].to_numpy()[order].tolist()
    groups = items["cluster"].to_numpy()[order]

    def clicked(click: Click) -> None:
        row = round(float(click.y))
        if 0 <= row < len(names):
            tasks = (str(names[row]),)
            state.select(replace(selection, tasks=() if selection.tasks == tasks else tasks))

    figure = matrix_heatmap(
        values,
        rows=names,
        columns=names,
        scale=ColorScale(
            title="correlation of lifts", low=-1.0, high=1.0, diverging=True, tick_format=f"+{NUMBER_TICKS}"
        ),
        value_text="r %{z:+.2f} between the lifts of all experts",
        row_types=trace.task_types,
        mode=mode(),
    )
    figure.update_layout(shapes=[*figure.layout.shapes, *_dividers(groups)])
    panel(
        "How alike tasks are routed, by group",
        figure,
        key="tasks_alike",
        reading=f"{reading} Lines part the groups.",
        table=lambda: items.drop(columns="place").sort_values("cluster"),
        definitions=_DEFINITIONS + ("hierarchical_order", "agreement"),
        on_click=clicked,
    )


def _dividers(groups: np.ndarray) -> list[dict[str, object]]:
    line = {"color": "rgba(128,128,128,0.9)", "width": 1.5}
    places = [float(place) - 0.5 for place in np.flatnonzero(np.diff(groups)) + 1]
    across = [{"type": "line", "x0": 0, "x1": 1, "xref": "x domain", "y0": y, "y1": y, "line": line} for y in places]
    down = [{"type": "line", "y0": 0, "y1": 1, "yref": "y domain", "x0": x, "x1": x, "line": line} for x in places]
    return [*across, *down]
