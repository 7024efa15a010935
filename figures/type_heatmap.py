"""Clusters of experts × types of tasks: are there experts for a type?"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from figures.grid import add_hatch, add_heatmap, log2_scale
from figures.pieces import plotly_text
from figures.theme import INKS, Mode, finish

__all__ = ["cluster_type_heatmap"]

_ROW_PIXELS = 34


def cluster_type_heatmap(table: xr.Dataset, *, largest_q: float = 0.05, mode: Mode = "light") -> go.Figure:
    """How much more each group of experts serves a type of task than it serves all; what chance would do is gray.

    Args:
        table: (cluster, task_type) · mean in log2 ratio, q_value; (cluster) · n_experts.
        largest_q: cells above it recede.
        mode: light or dark.
    """
    mean = table["mean"].transpose("cluster", "task_type").to_numpy()
    q = table["q_value"].transpose("cluster", "task_type").to_numpy()
    types = [plotly_text(str(name)) for name in table["task_type"].values]
    sizes = table["n_experts"].to_numpy()
    clusters = [f"{int(size)} experts" if size > 1 else "1 expert" for size in sizes]
    scale = log2_scale([mean], title="use ÷ overall", most=4.0)
    figure = go.Figure()
    add_heatmap(
        figure,
        mean,
        scale=scale,
        mode=mode,
        hover="%{text}<br>×%{customdata[0]:.2f} what it is overall<br>q %{customdata[1]:.3f}",
        customdata=np.stack([np.exp2(mean), q], axis=-1).astype(np.float32),
        muted=~(q <= largest_q) & np.isfinite(mean),
        gaps=(2, 2),
    )
    for trace in figure.data:
        trace.text = [[f"<b>{cluster} · {kind}</b>" for kind in types] for cluster in clusters]
    add_hatch(figure, ~np.isfinite(mean), mode=mode, name="no number")
    figure.update_layout(
        coloraxis=scale.layout(mode),
        xaxis={
            "tickvals": list(range(len(types))),
            "ticktext": types,
            "range": [-0.5, len(types) - 0.5],
            "showgrid": False,
            "zeroline": False,
            "tickfont": {"color": INKS[mode].text},
        },
        yaxis={
            "tickvals": list(range(len(clusters))),
            "ticktext": clusters,
            "range": [len(clusters) - 0.5, -0.5],
            "showgrid": False,
            "zeroline": False,
            "tickfont": {"color": INKS[mode].text},
        },
    )
    return finish(figure, mode=mode, height=80 + max(4, len(clusters)) * _ROW_PIXELS)
