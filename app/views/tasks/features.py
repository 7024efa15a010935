"""Experts against what is known of tasks and prompts: type, domain, form, length, and any column of the user."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from app import choices, slow_answers
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.views.tasks.feature_table import LENGTH, feature_columns, held_columns
from app.views.tasks.part import is_large, layers_of, narrowed, pick, picked_row
from app.views.tasks.part_sentences import of_features, of_held_fixed
from app.views.tasks.questions import feature_cells
from figures.dots import interval_dots
from figures.grid import ColorScale
from figures.task_heatmap import cells_of, task_expert_heatmap
from figures.theme import NUMBER_TICKS
from routing import RoutingTrace, Selection, expert_name

__all__ = ["draw_features", "strongest_of"]

_NAMES = {"task_type": "task type", LENGTH: "length of the prompt", "source": "source"}
_DEFINITIONS = {"task": ("feature_correlation",), "prompt": ("prompt_correlation", "prompt_features")}
_MOST_ROWS = 24
_NOTHING = "nothing"


def draw_features(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the correlation of every expert with each value of a column, and what chance makes of the best of all."""
    columns = feature_columns(trace)
    if trace.level == "counts":
        columns = {name: kind for name, kind in columns.items() if kind == "task"}
    if not columns:
        empty(
            "Nothing is known of the tasks or prompts of this run that differs between them.",
            "Add columns to the table of prompts or `features` to the tasks, and record it again.",
        )
        return
    column = choices.chosen("feature", tuple(columns))
    kind = columns[column]
    within_task = kind == "prompt" and choices.is_on("within_task", default=True)
    fixed = (_NOTHING, *(held_columns(trace, columns, column=column) if kind == "task" else ()))
    held = "" if (fixed_one := choices.chosen("held", fixed)) == _NOTHING else fixed_one
    found = slow_answers.tables(
        trace,
        feature_cells,
        what=f"Experts are correlated with {_name(column)}",
        slow=kind == "prompt" or is_large(trace),
        within=narrowed(selection),
        column=column,
        kind=kind,
        within_task=within_task,
        held=held,
    )
    _controls(columns, kind, fixed=fixed)
    if found is None:
        return
    layers = layers_of(trace, selection)
    cells = found["cells"][found["cells"]["layer"].isin(layers)]
    strongest = strongest_of(cells, found["features"])
    if strongest.empty:
        empty(
            of_held_fixed(found["features"], held=_name(held))
            if held and len(found["features"])
            else of_features(strongest, column=_name(column), unit=kind, names=trace.expert_names),
            "Choose another feature, or select more tasks.",
        )
        return
    # A rate over all prompts is no measure of what goes together within tasks.
    told = strongest.assign(lift=np.nan) if within_task else strongest
    reading = of_features(told, column=_name(column), unit=kind, names=trace.expert_names)
    if held:
        reading = f"{of_held_fixed(found['features'], held=_name(held))} {reading}"
    title = f"Experts × {_name(column)}" + (f", {_name(held)} held fixed" if held else "")
    definitions = ("partial_correlation",) if held else _DEFINITIONS[kind]
    _matrix(trace, selection, cells, layers=layers, title=title, kind=kind, reading=reading, definitions=definitions)
    _dots(trace, selection, strongest, kind=kind, definitions=definitions)


