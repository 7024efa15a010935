"""Devices and the experts that live on them: one cell a device of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from figures.grid import log2_scale
from figures.pieces import plotly_text
from figures.square import matrix_heatmap
from figures.theme import Mode
from routing.selection import expert_name

__all__ = ["device_load_heatmap"]

_MOST_NAMED = 12


def device_load_heatmap(
    load: xr.DataArray,
    *,
    slots: np.ndarray,
    beside: Iterable[xr.DataArray] = (),
    names: Mapping[str, Sequence[str]] | None = None,
    largest_factor: float = 8.0,
    mode: Mode = "light",
) -> go.Figure:
    """The load of each device in each layer against the mean of the layer's devices, on a doubling scale.

    Cells count devices across and layers down from 0, which is also what a click reports.

    Args:
        load: (layer, device) · share of the layer's assignments, of one placement; NaN where there is no such device.
        slots: (layer, slot) · expert in each slot, those of a device together; −1 where one is empty.
        beside: loads of other placements that are drawn on the same scale.
        names: names of the experts of a layer, as in `trace.expert_names`.
        largest_factor: the scale ends here at the latest.
        mode: light or dark.
    """
    load = load.dropna("device", how="all")
    factor = _factor(load)
    scale = log2_scale(
        [_doublings(each) for each in (factor, *(_factor(each) for each in beside))],
        title="load ÷ mean device",
        most=float(np.log2(largest_factor)),
    )
    layers = [str(layer) for layer in load["layer"].values]
    n_devices = load.sizes["device"]
    # A device without work lies below every scale; it is drawn at the lower end, and its factor says 0.
    values = np.where(factor == 0, scale.low, _doublings(factor))
    figure = matrix_heatmap(
        values,
        rows=layers,
        columns=[str(device) for device in range(n_devices)],
        scale=scale,
        value_text="%{customdata[0]:.2f} × the mean device",
        row_title="layer",
        column_title="device",
        details=factor[..., None],
        absent_name="nothing routed",
        mode=mode,
    )
    texts = np.array(
        [
            [
                f"{plotly_text(layer)} · device {device}: {_held(layer, experts, names=names)}"
                for device, experts in enumerate(held.reshape(n_devices, -1))
            ]
            for layer, held in zip(layers, slots, strict=True)
        ],
        dtype=object,
    ).reshape(len(layers), n_devices)
    for trace in figure.data:
        if trace.type == "heatmap":
            trace.text = texts
    return figure


def _factor(load: xr.DataArray) -> np.ndarray:
    values = load.transpose("layer", "device").to_numpy().astype(float)
    n_known = np.isfinite(values).sum(axis=1, keepdims=True)
    mean = np.where(n_known > 0, np.nansum(values, axis=1, keepdims=True) / np.maximum(n_known, 1), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = values / mean
    return found


def _doublings(factor: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        found: np.ndarray = np.log2(factor)
    return found


def _held(layer: str, experts: np.ndarray, *, names: Mapping[str, Sequence[str]] | None) -> str:
    there = [int(expert) for expert in dict.fromkeys(experts.tolist()) if expert >= 0]
    if not there:
        return "no expert"
    said = [
        plotly_text(expert_name(layer, expert, names=names).removeprefix(f"{layer}·")) for expert in there[:_MOST_NAMED]
    ]
    more = f" and {len(there) - _MOST_NAMED} more" if len(there) > _MOST_NAMED else ""
    return ", ".join(said) + more
