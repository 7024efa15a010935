"""Layer × expert: one cell an expert."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from figures.grid import ColorScale, add_hatch, add_heatmap, log2_scale, outlines, thinned
from figures.pieces import plotly_text
from figures.theme import INKS, Mode, finish
from routing.selection import expert_name

__all__ = ["layer_expert_heatmap", "load_heatmap"]

_MOST_TICKS = 32
# Lower, and the color bar has no room for its ticks.
_LEAST_PIXELS = 150


def load_heatmap(
    load: xr.DataArray,
    *,
    exists: xr.DataArray,
    selected: Iterable[tuple[str, int]] = (),
    beside: xr.DataArray | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    mode: Mode = "light",
    largest_factor: float = 8.0,
) -> go.Figure:
    """Each expert's load against the even share of its layer, on a doubling scale.

    Experts that nobody chose carry a cross; what a layer does not have is hatched.

    Args:
        load: (layer, expert) · share of assignments, sums to 1 over expert.
        exists: (layer, expert) · which experts a layer has.
        selected: experts to frame, as (layer, expert).
        beside: the load of another run that is drawn on the same scale.
        names: names of the experts of a layer, as in `trace.expert_names`.
        mode: light or dark.
        largest_factor: the scale ends here at the latest.
    """
    share, factor, doublings = _doublings(load)
    idle = factor == 0
    seen = [doublings] if beside is None else [doublings, _doublings(beside)[2]]
    scale = log2_scale(seen, title="load ÷ even share", most=float(np.log2(largest_factor)))
    figure = layer_expert_heatmap(
        load.copy(data=np.where(idle, scale.low, doublings)),
        scale=scale,
        exists=exists,
        selected=selected,
        mode=mode,
        hover="<b>%{text}</b><br>%{customdata[0]:.2f} × the even share<br>%{customdata[1]:.2%} of "
        + ("weight" if load.attrs.get("measure") == "routed weight" else "assignments"),
        names=names,
        customdata=np.stack([factor, share], axis=-1).astype(np.float32),
    )
    rows, columns = np.nonzero(idle)
    if len(rows):
        figure.add_scatter(
            x=columns,
            y=rows,
            mode="markers",
            marker={"symbol": "x-thin", "size": 7, "line": {"width": 1.5, "color": INKS[mode].text}},
            hoverinfo="skip",
            name="idle: never chosen",
            showlegend=True,
        )
    return figure


def layer_expert_heatmap(
    table: xr.DataArray,
    *,
    scale: ColorScale,
    exists: xr.DataArray,
    hover: str,
    customdata: np.ndarray | None = None,
    muted: np.ndarray | None = None,
    selected: Iterable[tuple[str, int]] = (),
    names: Mapping[str, Sequence[str]] | None = None,
    mode: Mode = "light",
) -> go.Figure:
    """A number for each expert, layers downward in the order of the model.

    Cell positions count rows and columns from 0, which is also what a click reports.

    Args:
        table: (layer, expert) · the numbers, NaN where there is none.
        scale: how they become colors.
        exists: (layer, expert) · which experts a layer has.
        hover: Plotly hover template; text is the name of the expert.
        customdata: layers × experts × fields, for the hover.
        muted: layers × experts, which cells recede.
        selected: experts to frame, as (layer, expert).
        names: names of the experts of a layer, as in `trace.expert_names`.
        mode: light or dark.
    """
    table = table.transpose("layer", "expert")
    layers = [plotly_text(str(label)) for label in table["layer"].values]
    n_experts = table.sizes["expert"]
    figure = go.Figure()
    absent = ~exists.transpose("layer", "expert").to_numpy()
    add_heatmap(
        figure,
        table.to_numpy(),
        hover=hover,
        customdata=customdata,
        muted=muted,
        gaps=(1, 1) if n_experts <= 128 else (0, 1),
    )
    # The hover names the expert, so the names travel with the cells.
    texts = np.array(
        [
            [plotly_text(expert_name(str(label), expert, names=names)) for expert in range(n_experts)]
            for label in table["layer"].values
        ],
        dtype=object,
    )
    for cells in figure.data:
        cells.text = texts
    add_hatch(figure, absent, mode=mode, name="not in this layer")
    add_hatch(figure, ~absent & ~np.isfinite(table.to_numpy()), mode=mode, name="no tokens")
    numbers = {str(label): row for row, label in enumerate(table["layer"].values)}
    picked = [(expert, expert, numbers[layer], numbers[layer]) for layer, expert in selected if layer in numbers]
    shown = thinned(layers, most=_MOST_TICKS)
    ticks = thinned([str(number) for number in range(n_experts)], most=_MOST_TICKS)
    figure.update_layout(
        coloraxis=scale.layout(mode),
        shapes=outlines(picked, mode=mode),
        xaxis={
            "title": {"text": "expert"},
            "tickvals": ticks,
            "ticktext": [str(tick) for tick in ticks],
            "range": [-0.5, n_experts - 0.5],
            "showgrid": False,
            "zeroline": False,
        },
        yaxis={
            "title": {"text": "layer"},
            "tickvals": shown,
            "ticktext": [layers[row] for row in shown],
            "range": [len(layers) - 0.5, -0.5],
            "showgrid": False,
            "zeroline": False,
        },
    )
    return finish(figure, mode=mode, height=_height(len(layers)))


def _doublings(load: xr.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share, factor over the even share, and log2 of that; an expert that does not exist has no share."""
    share = load.transpose("layer", "expert").to_numpy()
    factor = share * np.isfinite(share).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return share, factor, np.log2(factor)


def _height(n_rows: int) -> int:
    per_row = 30 if n_rows <= 12 else 20 if n_rows <= 32 else 13
    return 110 + max(_LEAST_PIXELS, n_rows * per_row)
