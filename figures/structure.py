"""Who works with whom, who follows whom, and which layers tell about which."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from figures.grid import ColorScale, log2_scale
from figures.square import matrix_heatmap
from figures.theme import Mode

__all__ = ["coactivation_matrix", "layer_information_matrix", "transition_matrix"]


def coactivation_matrix(table: xr.Dataset, *, layer: str, mode: Mode = "light") -> go.Figure:
    """Pairs of experts of a layer: how much oftener they are chosen together than chance; the others are pale.

    Args:
        table: (layer, expert, other) · lift, rate, significant, as `analysis.coactivation` gives them.
        layer: label of the layer.
        mode: light or dark.
    """
    part = table.sel(layer=layer)
    return _lifts(part, rows="expert", columns="other", title="together ÷ chance", mode=mode, verb="with")


def transition_matrix(table: xr.Dataset, *, step: str, mode: Mode = "light") -> go.Figure:
    """Which expert of the next layer follows which, against independent layers; the others are pale.

    Args:
        table: (step, expert, next_expert) · lift, rate, significant, as `analysis.transitions` gives them.
        step: name of the step, as in "L00→L01".
        mode: light or dark.
    """
    part = table.sel(step=step)
    figure = _lifts(part, rows="expert", columns="next_expert", title="follows ÷ chance", mode=mode, verb="then")
    now, then = str(part["layer"].item()), str(part["next_layer"].item())
    return figure.update_layout(xaxis_title_text=f"expert of {then}", yaxis_title_text=f"expert of {now}")


def layer_information_matrix(table: xr.Dataset, *, mode: Mode = "light") -> go.Figure:
    """How much of one layer's choice another layer's settles, beyond chance.

    Args:
        table: (layer, other) · share, excess_nats, p_value, as `analysis.layer_information` gives them.
        mode: light or dark.
    """
    share = table["share"].to_numpy()
    names = [str(layer) for layer in table["layer"].values]
    highest = float(np.nanmax(share)) if np.isfinite(share).any() else 1.0
    return matrix_heatmap(
        share,
        rows=names,
        columns=[str(layer) for layer in table["other"].values],
        scale=ColorScale(title="share of the choice settled", low=0.0, high=max(highest, 0.01), tick_format=".0%"),
        value_text="%{z:.1%} beyond chance<br>%{customdata[0]:.2f} nats, p = %{customdata[1]:.2g}",
        row_title="layer",
        column_title="layer",
        details=np.stack([table["excess_nats"].to_numpy(), table["p_value"].to_numpy()], axis=-1),
        absent_name="the same layer, or none of the same tokens",
        mode=mode,
    )


def _lifts(part: xr.Dataset, *, rows: str, columns: str, title: str, mode: Mode, verb: str) -> go.Figure:
    lift = part["lift"].to_numpy()
    rate = part["rate"].to_numpy()
    with np.errstate(over="ignore"):
        details = np.stack([2.0**lift, rate], axis=-1)
    return matrix_heatmap(
        lift,
        rows=[f"E{number}" for number in part[rows].values],
        columns=[f"E{number}" for number in part[columns].values],
        scale=log2_scale([lift], title=title, most=4.0),
        value_text=f"{verb} it %{{customdata[0]:.2f}} times as often as by chance<br>%{{customdata[1]:.1%}} "
        "of its tokens",
        row_title="expert",
        column_title="expert",
        details=details,
        muted=~part["significant"].to_numpy() & np.isfinite(lift),
        absent_name="nothing to compare",
        mode=mode,
    )
