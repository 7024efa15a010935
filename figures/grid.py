"""What every heatmap of ours shares: the smallest numbers, hatched absence, outlines, color bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from figures.theme import INKS, SEQUENTIAL, Mode, diverging_scale, muted_scale

__all__ = ["ColorScale", "add_hatch", "add_heatmap", "log2_scale", "outlines", "ratio_text", "smallest"]

# Pixels from which a figure does not fit on a screen, and of its color bar then.
_TALL, _BAR = 800, 420


@dataclass(frozen=True, kw_only=True)
class ColorScale:
    """How values become colors.

    Attributes:
        title: of the color bar, with the unit.
        low: value at the lower end.
        high: value at the upper end.
        diverging: whether the middle is a zero that recedes into the page.
        ticks: values that the color bar marks; Plotly chooses where empty.
        texts: what it writes there.
        tick_format: d3 format of the ticks that Plotly chooses.
    """

    title: str
    low: float
    high: float
    diverging: bool = False
    ticks: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()
    tick_format: str = ""

    def layout(self, mode: Mode, *, height: int = 0) -> dict[str, object]:
        """As a `coloraxis` of a Plotly layout.

        Args:
            mode: light or dark.
            height: of the figure in pixels; of a tall one the bar stands at the top, where the reader begins.
        """
        bar: dict[str, object] = {"title": {"text": self.title, "side": "right"}, "thickness": 10, "outlinewidth": 0}
        bar |= {"ticks": "outside", "ticklen": 3, "tickfont": {"size": 11, "color": INKS[mode].muted}}
        if height > _TALL:
            bar |= {"lenmode": "pixels", "len": _BAR, "y": 1.0, "yanchor": "top"}
        if self.ticks:
            bar |= {"tickvals": list(self.ticks), "ticktext": list(self.texts)}
        elif self.tick_format:
            bar |= {"tickformat": self.tick_format}
        scale = diverging_scale(mode) if self.diverging else SEQUENTIAL
        return {"colorscale": scale, "cmin": self.low, "cmax": self.high, "colorbar": bar}


def smallest(values: np.ndarray) -> np.ndarray:
    """The same numbers in the smallest type that a picture needs: arrays travel to the browser as they are."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for dtype in (np.uint8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values


def add_heatmap(
    figure: go.Figure,
    z: np.ndarray,
    *,
    scale: ColorScale,
    hover: str,
    customdata: np.ndarray | None = None,
    muted: np.ndarray | None = None,
    mode: Mode,
    gaps: tuple[float, float] = (1, 1),
    axes: tuple[str, str] = ("x", "y"),
) -> None:
    """Add cells on `coloraxis`, those that are muted gray in a trace of their own.

    Paler shades of the same colors would read as smaller numbers.

    Args:
        figure: to add to.
        z: rows × columns, NaN where there is nothing.
        scale: of `coloraxis`.
        hover: Plotly hover template.
        customdata: rows × columns, or rows × columns × fields, for hover and clicks.
        muted: rows × columns, which cells recede.
        mode: light or dark.
        gaps: pixels between columns and between rows.
        axes: names of the axes.
    """
    gray: dict[str, object] = {"colorscale": muted_scale(mode, diverging=scale.diverging), "showscale": False}
    gray |= {"zmin": scale.low, "zmax": scale.high}
    colored: dict[str, object] = {"coloraxis": "coloraxis"}
    layers = [(np.ones(z.shape, bool), colored)] if muted is None else [(~muted, colored), (muted, gray)]
    for shown, colors in layers:
        if muted is not None and not shown.any():
            continue
        figure.add_heatmap(
            z=smallest(np.where(shown, z, np.nan)),
            customdata=customdata,
            hovertemplate=hover + "<extra></extra>",
            # A gap must not swallow the click that is meant for the cell of the other trace beneath it.
            hoverongaps=False,
            **colors,
            xgap=gaps[0],
            ygap=gaps[1],
            xaxis=axes[0],
            yaxis=axes[1],
        )