def strongest_of(cells: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    """The expert that goes most with each feature, whatever the sign, beside what chance makes of the best of all.

    Returns:
        (row) · feature, layer, expert, r, p_max, lift, null_95, n, and r_low, r_high where there is an interval.
    """
    known = cells.dropna(subset=["r"])
    if known.empty:
        return known.assign(null_95=np.nan, n=0)
    # Within tasks an expert's r has a spread of its own, and the farthest beyond it is the one to name.
    reach = known["r"].abs() / known["limit"].where(known["limit"] > 0, 1.0).fillna(1.0)
    best = known.loc[reach.groupby(known["feature"], sort=False).idxmax()]
    return best.merge(features, on="feature", how="left").reset_index(drop=True)


def _name(column: str) -> str:
    return _NAMES.get(column, column.replace("_", " "))


def _controls(columns: dict[str, str], kind: str, *, fixed: tuple[str, ...]) -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        with st.container(width=320):
            choices.choose(
                "Feature",
                tuple(columns),
                name="feature",
                shown=lambda name: f"{_name(name)} (of {'tasks' if columns[name] == 'task' else 'prompts'})",
                kind="select",
                help="Features of tasks are compared over tasks and dealt to tasks for chance, those of prompts over "
                "prompts.",
            )
        if len(fixed) > 1:
            with st.container(width=280):
                choices.choose(
                    "Held fixed",
                    fixed,
                    name="held",
                    shown=_name,
                    kind="select",
                    help="What this explains over tasks is taken from the feature and from every expert: what is left "
                    "is correlated (partial correlation). Tasks of a type are often alike in length, too.",
                )
        if kind == "prompt":
            choices.toggle(
                "Within tasks",
                name="within_task",
                default=True,
                help="Takes what the task explains from both, and deals values to prompts of the same task.",
            )


def _matrix(
    trace: RoutingTrace,
    selection: Selection,
    cells: pd.DataFrame,
    *,
    layers: list[str],
    title: str,
    kind: str,
    reading: str,
    definitions: tuple[str, ...],
) -> None:
    rows = list(dict.fromkeys(cells["feature"]))[:_MOST_ROWS]
    table = cells.set_index(["feature", "layer", "expert"]).to_xarray().sel(feature=rows, layer=layers)
    tested = bool(table["p_max"].notnull().any())
    drawn = cells_of(
        table["r"],
        exists=trace.expert_exists,
        rows=rows,
        muted=~(table["p_max"] <= 0.05) & table["r"].notnull() if tested else None,
        details=(table["p_max"], (table["lift"], np.exp2)),
    )

    def clicked(click: Click) -> None:
        if not isinstance(click.customdata, int):
            pick(selection, drawn.at(float(click.x), float(click.y))[1])

    rate = "the rate of all tasks" if kind == "task" else "the rate of the other prompts"
    ends = np.abs(table["r"].to_numpy())
    most = max(0.3, float(ends[np.isfinite(ends)].max(initial=0.0)))
    panel(
        title,
        task_expert_heatmap(
            drawn,
            scale=ColorScale(
                title="correlation r", low=-most, high=most, diverging=True, tick_format=f"+{NUMBER_TICKS}"
            ),
            value_text=f"r %{{z:+.2f}}<br>×%{{customdata[1]:.2f}} {rate}<br>p %{{customdata[0]:.3f}} against the best "
            "of all experts by chance",
            task_types={name: name for name in rows} if set(rows) <= set(trace.task_types.values()) else {},
            selected=selection.experts,
            names=trace.expert_names,
            mode=mode(),
            # Rows are named already, and a value of some column has no color of its own.
        ).update_traces(showlegend=False, selector={"type": "bar"}),
        key="tasks_feature_cells",
        reading=reading,
        table=lambda: cells.dropna(subset=["r"]).sort_values("r", key=np.abs, ascending=False),
        definitions=definitions,
        on_click=clicked,
    )


def _dots(
    trace: RoutingTrace, selection: Selection, strongest: pd.DataFrame, *, kind: str, definitions: tuple[str, ...]
) -> None:
    shown = strongest.head(_MOST_ROWS)
    names = [
        f"{row.feature} · {expert_name(str(row.layer), int(row.expert), names=trace.expert_names)}"
        for row in shown.itertuples()
    ]
    ends = ("r_low", "r_high") if "r_low" in shown else ()
    low, high = (shown[end].to_numpy(float) for end in ends) if ends else (None, None)
    limit = np.sign(shown["r"]).to_numpy(float) * shown["limit"].to_numpy(float)
    panel(
        "The strongest expert of each, beside the strongest by chance",
        interval_dots(
            names,
            {"r": (shown["r"].to_numpy(float), low, high)},
            value_title=f"correlation over {kind}s",
            marks={"best of all experts by chance, 95 %": limit}
            | ({"with nothing held": shown["plain_r"].to_numpy(float)} if "plain_r" in shown else {}),
            strong=(shown["p_max"] <= 0.05).to_numpy(bool),
            zero_line=True,
            number_format="+.2f",
            mode=mode(),
        ).update_layout(xaxis_range=[-1.05, 1.05]),
        key="tasks_feature_best",
        reading=_of_dots(shown),
        table=lambda: strongest,
        definitions=definitions,
        on_click=lambda click: picked_row(selection, shown, click),
    )


def _of_dots(shown: pd.DataFrame) -> str:
    beyond = int((shown["p_max"] <= 0.05).sum())
    return (
        f"{beyond} of {len(shown)} reach past the ticks, which the best of all experts passes in one of twenty random "
        "deals; hollow dots are what chance would give. Click a dot to see that expert."
    )
