"""Task × expert: who serves what, in clustered order, with the types of the tasks beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from scipy.cluster.hierarchy import dendrogram

from figures.grid import ColorScale, add_hatch, add_heatmap, outlines, thinned
from figures.pieces import plotly_text
from figures.theme import INKS, Mode, color_of_task_types, finish
from routing.selection import expert_name

__all__ = ["Cells", "cells_of", "task_expert_heatmap"]

# A screen has about as many columns of pixels for the cells; more would only be averaged by the eye, wrongly.
MOST_COLUMNS = 1200
_TREE_WIDTH = 0.055
_STRIP_WIDTH = 0.011


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """A table of groups × experts as it is drawn.

    Attributes:
        values: rows × columns, NaN where there is no number.
        source: rows × columns, position in `experts` of what the cell shows: where several experts share a
            column, the one that stands out most in that row.
        muted: rows × columns, which cells recede; None where none does.
        details: rows × columns × numbers that the hover tells of the same cells; None where it tells none.
        groups: names of the rows.
        experts: (layer, expert) of every expert, in the order of the columns.
        columns: position in `experts` of the first expert of each column.
        n_pooled: experts that share a column, 1 where each has its own.
    """

    values: np.ndarray
    source: np.ndarray
    muted: np.ndarray | None
    details: np.ndarray | None
    groups: tuple[str, ...]
    experts: tuple[tuple[str, int], ...]
    columns: np.ndarray
    n_pooled: int

    def at(self, x: float, y: float) -> tuple[str, tuple[str, int]]:
        """Group and expert of the cell at a clicked place."""
        row, column = round(y), round(x)
        return self.groups[row], self.experts[int(self.source[row, column])]


def cells_of(
    table: xr.DataArray,
    *,
    exists: xr.DataArray,
    rows: Sequence[str] | None = None,
    columns: Sequence[tuple[str, int]] | None = None,
    muted: xr.DataArray | None = None,
    details: Sequence[xr.DataArray] = (),
    most_columns: int = MOST_COLUMNS,
) -> Cells:
    """Arrange a table of groups × layers × experts for drawing.

    Args:
        table: (group, layer, expert) · the numbers; the first dimension may have any name.
        exists: (layer, expert) · which experts a layer has.
        rows: order of the groups; that of the table, unless given.
        columns: order of the experts; that of the model, unless given.
        muted: like `table`, which cells recede.
        details: further tables like `table`, for the hover.
        most_columns: beyond this many experts, neighbors share a column.
    """
    group = table.dims[0]
    names = {str(value): number for number, value in enumerate(table[group].values)}
    rows = list(rows) if rows is not None else list(names)
    layers = {str(label): number for number, label in enumerate(table["layer"].values)}
    there = exists.sel(layer=table["layer"]).transpose("layer", "expert").to_numpy()
    if columns is None:
        columns = [(label, int(e)) for label, number in layers.items() for e in np.flatnonzero(there[number])]
    at_row = np.array([names[row] for row in rows], dtype=int)
    at_layer = np.array([layers[layer] for layer, _ in columns], dtype=int)
    at_expert = np.array([expert for _, expert in columns], dtype=int)

    def flat(array: xr.DataArray) -> np.ndarray:
        values = array.transpose(group, "layer", "expert").to_numpy()
        return values[at_row][:, at_layer, at_expert]

    values = flat(table)
    pale = None if muted is None else flat(muted).astype(bool)
    told = [flat(each) for each in details]
    n_pooled = max(1, -(-len(columns) // most_columns))
    starts = np.arange(0, len(columns), n_pooled)
    if n_pooled == 1:
        source = np.broadcast_to(np.arange(len(columns)), values.shape)
    else:
        source = _most_telling(values, pale, starts=starts, n_pooled=n_pooled)
        values = np.take_along_axis(values, source, axis=1)
        pale = None if pale is None else np.take_along_axis(pale, source, axis=1)
        told = [np.take_along_axis(each, source, axis=1) for each in told]
    return Cells(
        values=values,
        source=source,
        muted=pale,
        details=np.stack(told, axis=-1).astype(np.float32) if told else None,
        groups=tuple(rows),
        experts=tuple(columns),
        columns=starts,
        n_pooled=n_pooled,
    )


def task_expert_heatmap(
    cells: Cells,
    *,
    scale: ColorScale,
    value_text: str,
    task_types: Mapping[str, str],
    row_tree: np.ndarray | None = None,
    blocks: bool = True,
    selected: Iterable[tuple[str, int]] = (),
    names: Mapping[str, Sequence[str]] | None = None,
    mode: Mode = "light",
) -> go.Figure:
    """Groups down, experts across, with a strip of task types and the tree that ordered the rows.

    Cell positions count rows and columns from 0, which is also what a click reports; `Cells.at` reads it.

    Args:
        cells: the table, arranged.
        scale: how the numbers become colors.
        value_text: how the hover writes the numbers: a Plotly template of `%{z}` and `%{customdata[…]}`.
        task_types: type of each group, for the strip.
        row_tree: linkage (scipy) over the rows as arranged before ordering; its leaves must come in row order.
        blocks: columns are in model order, so layers form blocks with a divider and a name.
        selected: experts to frame.
        names: names of the experts of a layer, as in `trace.expert_names`.
        mode: light or dark.
    """
    n_rows, n_columns = cells.values.shape
    figure = go.Figure()
    absent = ~np.isfinite(cells.values)
    muted = None if cells.muted is None else cells.muted & ~absent
    add_heatmap(
        figure,
        cells.values,
        hover="<b>%{text}</b><br>" + value_text,
        customdata=cells.details,
        muted=muted,
        gaps=(1 if n_columns <= 64 else 0, 1),
    )
    texts = _names(cells, names)
    for trace in figure.data:
        trace.text = texts
    types = [task_types.get(group, "other") for group in cells.groups]
    _add_strip(figure, types, mode=mode)
    add_hatch(figure, absent, mode=mode, name="never chosen, or no tokens")
    right = 1.0
    if row_tree is not None and n_rows > 2:
        right = 1.0 - _TREE_WIDTH
        _add_tree(figure, row_tree, mode=mode, left=right)
    figure.update_layout(
        coloraxis=scale.layout(mode),
        shapes=_shapes(cells, selected, blocks=blocks, mode=mode),
        xaxis=_columns_axis(cells, blocks=blocks)
        | {"domain": [_STRIP_WIDTH + 0.004, right - 0.003], "range": [-0.5, n_columns - 0.5]},
        yaxis={
            "tickvals": list(range(n_rows)),
            "ticktext": [plotly_text(group) for group in cells.groups],
            "range": [n_rows - 0.5, -0.5],
            "anchor": "x2",
            "showgrid": False,
            "zeroline": False,
            "tickfont": {"size": 12 if n_rows <= 40 else 10, "color": INKS[mode].text},
        },
        legend={"y": 1.0, "yref": "paper", "traceorder": "normal"},
    )
    return finish(figure, mode=mode, height=_height(n_rows))


def _most_telling(values: np.ndarray, pale: np.ndarray | None, *, starts: np.ndarray, n_pooled: int) -> np.ndarray:
    """In each row, which expert of a shared column stands out most: a plain mean would hide specialists."""
    weight = np.where(np.isfinite(values), np.abs(values), -1.0)
    if pale is not None:
        weight = np.where(pale, weight * 1e-6, weight)
    padding = len(starts) * n_pooled - values.shape[1]
    weight = np.pad(weight, ((0, 0), (0, padding)), constant_values=-2.0)
    within = weight.reshape(len(values), len(starts), n_pooled).argmax(axis=2)
    return starts + within


def _names(cells: Cells, called: Mapping[str, Sequence[str]] | None) -> np.ndarray:
    # An array of objects: Plotly looks at every item of a list of lists, in Python.
    groups = np.array([plotly_text(group) for group in cells.groups], dtype=object)
    experts = np.array(
        [f" · {plotly_text(expert_name(layer, expert, names=called))}" for layer, expert in cells.experts], dtype=object
    )
    names: np.ndarray = groups[:, None] + experts[cells.source]
    return names


def _add_strip(figure: go.Figure, types: Sequence[str], *, mode: Mode) -> None:
    colors = color_of_task_types(types)
    for task_type, color in colors.items():
        rows = [row for row, each in enumerate(types) if each == task_type]
        # A bar a row, so that the legend names the types and the strip needs no second color axis.
        figure.add_bar(
            x=[1.0] * len(rows),
            y=rows,
            orientation="h",
            width=0.94,
            marker={"color": color, "line": {"width": 0}},
            name=plotly_text(task_type),
            hovertemplate=plotly_text(task_type) + "<extra></extra>",
            xaxis="x2",
            yaxis="y",
        )
    figure.update_layout(
        barmode="overlay",
        xaxis2={"domain": [0, _STRIP_WIDTH], "range": [0, 1], "visible": False, "fixedrange": True, "anchor": "y"},
    )


def _add_tree(figure: go.Figure, linkage: np.ndarray, *, mode: Mode, left: float) -> None:
    tree = dendrogram(linkage, no_plot=True)
    xs: list[float | None] = []
    ys: list[float | None] = []
    for heights, places in zip(tree["dcoord"], tree["icoord"], strict=True):
        xs += [*heights, None]
        # scipy places leaves at 5, 15, 25, …
        ys += [*((place - 5) / 10 for place in places), None]
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        line={"color": INKS[mode].muted, "width": 1},
        hoverinfo="skip",
        showlegend=False,
        xaxis="x3",
        yaxis="y",
    )
    figure.update_layout(
        xaxis3={"domain": [left, 1.0], "visible": False, "fixedrange": True, "anchor": "y", "rangemode": "tozero"}
    )


def _shapes(cells: Cells, selected: Iterable[tuple[str, int]], *, blocks: bool, mode: Mode) -> list[dict[str, object]]:
    places = {expert: place // cells.n_pooled for place, expert in enumerate(cells.experts)}
    picked = sorted({places[expert] for expert in selected if expert in places})
    rows = len(cells.groups)
    # A broad frame would hide the narrow columns of a large table.
    width = 2.5 if len(cells.columns) <= 64 else 1.25
    frames = outlines([(column, column, 0, rows - 1) for column in picked], mode=mode, width=width)
    line = {"color": INKS[mode].text, "width": 0.8}
    dividers = [
        {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "y domain", "line": line, "opacity": 0.55}
        for x in (start - 0.5 for start in (_block_starts(cells)[1:-1] if blocks else ()))
    ]
    return [*dividers, *frames]


def _block_starts(cells: Cells) -> list[int]:
    """Columns at which a layer begins, and one past the last column."""
    layers = [cells.experts[place][0] for place in cells.columns]
    return [0, *(i for i in range(1, len(layers)) if layers[i] != layers[i - 1]), len(layers)]


def _columns_axis(cells: Cells, *, blocks: bool) -> dict[str, object]:
    plain: dict[str, object] = {"showgrid": False, "zeroline": False}
    layers = [cells.experts[place][0] for place in cells.columns]
    distinct = list(dict.fromkeys(layers))
    if len(distinct) == 1:
        shown = thinned([str(place) for place in cells.columns], most=40)
        texts = [str(cells.experts[cells.columns[column]][1]) for column in shown]
        title = f"expert of layer {plotly_text(distinct[0])}" + ("" if blocks else ", in clustered order")
        return plain | {"title": {"text": title}, "tickvals": shown, "ticktext": texts}
    if not blocks:
        return plain | {"title": {"text": "expert, in clustered order"}, "showticklabels": False}
    starts = _block_starts(cells)
    middles = [(start + stop - 1) / 2 for start, stop in zip(starts, starts[1:], strict=False)]
    names = [layers[start] for start in starts[:-1]]
    kept = thinned(names, most=30)
    return plain | {
        "title": {"text": "expert, by layer"},
        "tickvals": [middles[i] for i in kept],
        "ticktext": [plotly_text(names[i]) for i in kept],
    }


def _height(n_rows: int) -> int:
    per_row = 26 if n_rows <= 24 else 20 if n_rows <= 48 else 13
    return 130 + max(3, n_rows) * per_row
