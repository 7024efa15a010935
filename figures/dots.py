"""A number with its interval for each of many things, beside what it must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from figures.intervals import interval_bars
from figures.pieces import plotly_text
from figures.theme import INKS, OKABE_ITO, Mode, finish

__all__ = ["interval_dots"]

_ROW_PIXELS = 24


def interval_dots(
    names: Sequence[str],
    series: Mapping[str, tuple[np.ndarray, np.ndarray | None, np.ndarray | None]],
    *,
    value_title: str,
    marks: Mapping[str, np.ndarray] | None = None,
    strong: np.ndarray | None = None,
    zero_line: bool = False,
    number_format: str = ".3g",
    mode: Mode = "light",
) -> go.Figure:
    """Things downward, a dot with its interval for each number, ticks for chance.

    Args:
        names: of the things, in order.
        series: by name: value, and the ends of its interval or None.
        value_title: of the axis, with the unit.
        marks: by name: a reference for each thing, drawn as a tick; NaN where there is none.
        strong: which things are filled (significant); the others are hollow. None fills all.
        zero_line: whether 0 is drawn across.
        number_format: d3 format of the numbers.
        mode: light or dark.
    """
    ink = INKS[mode]
    figure = go.Figure()
    rows = np.arange(len(names))
    texts = [plotly_text(str(name)) for name in names]
    shifts = np.linspace(-0.16, 0.16, len(series)) if len(series) > 1 else np.zeros(1)
    for number, (name, (value, low, high)) in enumerate(series.items()):
        color = OKABE_ITO[number % len(OKABE_ITO)]
        fill = np.ones(len(names), bool) if strong is None else np.asarray(strong, bool)
        error, custom, tail = None, None, ""
        if low is not None and high is not None and np.isfinite(low).any():
            error = interval_bars(value, low, high, color=color)
            custom = np.stack([low, high], axis=-1)
            tail = f" (95 %: %{{customdata[0]:{number_format}}} to %{{customdata[1]:{number_format}}})"
        figure.add_scatter(
            x=value,
            y=rows + shifts[number],
            mode="markers",
            marker={
                "size": 9,
                "color": [color if each else ink.paper for each in fill],
                "line": {"width": 1.5, "color": color},
            },
            error_x=error,
            text=texts,
            customdata=custom,
            hovertemplate=f"<b>%{{text}}</b><br>{plotly_text(name)}: %{{x:{number_format}}}{tail}<extra></extra>",
            name=plotly_text(name),
            showlegend=len(series) > 1 or bool(marks),
        )
    symbols = ("line-ns", "x-thin", "diamond-tall-open", "line-ne")
    for number, (name, value) in enumerate((marks or {}).items()):
        figure.add_scatter(
            x=value,
            y=rows,
            mode="markers",
            marker={
                "symbol": symbols[number % len(symbols)],
                "size": 13,
                "color": ink.muted,
                "line": {"width": 2, "color": ink.text if number == 0 else ink.muted},
            },
            text=texts,
            hovertemplate=f"<b>%{{text}}</b><br>{plotly_text(name)}: %{{x:{number_format}}}<extra></extra>",
            name=plotly_text(name),
            showlegend=True,
        )
    if zero_line:
        figure.add_vline(x=0, line={"color": ink.text, "width": 1.2, "dash": "dot"})
    figure.update_layout(
        xaxis={"title": {"text": value_title}, "zeroline": False},
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": texts,
            "range": [len(names) - 0.5, -0.5],
            "zeroline": False,
        },
    )
    return finish(figure, mode=mode, height=105 + max(3, len(names)) * _ROW_PIXELS)
