"""How uneven a layer is in one text, in a batch, and over the whole run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from figures.dots import interval_dots
from figures.theme import Mode

__all__ = ["scale_dots"]

_NAMES = {"sequence": "one text", "batch": "one batch", "run": "the whole run"}


def scale_dots(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """The busiest expert of each layer at three scales, beside texts and batches of independent tokens.

    Args:
        table: (scale, layer) · max_over_mean with _low and _high, load_alone, as `analysis.balance_scales` gives them.
        mode: light or dark.
    """
    layers = list(dict.fromkeys(str(layer) for layer in table.index.get_level_values("layer")))
    scales = [scale for scale in _NAMES if scale in set(table.index.get_level_values("scale"))]
    parts = {scale: table.xs(scale, level="scale").reindex(layers) for scale in scales}
    ends = ("max_over_mean", "max_over_mean_low", "max_over_mean_high")
    return interval_dots(
        layers,
        {_NAMES[scale]: tuple(part[end].to_numpy(float) for end in ends) for scale, part in parts.items()},
        value_title="busiest expert ÷ mean",
        marks={
            f"{_NAMES[scale]} of independent tokens": parts[scale]["load_alone"].to_numpy(float)
            for scale in ("sequence", "batch")
            if scale in parts and np.isfinite(parts[scale]["load_alone"]).any()
        },
        number_format=".2f",
        mode=mode,
    ).update_layout(xaxis_rangemode="tozero")
