"""A number for each task, with its interval and what it must beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from figures.intervals import interval_bars
from figures.pieces import plotly_text
from figures.theme import INKS, NUMBER_TICKS, PERCENT_TICKS, Mode, color_of_task_types, finish
from routing.selection import expert_name

__all__ = ["feature_dots", "score_dots", "share_bars", "task_bars"]

_ROW_PIXELS = 24


def task_bars(
    table: pd.DataFrame,
    *,
    value_title: str,
    task_types: Mapping[str, str],
    reference: float | None = None,
    reference_name: str = "all tasks",
    value_format: str = ".1%",
    mode: Mode = "light",
) -> go.Figure:
    """A bar a task in the table's order, colored by task type, with an interval where there is one.

    Args:
        table: index task · value, and value_low and value_high where there is an interval.
        value_title: of the axis, with the unit.
        task_types: type of each task.
        reference: a value for comparison, drawn across all bars.
        reference_name: what it is.
        value_format: d3 format of the numbers.
        mode: light or dark.
    """
    figure = go.Figure()
    tasks = [str(task) for task in table.index]
    types = [task_types.get(task, "other") for task in tasks]
    value = table["value"].to_numpy(float)
    has_interval = "value_low" in table and np.isfinite(table["value_low"].to_numpy(float)).any()
    for task_type, color in color_of_task_types(types).items():
        rows = np.array([kind == task_type for kind in types])
        positions = np.flatnonzero(rows)
        error = None
        hover = f"<b>%{{text}}</b><br>%{{x:{value_format}}}"
        custom = None
        if has_interval:
            low, high = (table[f"value_{end}"].to_numpy(float)[rows] for end in ("low", "high"))
            error = {
                "type": "data",
                "symmetric": False,
                "array": np.maximum(high - value[rows], 0),
                "arrayminus": np.maximum(value[rows] - low, 0),
                "color": INKS[mode].text,
                "thickness": 1.2,
                "width": 3,
            }
            custom = np.stack([low, high], axis=-1)
            hover += f" (95 %: %{{customdata[0]:{value_format}}} to %{{customdata[1]:{value_format}}})"
        figure.add_bar(
            x=value[rows],
            y=positions,
            text=[plotly_text(tasks[position]) for position in positions],
            textposition="none",
            orientation="h",
            width=0.72,
            marker={"color": color, "line": {"width": 0}},
            error_x=error,
            customdata=custom,
            hovertemplate=hover + "<extra></extra>",
            name=plotly_text(task_type),
        )
    if reference is not None and np.isfinite(reference):
        _reference(figure, reference, name=reference_name, value_format=value_format, mode=mode)
    figure.update_layout(
        barmode="overlay",
        xaxis={"title": {"text": value_title}, "tickformat": _tick_format(value_format), "rangemode": "tozero"},
        yaxis=_rows_axis(tasks),
    )
    return finish(figure, mode=mode, height=_height(len(tasks)))


def score_dots(
    table: pd.DataFrame, *, task_types: Mapping[str, str], value_title: str = "score", mode: Mode = "light"
) -> go.Figure:
    """A dot with its interval a task, and a tick where a constant answer would stand.

    Args:
        table: index task · score, score_low, score_high, baseline (NaN where there is none), metric, n_prompts.
        task_types: type of each task.
        value_title: of the axis.
        mode: light or dark.
    """
    ink = INKS[mode]
    figure = go.Figure()
    tasks = [str(task) for task in table.index]
    types = [task_types.get(task, "other") for task in tasks]
    for task_type, color in color_of_task_types(types).items():
        rows = np.array([kind == task_type for kind in types])
        part = table[rows]
        score = part["score"].to_numpy(float)
        figure.add_scatter(
            x=score,
            y=np.flatnonzero(rows),
            mode="markers",
            marker={"size": 10, "color": color, "line": {"width": 1, "color": ink.paper}},
            error_x=interval_bars(
                score,
                part["score_low"].to_numpy(float),
                part["score_high"].to_numpy(float),
                color=color,
                thickness=2,
            ),
            text=[plotly_text(str(task)) for task in part.index],
            customdata=np.stack(
                [
                    part["metric"].astype(str).to_numpy(object),
                    part["n_prompts"].to_numpy(object),
                    part["score_low"].to_numpy(object),
                    part["score_high"].to_numpy(object),
                ],
                axis=-1,
            ),
            hovertemplate="<b>%{text}</b><br>%{customdata[0]} %{x:.2f} (95 %: %{customdata[2]:.2f} to "
            "%{customdata[3]:.2f})<br>%{customdata[1]} prompts<extra></extra>",
            name=plotly_text(task_type),
        )
    baseline = table["baseline"].to_numpy(float)
    known = np.flatnonzero(np.isfinite(baseline))
    if len(known):
        figure.add_scatter(
            x=baseline[known],
            y=known,
            mode="markers",
            marker={"symbol": "line-ns", "size": 13, "line": {"width": 2, "color": ink.text}},
            name="most frequent answer",
            hovertemplate="most frequent answer: %{x:.2f}<extra></extra>",
        )
    figure.update_layout(
        xaxis={"title": {"text": value_title}, "range": [-0.01, 1.01], "tickformat": NUMBER_TICKS, "dtick": 0.2},
        yaxis=_rows_axis(tasks) | {"showgrid": True},
    )
    return finish(figure, mode=mode, height=_height(len(tasks)))


def feature_dots(table: xr.Dataset, *, n_shown: int = 3, mode: Mode = "light") -> go.Figure:
    """The experts that go most with each feature of the tasks, and what chance makes of the best of all.

    Args:
        table: (feature, layer, expert) · r, p_value; (feature) · null_95.
        n_shown: experts a feature.
        mode: light or dark.
    """
    ink = INKS[mode]
    features = [str(name) for name in table["feature"].values]
    colors = color_of_task_types(features)
    figure = go.Figure()
    for row, feature in enumerate(features):
        r = table["r"].sel(feature=feature).to_numpy()
        p = table["p_value"].sel(feature=feature).to_numpy().ravel()
        order = np.argsort(-np.nan_to_num(r, nan=-np.inf).ravel(), kind="stable")
        places = [int(place) for place in order[:n_shown] if np.isfinite(r.ravel()[place])]
        names = [
            plotly_text(
                expert_name(
                    str(table["layer"].values[place // r.shape[1]]),
                    int(table["expert"].values[place % r.shape[1]]),
                    names=table.attrs.get("expert_names"),
                )
            )
            for place in places
        ]
        beyond = [bool(p[place] <= 0.05) for place in places]
        figure.add_scatter(
            x=r.ravel()[places],
            y=[row] * len(places),
            mode="markers",
            marker={
                "size": 10,
                "color": [colors[feature] if each else ink.paper for each in beyond],
                "line": {"width": 2, "color": colors[feature]},
            },
            text=names,
            customdata=p[places],
            hovertemplate="<b>%{text}</b><br>r %{x:+.2f}<br>p %{customdata:.3f} against shuffled tasks<extra></extra>",
            showlegend=False,
        )
        if names:
            figure.add_annotation(
                x=r.ravel()[places[0]],
                y=row,
                text=names[0],
                showarrow=False,
                yshift=15,
                font={"size": 11, "color": ink.text if beyond[0] else ink.muted},
            )
    figure.add_scatter(
        x=table["null_95"].to_numpy(),
        y=np.arange(len(features)),
        mode="markers",
        marker={"symbol": "line-ns", "size": 20, "line": {"width": 2, "color": ink.text}},
        name="best expert of shuffled tasks, 95 %",
        hovertemplate="shuffled tasks: the best expert reaches %{x:.2f} in one of twenty<extra></extra>",
        showlegend=True,
    )
    figure.update_layout(
        xaxis={"title": {"text": "correlation with being of the type, over tasks"}, "range": [-0.05, 1.05]},
        yaxis=_rows_axis(features) | {"showgrid": True},
    )
    return finish(figure, mode=mode, height=105 + max(3, len(features)) * 46)


def share_bars(
    table: pd.DataFrame, *, task_types: Mapping[str, str], unit: str = "token", mode: Mode = "light"
) -> go.Figure:
    """How much of an expert's work each task brings, largest surplus first, beside the task's share of the tokens.

    Args:
        table: index task · share_of_expert, share_of_tokens.
        task_types: type of each task.
        unit: what a row of the trace is, "token" or "prompt".
        mode: light or dark.
    """
    surplus = (table["share_of_expert"] - table["share_of_tokens"]).fillna(0.0)
    ordered = table.loc[surplus.sort_values(ascending=False, kind="stable").index]
    figure = task_bars(
        ordered.rename(columns={"share_of_expert": "value"}),
        value_title="share of the expert's assignments",
        task_types=task_types,
        mode=mode,
    )
    figure.add_scatter(
        x=ordered["share_of_tokens"],
        y=np.arange(len(ordered)),
        mode="markers",
        marker={"symbol": "line-ns", "size": 15, "line": {"width": 2, "color": INKS[mode].text}},
        name=f"share of the {unit}s",
        hovertemplate=f"%{{x:.1%}} of the {unit}s<extra></extra>",
    )
    return figure


def _reference(figure: go.Figure, value: float, *, name: str, value_format: str, mode: Mode) -> None:
    # A trace of its own, so that the legend names the line.
    last = max(len(trace.y) for trace in figure.data) if figure.data else 1
    rows = sum(len(trace.y) for trace in figure.data)
    figure.add_scatter(
        x=[value, value],
        y=[-0.5, max(rows, last) - 0.5],
        mode="lines",
        line={"color": INKS[mode].text, "width": 1.2, "dash": "dot"},
        name=name,
        hovertemplate=f"{name}: %{{x:{value_format}}}<extra></extra>",
    )


def _rows_axis(tasks: list[str]) -> dict[str, object]:
    return {
        "tickvals": list(range(len(tasks))),
        "ticktext": [plotly_text(task) for task in tasks],
        "range": [len(tasks) - 0.5, -0.5],
        "showgrid": False,
        "zeroline": False,
    }


def _tick_format(value_format: str) -> str:
    sign = "+" if value_format.startswith("+") else ""
    return sign + (PERCENT_TICKS if value_format.endswith("%") else NUMBER_TICKS)


def _height(n_rows: int) -> int:
    return 105 + max(3, n_rows) * _ROW_PIXELS
