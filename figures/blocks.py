"""A square of similarities whose items come in blocks: adapters layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import plotly.graph_objects as go

from figures.grid import ColorScale
from figures.pieces import plotly_text
from figures.square import matrix_heatmap
from figures.theme import INKS, Mode

__all__ = ["block_heatmap"]

_PIXELS = 620


def block_heatmap(
    values: np.ndarray,
    *,
    names: Sequence[str],
    blocks: Sequence[str],
    scale: ColorScale,
    value_text: str,
    absent_name: str = "itself",
    mode: Mode = "light",
) -> go.Figure:
    """Items down and across in the same order, a rule between blocks, each block named once.

    Args:
        values: (item, item), NaN where there is no number.
        names: of the items, for the hover.
        blocks: block of each item; items of a block stand together.
        scale: how the numbers become colors.
        value_text: how the hover writes them.
        absent_name: what the hatch over missing numbers means.
        mode: light or dark.
    """
    figure = matrix_heatmap(
        values,
        rows=names,
        columns=names,
        scale=scale,
        value_text=value_text,
        absent_name=absent_name,
        cell_pixels=max(2, _PIXELS // max(1, len(names))),
        mode=mode,
    )
    sizes = [(name, len(list(members))) for name, members in groupby(blocks)]
    ends = np.cumsum([size for _, size in sizes]) - 0.5
    middles = ends - np.array([size for _, size in sizes]) / 2
    ticks = {"tickvals": middles, "ticktext": [plotly_text(name) for name, _ in sizes], "tickangle": 0}
    line = {"color": INKS[mode].text, "width": 1}
    rules = [
        {"type": "line", "layer": "above", "line": line, "opacity": 0.7}
        | {f"{along}0": -0.5, f"{along}1": len(names) - 0.5, f"{across}0": end, f"{across}1": end}
        for end in ends[:-1]
        for along, across in (("x", "y"), ("y", "x"))
    ]
    return figure.update_layout(xaxis=ticks, yaxis=ticks, shapes=[*figure.layout.shapes, *rules], margin_l=8)
