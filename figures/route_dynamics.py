"""Experts that go with features of tasks, over training, beside what chance would do."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from figures.pieces import plotly_text
from figures.theme import INKS, Mode, color_of_task_types, finish

__all__ = ["correlation_curves"]

_DASHES = ("solid", "dash", "dot", "dashdot")


def correlation_curves(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """A line an expert: its correlation with a feature at each step; between the dotted lines lies chance.

    The band is what the largest |r| of all experts stays within in 95 % of random deals of the features, the widest of
    the shown features. Experts of one feature share its color and differ in dash; the hover gives each step's own null.

    Args:
        table: index step, feature, layer, expert · r, null_95, p_value, as `analysis.route_dynamics` gives them; a
            column `name`, if there is one, says what an expert is called.
        mode: light or dark.
    """
    ink, figure = INKS[mode], go.Figure()
    rows = table.reset_index()
    steps = sorted(int(step) for step in rows["step"].unique())
    # Snapshots are taken close together early on: by the number they would lie on one another.
    even = len(steps) < 3 or min(b - a for a, b in pairwise(steps)) > 0.08 * (steps[-1] - steps[0])
    place = {step: step if even else number for number, step in enumerate(steps)}
    features = list(dict.fromkeys(rows["feature"].astype(str)))
    colors = color_of_task_types(features)
    limit = rows.groupby("step")["null_95"].max().reindex(steps).to_numpy(dtype=float)
    for sign in (1, -1):
        figure.add_scatter(
            x=[place[step] for step in steps],
            y=sign * limit,
            mode="lines",
            line={"color": ink.muted, "width": 1.2, "dash": "dot"},
            hoverinfo="skip",
            name="95 % of the largest by chance",
            showlegend=sign == 1 and bool(np.isfinite(limit).any()),
            legendgroup="chance",
        )
    for feature in features:
        of_feature = rows[rows["feature"] == feature]
        experts = list(of_feature.groupby(["layer", "expert"], sort=False))
        for number, ((layer, expert), part) in enumerate(experts):
            part = part.sort_values("step")
            called = str(part["name"].iloc[0]) if "name" in part else f"{layer}·E{expert}"
            figure.add_scatter(
                x=part["step"].map(place),
                y=part["r"],
                mode="lines+markers",
                line={"color": colors[feature], "width": 2, "dash": _DASHES[number % len(_DASHES)]},
                marker={"size": 6, "color": colors[feature]},
                name=plotly_text(f"{feature}: {called}"),
                customdata=part[["step", "null_95", "p_value"]].to_numpy(dtype=float),
                hovertemplate=(
                    f"<b>{plotly_text(called)}</b> with {plotly_text(feature)}<br>step %{{customdata[0]:,.0f}}: "
                    "r %{y:.2f}<br>by chance below %{customdata[1]:.2f}, p %{customdata[2]:.3f}<extra></extra>"
                ),
            )
    figure.update_layout(
        xaxis={
            "title": {"text": "training step" if even else "training step (not to scale)"},
            "tickvals": [place[step] for step in steps],
            "ticktext": [f"{step:,}" for step in steps],
            "tickangle": 0,
        },
        yaxis={"title": {"text": "correlation r over tasks"}, "range": [-1.05, 1.05], "zeroline": True},
    )
    n_lines = sum(trace.showlegend is not False for trace in figure.data)
    return finish(figure, mode=mode, height=320 + 20 * (n_lines // 4))