def add_hatch(figure: go.Figure, absent: np.ndarray, *, mode: Mode, name: str) -> None:
    """Hatch cells for which there is no number, so that nothing reads as zero.

    Args:
        figure: to add to.
        absent: rows × columns, True where there is nothing to show.
        mode: light or dark.
        name: what the hatch means, for the legend.
    """
    xs: list[float | None] = []
    ys: list[float | None] = []
    for row in range(absent.shape[0]):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], absent[row].astype(np.int8), [0]])))
        for start, stop in edges.reshape(-1, 2):
            xs += [start - 0.5, stop - 0.5, stop - 0.5, start - 0.5, start - 0.5, None]
            ys += [row - 0.5, row - 0.5, row + 0.5, row + 0.5, row - 0.5, None]
    if not xs:
        return
    figure.add_scatter(
        x=xs,
        y=ys,
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=INKS[mode].absent,
        fillpattern={
            "shape": "/",
            "size": 6,
            "solidity": 0.18,
            "fgcolor": INKS[mode].muted,
            "bgcolor": INKS[mode].absent,
        },
        hoverinfo="skip",
        name=name,
        showlegend=True,
    )


def outlines(
    cells: Iterable[tuple[float, float, float, float]], *, mode: Mode, width: float = 2.5
) -> list[dict[str, object]]:
    """Frames, each (left, right, top, bottom) in cell positions, around what the reader picked.

    Returns:
        (frame) · shapes of a Plotly layout, to be set all at once: adding them one by one checks each anew.
    """
    line = {"color": INKS[mode].accent, "width": width}
    return [
        {
            "type": "rect",
            "x0": left - 0.5,
            "x1": right + 0.5,
            "y0": top - 0.5,
            "y1": bottom + 0.5,
            "line": line,
            "layer": "above",
        }
        for left, right, top, bottom in cells
    ]


def log2_scale(values: Iterable[np.ndarray], *, title: str, most: float, quantile: float = 1.0) -> ColorScale:
    """A scale of doublings around ×1, as wide as the values need.

    Where values lie beyond its ends, the ends say so: "≥ ×8".

    Args:
        values: what is drawn on it, in log2; NaN and infinities are left out.
        title: of the color bar.
        most: doublings at which the scale ends at the latest.
        quantile: share of the values that must lie within, the largest being cut off.
    """
    finite = np.concatenate([each[np.isfinite(each)].ravel() for each in values])
    reached = float(np.quantile(np.abs(finite), quantile)) if finite.size else 0.0
    limit = float(np.clip(np.ceil(reached - 1e-9), 1.0, most))
    whole = int(limit)
    step = 1 if whole <= 4 else 2
    powers = sorted({*range(0, whole + 1, step), *range(0, -whole - 1, -step)})
    texts = [ratio_text(2.0**power) for power in powers]
    if finite.size and finite.min() < -limit - 1e-9:
        texts[0] = f"≤ {texts[0]}"
    if finite.size and finite.max() > limit + 1e-9:
        texts[-1] = f"≥ {texts[-1]}"
    ticks = tuple(float(power) for power in powers)
    return ColorScale(title=title, low=-limit, high=limit, diverging=True, ticks=ticks, texts=tuple(texts))


def ratio_text(ratio: float) -> str:
    """A factor as the eye reads it: ×2, ×½, ×⅛, ×1.6."""
    fractions = {0.5: "½", 0.25: "¼", 0.125: "⅛"}
    if ratio in fractions:
        return f"×{fractions[ratio]}"
    if 0 < ratio < 1 and (1 / ratio).is_integer():
        return f"×1/{int(1 / ratio)}"
    return f"×{ratio:.3g}"


def thinned(labels: Sequence[str], *, most: int) -> list[int]:
    """Positions of the labels to write where all would touch: evenly spaced, the first among them."""
    step = max(1, -(-len(labels) // most))
    return list(range(0, len(labels), step))
