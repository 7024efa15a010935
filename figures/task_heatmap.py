"""Task × expert: who serves what, in clustered order, with the types of the tasks beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from figures.cells import Cells, cells_of
from figures.grid import ColorScale, add_hatch, add_heatmap, outlines, thinned
from figures.pieces import plotly_text
from figures.strips import add_column_strip, add_row_strip
from figures.theme import INKS, Mode, finish
from figures.trees import Tree, add_column_tree, add_row_tree
from routing.selection import expert_name

__all__ = ["MOST_TOLD", "Cells", "cells_of", "task_expert_heatmap"]

MOST_TOLD = 10_000
"""Cells up to which each travels with its name."""

_TREE_WIDTH = 0.055
_STRIP_WIDTH = 0.011
_TREE_PIXELS = 54
_AXIS_PIXELS = 50
# Pixels from which the end of a figure is out of sight where it begins.
_TALL = 800


def task_expert_heatmap(
    cells: Cells,
    *,
    scale: ColorScale,
    value_text: str,
    task_types: Mapping[str, str],
    row_tree: Tree | None = None,
    column_tree: Tree | None = None,
    blocks: bool = True,
    selected: Iterable[tuple[str, int]] = (),
    names: Mapping[str, Sequence[str]] | None = None,
    column_types: Mapping[tuple[str, int], str] | None = None,
    mode: Mode = "light",
) -> go.Figure:
    """Groups down, experts across, with a strip of task types and the tree that ordered the rows.

    Cell positions count rows and columns from 0, which is also what a click reports; `Cells.at` reads it.

    Args:
        cells: the table, arranged.
        scale: how the numbers become colors.
        value_text: how the hover writes the numbers: a Plotly template of `%{z}` and `%{customdata[…]}`.
        task_types: type of each group, for the strip.
        row_tree: who joins whom among the rows, drawn at the right.
        column_tree: the same of the columns, drawn above.
        blocks: columns are in model order, so layers form blocks with a divider and a name.
        selected: experts to frame.
        names: names of the experts of a layer, as in `trace.expert_names`.
        column_types: type of task that an expert is for, drawn as a strip above; those without one stay blank.
        mode: light or dark.

    Returns:
        (group, expert) · as `cells` says; a table of more than `MOST_TOLD` cells tells nothing when pointed at, for the
        names would outweigh the picture: the app's bridge does so.
    """
    n_rows, n_columns = cells.values.shape
    told = cells.values.size <= MOST_TOLD
    figure = go.Figure()
    absent = ~np.isfinite(cells.values)
    muted = None if cells.muted is None else cells.muted & ~absent
    add_heatmap(
        figure,
        cells.values,
        scale=scale,
        mode=mode,
        hover="<b>%{text}</b><br>" + value_text,
        customdata=cells.details if told else None,
        muted=muted,
        # Without gaps a browser paints the cells as one picture, with them one by one: seconds, where there are many.
        gaps=(1 if n_columns <= 64 else 0, 1 if told else 0),
    )
    if told:
        texts = _names(cells, names)
        for trace in figure.data:
            trace.text = texts
    else:
        # Plotly still says which cell is pointed at, and draws nothing.
        figure.update_traces(hoverinfo="none", hovertemplate=None)
    types = [task_types.get(group, "other") for group in cells.groups]
    height = _height(n_rows)
    # Of a table taller than the screen, what the columns are stands where the reader begins.
    on_top = height > _TALL and column_tree is None and column_types is None
    add_row_strip(figure, types, width=_STRIP_WIDTH, click="click to select the task")
    add_hatch(figure, absent, mode=mode, name="never chosen, or no tokens")
    right = 1.0
    if row_tree is not None and n_rows > 2:
        right = 1.0 - _TREE_WIDTH
        add_row_tree(figure, row_tree, left=right, mode=mode)
    figure.update_layout(
        coloraxis=scale.layout(mode, height=height),
        shapes=_shapes(cells, selected, blocks=blocks, mode=mode),
        xaxis=_columns_axis(cells, blocks=blocks)
        | {"side": "top" if on_top else "bottom"}
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
        legend={"y": 1.0 + (_AXIS_PIXELS / height if on_top else 0.0), "yref": "paper", "traceorder": "normal"},
    )
    top = 1.0
    if column_tree is not None:
        # The tree takes its room from above, not from the cells.
        height += _TREE_PIXELS
        top = 1.0 - _TREE_PIXELS / height
        add_column_tree(figure, column_tree, bottom=top + 0.004, mode=mode)
        figure.update_layout(yaxis_domain=[0, top])
    if column_types is not None:
        strip = min(0.03, 10 / height)
        add_column_strip(figure, _column_types(cells, column_types), height=strip, top=top, in_legend=set(types))
    return finish(figure, mode=mode, height=height)


def _names(cells: Cells, called: Mapping[str, Sequence[str]] | None) -> np.ndarray:
    # An array of objects: Plotly looks at every item of a list of lists, in Python.
    groups = np.array([plotly_text(group) for group in cells.groups], dtype=object)
    experts = np.array(
        [f" · {plotly_text(expert_name(layer, expert, names=called))}" for layer, expert in cells.experts], dtype=object
    )
    names: np.ndarray = groups[:, None] + experts[cells.source]
    return names


def _column_types(cells: Cells, types: Mapping[tuple[str, int], str]) -> list[str | None]:
    """What each column's expert, or most of those that share it, is for."""
    found: list[str | None] = []
    for start in cells.columns:
        held = [types.get(expert) for expert in cells.experts[start : start + cells.n_pooled]]
        known = [each for each in held if each is not None]
        found.append(max(set(known), key=lambda each: (known.count(each), each)) if known else None)
    return found


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
    plain: dict[str, object] = {"showgrid": False, "zeroline": False, "ticklabeloverflow": "allow"}
    layers = [cells.experts[place][0] for place in cells.columns]
    distinct = list(dict.fromkeys(layers))
    pooled = f": the clearest of {cells.n_pooled} neighbors in each cell" if cells.n_pooled > 1 else ""
    if len(distinct) == 1:
        shown = thinned([str(place) for place in cells.columns], most=40)
        texts = [str(cells.experts[cells.columns[column]][1]) for column in shown]
        title = f"expert of layer {plotly_text(distinct[0])}" + ("" if blocks else ", ordered") + pooled
        return plain | {"title": {"text": title}, "tickvals": shown, "ticktext": texts}
    if not blocks:
        return plain | {"title": {"text": "expert, ordered across layers" + pooled}, "showticklabels": False}
    starts = _block_starts(cells)
    middles = [(start + stop - 1) / 2 for start, stop in zip(starts, starts[1:], strict=False)]
    names = [layers[start] for start in starts[:-1]]
    kept = thinned(names, most=30)
    return plain | {
        "title": {"text": "expert, by layer" + pooled},
        "tickvals": [middles[i] for i in kept],
        "ticktext": [plotly_text(names[i]) for i in kept],
    }


def _height(n_rows: int) -> int:
    per_row = 26 if n_rows <= 24 else 20 if n_rows <= 48 else 13
    return 130 + max(3, n_rows) * per_row
