"""How a number of single tokens is spread in each layer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from figures.grid import thinned
from figures.pieces import plotly_text
from figures.theme import INKS, OKABE_ITO, Mode, finish

__all__ = ["spread_by_layer"]


def spread_by_layer(
    table: pd.DataFrame, *, value_title: str, reference: float | None = None, mode: Mode = "light"
) -> go.Figure:
    """Layers downward: the middle half of the tokens as a bar, nine in ten as a line, the median as a dot.

    Args:
        table: index layer · q05, q25, q50, q75, q95; rows of NaN are left empty.
        value_title: of the axis, with the unit.
        reference: a value to compare with, drawn across.
        mode: light or dark.
    """
    ink = INKS[mode]
    layers = [str(layer) for layer in table.index]
    rows = np.arange(len(layers))
    figure = go.Figure()
    for low, high, width, opacity, name in (
        ("q05", "q95", 2, 0.9, "9 in 10 tokens"),
        ("q25", "q75", 9, 0.45, "middle half"),
    ):
        xs = np.stack([table[low], table[high], np.full(len(table), np.nan)], axis=1).ravel()
        ys = np.stack([rows, rows, np.full(len(table), np.nan)], axis=1).ravel()
        figure.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={"color": OKABE_ITO[0], "width": width},
            opacity=opacity,
            name=name,
            hoverinfo="skip",
            showlegend=True,
        )
    quantiles = ["q05", "q25", "q75", "q95"]
    figure.add_scatter(
        x=table["q50"],
        y=rows,
        mode="markers",
        marker={"size": 9, "color": OKABE_ITO[5], "line": {"width": 1, "color": ink.paper}},
        text=[plotly_text(layer) for layer in layers],
        customdata=table[quantiles].to_numpy(np.float32),
        hovertemplate=(
            "<b>%{text}</b><br>median %{x:.4f}<br>middle half %{customdata[1]:.4f} to %{customdata[2]:.4f}"
            "<br>9 in 10 %{customdata[0]:.4f} to %{customdata[3]:.4f}<extra></extra>"
        ),
        name="median",
        showlegend=True,
    )
    if reference is not None:
        figure.add_vline(x=reference, line={"color": ink.muted, "width": 1.2, "dash": "dot"})
    shown = thinned(layers, most=40)
    figure.update_layout(
        xaxis={"title": {"text": value_title}, "zeroline": True},
        yaxis={
            "title": {"text": "layer"},
            "tickvals": shown,
            "ticktext": [plotly_text(layers[row]) for row in shown],
            "range": [len(layers) - 0.5, -0.5],
            "showgrid": False,
            "zeroline": False,
        },
    )
    per_row = 30 if len(layers) <= 16 else 18
    return finish(figure, mode=mode, height=115 + max(3, len(layers)) * per_row)
