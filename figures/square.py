"""A table of cells with names on both sides: similarities, confusions, who follows whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from figures.grid import ColorScale, add_hatch, add_heatmap, outlines, thinned
from figures.pieces import plotly_text
from figures.strips import add_row_strip
from figures.theme import INKS, NUMBER_TICKS, Mode, finish

__all__ = ["matrix_heatmap", "similarity_scale"]

_MOST_LABELS = 48
_STRIP = 0.018


def matrix_heatmap(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    scale: ColorScale,
    value_text: str,
    row_title: str = "",
    column_title: str = "",
    details: np.ndarray | None = None,
    muted: np.ndarray | None = None,
    absent_name: str = "no number",
    row_types: Mapping[str, str] | None = None,
    selected_rows: Iterable[int] = (),
    cell_pixels: int | None = None,
    mode: Mode = "light",
) -> go.Figure:
    """Rows down, columns across; a click reports the cell's row and column, counted from 0.

    Args:
        values: (row, column), NaN where there is no number.
        rows: names of the rows.
        columns: names of the columns.
        scale: how the numbers become colors.
        value_text: how the hover writes them: a Plotly template of `%{z}` and `%{customdata[…]}`.
        row_title: of the vertical axis.
        column_title: of the horizontal axis.
        details: (row, column, field), for the hover.
        muted: (row, column), cells that recede.
        absent_name: what the hatch over missing numbers means.
        row_types: kind of each row, drawn as a strip of colors with a legend; none where it is None.
        selected_rows: rows to frame.
        cell_pixels: height of a row; chosen by their number where it is None.
        mode: light or dark.
    """
    n_rows, n_columns = values.shape
    figure = go.Figure()
    absent = ~np.isfinite(values)
    add_heatmap(
        figure,
        values,
        scale=scale,
        mode=mode,
        hover="<b>%{text}</b><br>" + value_text,
        customdata=None if details is None else details.astype(np.float32),
        muted=None if muted is None else muted & ~absent,
        gaps=(1 if n_columns <= 64 else 0, 1 if n_rows <= 64 else 0),
    )
    down = np.array([plotly_text(name) for name in rows], dtype=object)
    across = np.array([f" · {plotly_text(name)}" for name in columns], dtype=object)
    for trace in figure.data:
        trace.text = down[:, None] + across[None, :]
    add_hatch(figure, absent, mode=mode, name=absent_name)
    left = 0.0
    if row_types is not None:
        left = _STRIP + 0.004
        add_row_strip(figure, [row_types.get(name, "other") for name in rows], width=_STRIP)
    frames = [(0.0, float(n_columns - 1), float(row), float(row)) for row in selected_rows]
    figure.update_layout(
        coloraxis=scale.layout(mode),
        shapes=outlines(frames, mode=mode),
        xaxis=_axis(columns, title=column_title, mode=mode)
        | {"range": [-0.5, n_columns - 0.5], "domain": [left, 1.0], "tickangle": _angle(columns)},
        yaxis=_axis(rows, title=row_title, mode=mode)
        | {"range": [n_rows - 0.5, -0.5], "anchor": "x2" if row_types is not None else "x"},
    )
    if _angle(columns) and columns:
        # A slanted name begins left of its column, and would be cut off where the names of the rows are short.
        reach = 5 * min(len(columns[0]), 30) - 6 * max((len(name) for name in rows), default=0)
        figure.update_layout(margin_l=max(8, reach))
    per_row = cell_pixels or (28 if n_rows <= 12 else 20 if n_rows <= 32 else 13 if n_rows <= 80 else 6)
    longest = max((len(name) for name in columns), default=0)
    below = 70 + (6 * min(longest, 30) if _angle(columns) else 20)
    return finish(figure, mode=mode, height=int(min(900, below + 30 + max(4, n_rows) * per_row)))


def similarity_scale(values: Iterable[np.ndarray], *, title: str = "cosine") -> ColorScale:
    """A scale for similarities that uses what there is: around zero where they have both signs, else least to most.

    Args:
        values: what is drawn on it, those of things with themselves left out as NaN.
        title: of the color bar.
    """
    found = np.concatenate([each[np.isfinite(each)].ravel() for each in values])
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    if low < 0:
        limit = max(abs(low), abs(high), 1e-6)
        return ColorScale(title=title, low=-limit, high=limit, diverging=True, tick_format=NUMBER_TICKS)
    return ColorScale(title=title, low=low, high=max(high, low + 1e-6), tick_format=NUMBER_TICKS)


def _axis(names: Sequence[str], *, title: str, mode: Mode) -> dict[str, object]:
    shown = thinned(names, most=_MOST_LABELS)
    return {
        "title": {"text": plotly_text(title)},
        "tickvals": shown,
        "ticktext": [plotly_text(names[place]) for place in shown],
        "showgrid": False,
        "zeroline": False,
        "tickfont": {"size": 12 if len(names) <= 40 else 10, "color": INKS[mode].text},
    }


def _angle(names: Sequence[str]) -> int:
    """Names that would run into each other are written slanted."""
    return 0 if sum(len(name) + 2 for name in names) <= 110 else -40
