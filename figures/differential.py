"""Experts that two sets of prompts use differently: one cell an expert."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from figures.grid import log2_scale
from figures.heatmap import layer_expert_heatmap
from figures.theme import Mode

__all__ = ["differential_heatmap"]

_MOST_DOUBLINGS = 4.0


def differential_heatmap(
    table: pd.DataFrame,
    *,
    exists: xr.DataArray,
    names: tuple[str, str] = ("A", "B"),
    selected: Iterable[tuple[str, int]] = (),
    mode: Mode = "light",
) -> go.Figure:
    """Each expert's use by one set over that by the other, on a doubling scale; what chance would do is gray.

    Args:
        table: rows of layer, expert, rate_one, rate_other, lift, q_value, significant, as `analysis.differential` gives
            them.
        exists: (layer, expert) · which experts a layer has.
        names: of the two sets.
        selected: experts to frame.
        mode: light or dark.
    """
    layers = [str(label) for label in exists["layer"].values]
    shape = (len(layers), exists.sizes["expert"])
    row = table["layer"].map({label: number for number, label in enumerate(layers)}).to_numpy()
    place = (row, table["expert"].to_numpy(int))
    lift, told = np.full(shape, np.nan), np.full((*shape, 3), np.nan, dtype=np.float32)
    muted = np.zeros(shape, bool)
    one_sided = (table["rate_one"] == 0) != (table["rate_other"] == 0)
    values = table["lift"].mask(one_sided, np.sign(table["difference"]) * np.inf).to_numpy(float)
    finite = np.abs(values[np.isfinite(values)])
    limit = min(_MOST_DOUBLINGS, float(np.ceil(finite.max()))) if len(finite) else 1.0
    # An expert that one set never uses lies beyond any scale, and is not unknown.
    lift[place] = np.clip(values, -max(1.0, limit), max(1.0, limit))
    muted[place] = ~table["significant"].to_numpy(bool)
    for number, column in enumerate(("rate_one", "rate_other", "q_value")):
        told[(*place, number)] = table[column].to_numpy(float)
    one, other = names
    return layer_expert_heatmap(
        xr.DataArray(lift, dims=("layer", "expert"), coords={"layer": layers, "expert": np.arange(shape[1])}),
        scale=log2_scale([lift], title=f"use by {one} ÷ use by {other}", most=_MOST_DOUBLINGS),
        exists=exists,
        selected=selected,
        mode=mode,
        muted=muted & np.isfinite(lift),
        hover=f"<b>%{{text}}</b><br>{one}: %{{customdata[0]:.1%}} of the tokens<br>{other}: %{{customdata[1]:.1%}}"
        "<br>q %{customdata[2]:.3f} against prompts dealt at random",
        customdata=told,
    )
