"""What an intervention did to each group of prompts, beside what random interventions of its kind did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from figures.intervals import interval_bars
from figures.pieces import plotly_text
from figures.theme import INKS, OKABE_ITO, Mode, finish

__all__ = ["EffectRow", "effect_dots"]

_ROW_PIXELS = 22


@dataclass(frozen=True, kw_only=True)
class EffectRow:
    """One line of the picture; without a value it is a heading.

    Attributes:
        name: as the axis writes it.
        value, low, high: the effect and its interval, NaN where unknown.
        random_mean, random_low, random_high: mean and range of the random interventions.
        beyond: whether the effect beats them.
        meant: whether this is what the intervention was meant for; its name is bold.
        told: further lines of the hover.
        about: what a click tells.
    """

    name: str
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    random_mean: float = np.nan
    random_low: float = np.nan
    random_high: float = np.nan
    beyond: bool = False
    meant: bool = False
    told: str = ""
    about: str = ""

    @property
    def is_heading(self) -> bool:
        """Whether it only names the lines below it."""
        return not np.isfinite(self.value)


def effect_dots(
    rows: Sequence[EffectRow], *, value_title: str, number_format: str = "+.3f", mode: Mode = "light"
) -> go.Figure:
    """Dots with intervals downward, over the range of random interventions; filled where they beat it.

    Args:
        rows: from the top.
        value_title: of the axis, with the unit.
        number_format: d3 format of the numbers.
        mode: light or dark.
    """
    ink, color = INKS[mode], OKABE_ITO[0] if mode == "light" else OKABE_ITO[4]
    figure = go.Figure()
    places = [place for place, row in enumerate(rows) if not row.is_heading]
    drawn = [rows[place] for place in places]
    y = np.array(places, dtype=float)
    value, low, high, mean, start, end = (
        np.array([getattr(row, name) for row in drawn], dtype=float)
        for name in ("value", "low", "high", "random_mean", "random_low", "random_high")
    )
    if np.isfinite(start).any():
        gap = np.full(len(drawn), np.nan)
        figure.add_scatter(
            x=np.stack([start, end, gap], axis=1).ravel(),
            y=np.repeat(y, 3),
            mode="lines",
            line={"width": 9, "color": ink.grid},
            name="random: range",
            hoverinfo="skip",
            showlegend=True,
        )
        figure.add_scatter(
            x=mean,
            y=y,
            mode="markers",
            marker={"symbol": "line-ns", "size": 9, "line": {"width": 2, "color": ink.muted}},
            name="random: mean",
            hoverinfo="skip",
            showlegend=True,
        )
    tail = [
        f"<br>random sets: {_number(row.random_mean, number_format)} ({_number(row.random_low, number_format)} to "
        f"{_number(row.random_high, number_format)})"
        if np.isfinite(row.random_mean)
        else ""
        for row in drawn
    ]
    bounds = [
        f" (95 %: {_number(row.low, number_format)} to {_number(row.high, number_format)})"
        if np.isfinite(row.low)
        else ""
        for row in drawn
    ]
    figure.add_scatter(
        x=value,
        y=y,
        mode="markers",
        marker={
            "size": 9,
            "color": [color if row.beyond else ink.paper for row in drawn],
            "line": {"width": 1.5, "color": color},
        },
        error_x=interval_bars(value, low, high, color=color),
        text=[plotly_text(row.name.strip()) + f"<br>{plotly_text(row.told)}" for row in drawn],
        customdata=[
            [row.about, _number(row.value, number_format), bound, more]
            for row, bound, more in zip(drawn, bounds, tail, strict=True)
        ],
        hovertemplate="<b>%{text}</b><br>%{customdata[1]}%{customdata[2]}%{customdata[3]}<extra></extra>",
        name="chosen, with 95 %",
        showlegend=bool(np.isfinite(start).any()),
    )
    figure.add_vline(x=0, line={"color": ink.muted, "width": 1, "dash": "dot"})
    texts = [
        f"<b>{plotly_text(row.name)}</b>" if row.is_heading or row.meant else plotly_text(row.name) for row in rows
    ]
    figure.update_layout(
        xaxis={"title": {"text": value_title}, "zeroline": False},
        yaxis={
            "tickvals": list(range(len(rows))),
            "ticktext": texts,
            "range": [len(rows) - 0.5, -0.5],
            "zeroline": False,
            "showgrid": False,
        },
    )
    return finish(figure, mode=mode, height=105 + max(4, len(rows)) * _ROW_PIXELS)


def _number(value: float, number_format: str) -> str:
    return format(value, number_format).replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "unknown"
