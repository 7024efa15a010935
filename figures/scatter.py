"""A map: points that lie near each other are routed alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from figures.pieces import plotly_text, snippet
from figures.theme import INKS, OKABE_ITO, OTHER, SEQUENTIAL, Mode, diverging_scale, finish

__all__ = ["MOST_POINTS", "PointColor", "scatter"]

# Beyond this a browser without a graphics card takes seconds to paint and to lasso.
MOST_POINTS = 30_000
_N_SAMPLED = 4_000
_N_BINS = 220
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "cross", "star", "hexagon")
_HOVER_WIDTH = 56
_N_LONG_TOOLTIPS = 3_000


@dataclass(frozen=True, kw_only=True, eq=False)
class PointColor:
    """What the color of a point says.

    Attributes:
        title: of the legend or color bar, with the unit.
        values: one a point; text or categories are kinds, numbers go on a scale. Missing ones are gray.
        colors: kind → hex color, in the order of the legend; the palette where it is None.
        ticks: value → label of the color bar, for numbers that stand for names.
        center: the neutral value of a diverging scale, None for a sequential one.
        missing: what the legend calls points without a value.
        symbols: kind → shape, where colors alone are too few.
    """

    title: str
    values: pd.Series
    colors: Mapping[str, str] | None = None
    ticks: Mapping[float, str] | None = None
    center: float | None = None
    missing: str = "none"
    symbols: Mapping[str, str] | None = None

    @property
    def is_numeric(self) -> bool:
        """Whether the values go on a scale."""
        return pd.api.types.is_numeric_dtype(self.values) and not pd.api.types.is_bool_dtype(self.values)


def scatter(
    points: pd.DataFrame,
    *,
    color: PointColor,
    mode: Mode,
    axis: str = "UMAP",
    unit: str = "no unit",
    symbols: pd.Series | None = None,
    symbol_title: str = "",
    labels: pd.DataFrame | None = None,
    picked: Sequence[int] = (),
    near: Sequence[int] = (),
    ringed: Sequence[int] = (),
    ringed_name: str = "",
    hidden: Sequence[str] = (),
    height: int = 620,
) -> go.Figure:
    """One mark a point, one trace a kind; a picture of their density where there are too many to draw.

    Args:
        points: x, y, name (bold line of the tooltip), text (lines below it).
        color: what the color says.
        mode: light or dark.
        axis: name of the axes, which are numbered.
        unit: of both axes.
        symbols: kind of each point that its shape tells; up to eight.
        symbol_title: what the shapes tell.
        labels: x, y, text of names to write on the map.
        picked: rows of `points` to show at full strength; all where it is empty.
        near: rows to frame with a square, such as the neighbors of the picked one.
        ringed: rows to be found among all others, whatever lies on them: a diamond is drawn around each.
        ringed_name: what these are, first in the legend.
        hidden: names in the legend, as the figure writes them, that are left out until they are clicked.
        height: of the figure in pixels.

    Returns:
        (point) · coordinates · one scale for both axes; `customdata` is the row of `points`.
    """
    figure = go.Figure()
    drawn = np.arange(len(points))
    if len(points) > MOST_POINTS:
        _add_density(figure, points, mode=mode)
        drawn = _sample(color.values, n_points=_N_SAMPLED)
    marker = _marker_size(len(drawn)) | {"line": {"width": 0.6, "color": INKS[mode].paper}}
    shapes, shape_of = _shapes(symbols)
    chosen = np.isin(np.arange(len(points)), np.asarray(picked, dtype=np.int64)) if len(picked) else None
    hover = _hover_texts(points, drawn)
    groups = _number_groups(color, drawn) if color.is_numeric else _kind_groups(color, drawn)
    for name, fill, rows in groups:
        figure.add_scattergl(
            x=points["x"].to_numpy(np.float32)[rows],
            y=points["y"].to_numpy(np.float32)[rows],
            mode="markers",
            name=plotly_text(name),
            showlegend=not color.is_numeric,
            marker=marker
            | _fill(color, fill, rows, mode=mode)
            | {"symbol": shapes[rows] if shapes is not None else (color.symbols or {}).get(name, "circle")},
            # A lasso comes back with these, whatever trace a point ended up in.
            customdata=rows.astype(np.int32),
            text=hover[np.searchsorted(drawn, rows)],
            hovertemplate="%{text}<extra></extra>",
            selectedpoints=None if chosen is None else np.flatnonzero(chosen[rows]).tolist(),
            selected={"marker": {"opacity": 1.0}},
            unselected={"marker": {"opacity": 0.16}},
        )
    if len(near):
        figure.add_scattergl(
            x=points["x"].to_numpy(np.float32)[near],
            y=points["y"].to_numpy(np.float32)[near],
            mode="markers",
            name="nearest in truth",
            marker={"symbol": "square-open", "size": 12, "color": INKS[mode].text, "line": {"width": 1.5}},
            customdata=np.asarray(near, dtype=np.int32),
            hoverinfo="skip",
        )
    if len(ringed):
        rings = np.asarray(ringed, dtype=np.int32)
        figure.add_scattergl(
            x=points["x"].to_numpy(np.float32)[rings],
            y=points["y"].to_numpy(np.float32)[rings],
            mode="markers",
            name=plotly_text(ringed_name),
            marker={"symbol": "diamond-open", "size": 16, "color": INKS[mode].text, "line": {"width": 2}},
            customdata=rings,
            hoverinfo="skip",
            legendrank=1,
        )
    for kind, symbol in shape_of.items():
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=plotly_text(kind),
            marker={"symbol": symbol, "color": INKS[mode].muted, "size": 9},
            legendgroup="symbols",
            legendgrouptitle_text=plotly_text(symbol_title),
        )
    for trace in figure.data:
        if trace.name in hidden:
            trace.visible = "legendonly"
    if labels is not None:
        shown = ~labels["text"].map(plotly_text).isin(list(hidden))
        _add_labels(figure, labels[shown], mode=mode)
    return _finish(figure, color=color, mode=mode, axes=(f"{axis} 1 ({unit})", f"{axis} 2 ({unit})"), height=height)


def _kind_groups(color: PointColor, drawn: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    kinds = color.values.astype("object").where(color.values.notna(), None).to_numpy()[drawn]
    colors = color.colors
    if colors is None:
        names = list(dict.fromkeys(kind for kind in kinds if kind is not None))
        colors = {name: OKABE_ITO[i] if i < len(OKABE_ITO) else OTHER for i, name in enumerate(names)}
    groups = [(str(kind), fill, drawn[kinds == kind]) for kind, fill in colors.items()]
    unknown = np.array([kind is None or kind not in colors for kind in kinds], dtype=bool)
    groups.append((color.missing, OTHER, drawn[unknown]))
    return [group for group in groups if len(group[2])]


def _number_groups(color: PointColor, drawn: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    known = color.values.notna().to_numpy()[drawn]
    groups = [(color.missing, OTHER, drawn[~known]), (color.title, "", drawn[known])]
    return [group for group in groups if len(group[2])]


def _fill(color: PointColor, fill: str, rows: np.ndarray, *, mode: Mode) -> dict[str, Any]:
    if fill:
        return {"color": fill}
    values = color.values.to_numpy(np.float32)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    scale: Any = _point_scale(mode)
    if color.center is not None:
        reach = max(high - color.center, color.center - low) or 1.0
        low, high, scale = color.center - reach, color.center + reach, diverging_scale(mode)
    bar: dict[str, Any] = {"title": {"text": plotly_text(color.title), "side": "top"}, "thickness": 10}
    bar |= {"lenmode": "pixels", "len": 240, "y": 1, "yanchor": "top", "outlinewidth": 0}
    if color.ticks is not None:
        step = max(1, len(color.ticks) // 12)
        shown = list(color.ticks.items())[::step]
        bar |= {
            "tickvals": [value for value, _ in shown],
            "ticktext": [plotly_text(name) for _, name in shown],
        }
    return {"color": values[rows], "cmin": low, "cmax": high, "colorscale": scale, "colorbar": bar}


def _point_scale(mode: Mode) -> list[tuple[float, str]]:
    """The sequential scale without the end that a small mark would lose against the page."""
    ends = (0.0, 0.9) if mode == "light" else (0.28, 1.0)
    steps = np.linspace(0, 1, 9)
    colors = sample_colorscale(SEQUENTIAL, list(ends[0] + steps * (ends[1] - ends[0])))
    return list(zip(steps.tolist(), colors, strict=True))


def _marker_size(n_points: int) -> dict[str, float]:
    for most, size, opacity in ((400, 10, 0.9), (2_000, 7, 0.85), (10_000, 5, 0.7)):
        if n_points <= most:
            return {"size": size, "opacity": opacity}
    return {"size": 3, "opacity": 0.55}


def _shapes(symbols: pd.Series | None) -> tuple[np.ndarray | None, dict[str, str]]:
    if symbols is None:
        return None, {}
    kinds = list(dict.fromkeys(symbols.dropna()))
    shape_of = {str(kind): _SYMBOLS[min(i, len(_SYMBOLS) - 1)] for i, kind in enumerate(kinds)}
    return symbols.astype(str).map(shape_of).fillna("circle-open").to_numpy(dtype=object), shape_of


def _hover_texts(points: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    names, texts = (points[column].astype(str).to_numpy()[rows] for column in ("name", "text"))
    pairs = zip(names, texts, strict=True)
    # Tooltips are most of what is sent: thousands of points get one line instead of a paragraph.
    if len(rows) > _N_LONG_TOOLTIPS:
        lines = [f"<b>{plotly_text(name)}</b><br>{plotly_text(snippet(text, n_characters=60))}" for name, text in pairs]
    else:
        lines = [
            f"<b>{plotly_text(name, width=_HOVER_WIDTH)}</b><br>"
            + "<br>".join(plotly_text(line[:220], width=_HOVER_WIDTH) for line in text.split("\n"))
            for name, text in pairs
        ]
    return np.array(lines, dtype=object)


def _add_density(figure: go.Figure, points: pd.DataFrame, *, mode: Mode) -> None:
    counts, edges_x, edges_y = np.histogram2d(points["x"], points["y"], bins=_N_BINS)
    ink = INKS[mode]
    figure.add_heatmap(
        z=np.where(counts.T > 0, np.log10(np.maximum(counts.T, 1)), np.nan).astype(np.float32),
        x=((edges_x[1:] + edges_x[:-1]) / 2).astype(np.float32),
        y=((edges_y[1:] + edges_y[:-1]) / 2).astype(np.float32),
        colorscale=[[0, ink.grid], [1, ink.muted]],
        showscale=False,
        hoverinfo="skip",
    )


def _sample(kinds: pd.Series, *, n_points: int) -> np.ndarray:
    """Rows of a sample in which each kind keeps its share; every n-th of the rows sorted by kind."""
    order = np.argsort(kinds.astype(str).to_numpy(), kind="stable")
    return np.sort(order[np.linspace(0, len(order) - 1, n_points).astype(np.int64)])


def _add_labels(figure: go.Figure, labels: pd.DataFrame, *, mode: Mode) -> None:
    ink = INKS[mode]
    # Given at once: one by one, each would have all before it checked again.
    figure.update_layout(
        annotations=[
            {
                "x": label["x"],
                "y": label["y"],
                "text": f"<b>{plotly_text(str(label['text']))}</b>",
                "showarrow": False,
                "yanchor": "bottom",
                "yshift": 5,
                "font": {"size": 11.5, "color": ink.text},
                "bgcolor": ink.paper,
                "opacity": 0.78,
                "borderpad": 1,
            }
            for label in labels.to_dict("records")
        ]
    )


def _finish(figure: go.Figure, *, color: PointColor, mode: Mode, axes: tuple[str, str], height: int) -> go.Figure:
    blank = {"showgrid": False, "zeroline": False, "showticklabels": False, "showline": True, "mirror": True}
    figure.update_xaxes(title=axes[0], **blank)
    # Distances are all a map has: a step to the right must be as long as a step up.
    figure.update_yaxes(title=axes[1], scaleanchor="x", scaleratio=1, **blank)
    figure.update_layout(
        dragmode="lasso",
        hoverdistance=12,
        legend={
            "title": {"text": plotly_text(color.title)},
            "orientation": "v",
            "x": 1.01,
            "y": 1,
            "yanchor": "top",
            "itemsizing": "constant",
        },
        uirevision="map",
    )
    return finish(figure, mode=mode, height=height)
