"""Layer × expert: one cell an expert."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from figures.grid import ColorScale, add_hatch, add_heatmap, log2_scale, outlines, thinned
from figures.pieces import plotly_text
from figures.theme import INKS, Mode, finish
from figures.trees import Tree, add_row_tree
from routing.selection import expert_name

__all__ = ["layer_expert_heatmap", "load_heatmap"]

_MOST_TICKS = 32
# Lower, and the color bar has no room for its ticks.
_LEAST_PIXELS = 150
_TREE_WIDTH = 0.055


def load_heatmap(
    load: xr.DataArray,
    *,
    exists: xr.DataArray,
    selected: Iterable[tuple[str, int]] = (),
    beside: xr.DataArray | None = None,
    order: np.ndarray | None = None,
    row_tree: Tree | None = None,
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
        order: (layer, place) · which expert stands at each place of a layer; by number where it is None.
        row_tree: who joins whom among the layers, drawn at the right.
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
        order=order,
        row_tree=row_tree,
    )
    rows, columns = np.nonzero(idle if order is None else np.take_along_axis(idle, order, axis=1))
    if len(rows):
        figure.add_scatter(
            x=columns,
            y=rows,
            mode="markers",
            # The end of the scale is as dark on a light page as words are, and the other way round.
            marker=_cross(INKS[mode].paper),
            hoverinfo="skip",
            name="idle",
            showlegend=False,
        )
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker=_cross(INKS[mode].text),
            name="idle: never chosen",
            showlegend=True,
        )
    return figure


def _cross(color: str) -> dict[str, Any]:
    return {"symbol": "x-thin", "size": 7, "line": {"width": 1.5, "color": color}}


def layer_expert_heatmap(
    table: xr.DataArray,
    *,
    scale: ColorScale,
    exists: xr.DataArray,
    hover: str,
    customdata: np.ndarray | None = None,
    muted: np.ndarray | None = None,
    selected: Iterable[tuple[str, int]] = (),
    order: np.ndarray | None = None,
    row_tree: Tree | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    mode: Mode = "light",
) -> go.Figure:
    """A number for each expert, layers downward in the order of the table.

    Cell positions count rows and columns from 0, which is also what a click reports.

    Args:
        table: (layer, expert) · the numbers, NaN where there is none.
        scale: how they become colors.
        exists: (layer, expert) · which experts a layer has.
        hover: Plotly hover template; text is the name of the expert.
        customdata: layers × experts × fields, for the hover.
        muted: layers × experts, which cells recede.
        selected: experts to frame, as (layer, expert).
        order: (layer, place) · which expert stands at each place of a layer; by number where it is None.
        row_tree: who joins whom among the layers, drawn at the right.
        names: names of the experts of a layer, as in `trace.expert_names`.
        mode: light or dark.
    """
    table = table.transpose("layer", "expert")
    shown_LE = np.broadcast_to(np.arange(table.sizes["expert"]), table.shape) if order is None else order
    layers = [plotly_text(str(label)) for label in table["layer"].values]
    n_experts = table.sizes["expert"]
    figure = go.Figure()
    absent = np.take_along_axis(~exists.transpose("layer", "expert").to_numpy(), shown_LE, axis=1)
    values = np.take_along_axis(table.to_numpy(), shown_LE, axis=1)
    add_heatmap(
        figure,
        values,
        scale=scale,
        mode=mode,
        hover=hover,
        customdata=None if customdata is None else np.take_along_axis(customdata, shown_LE[..., None], axis=1),
        muted=None if muted is None else np.take_along_axis(muted, shown_LE, axis=1),
        gaps=(1, 1) if n_experts <= 128 else (0, 1),
    )
    # The hover names the expert, so the names travel with the cells.
    texts = np.array(
        [
            [plotly_text(expert_name(str(label), int(expert), names=names)) for expert in row]
            for label, row in zip(table["layer"].values, shown_LE, strict=True)
        ],
        dtype=object,
    )
    for cells in figure.data:
        cells.text = texts
    add_hatch(figure, absent, mode=mode, name="not in this layer")
    add_hatch(figure, ~absent & ~np.isfinite(values), mode=mode, name="no tokens")
    numbers = {str(label): row for row, label in enumerate(table["layer"].values)}
    picked = []
    for layer, expert in selected:
        if layer in numbers:
            place = int(np.flatnonzero(shown_LE[numbers[layer]] == expert)[0])
            picked.append((place, place, numbers[layer], numbers[layer]))
    shown = thinned(layers, most=_MOST_TICKS)
    ticks = thinned([str(number) for number in range(n_experts)], most=_MOST_TICKS)
    figure.update_layout(
        coloraxis=scale.layout(mode, height=_height(len(layers))),
        shapes=outlines(picked, mode=mode),
        xaxis={
            "title": {"text": "expert" if order is None else "place in the order of the layer"},
            "tickvals": ticks,
            "ticktext": [str(tick if order is None else tick + 1) for tick in ticks],
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
    if row_tree is not None:
        add_row_tree(figure, row_tree, left=1.0 - _TREE_WIDTH, mode=mode)
        figure.update_layout(xaxis_domain=[0, 1.0 - _TREE_WIDTH - 0.003])
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
