"""How one expert's load went: over the prompts of a run, and over training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from figures.pieces import plotly_text, snippet
from figures.theme import INKS, OKABE_ITO, PERCENT_TICKS, Mode, finish

__all__ = ["load_over_run", "load_over_steps"]

_HEIGHT = 260


def load_over_run(table: pd.DataFrame, *, even: float, mode: Mode = "light") -> go.Figure:
    """An expert's activation rate along the run, with its interval and the even share.

    Args:
        table: windows as `analysis.single_expert.load_over_run` gives them.
        even: the rate of an expert of an even layer.
        mode: light or dark.
    """
    x = ((table["first_prompt"] + table["last_prompt"]) / 2).to_numpy(float)
    low, high = table["rate_low"].to_numpy(float), table["rate_high"].to_numpy(float)
    figure = go.Figure()
    known = np.isfinite(low)
    if known.any():
        figure.add_scatter(
            x=np.concatenate([x[known], x[known][::-1]]),
            y=np.concatenate([high[known], low[known][::-1]]),
            fill="toself",
            fillcolor=_pale(OKABE_ITO[0]),
            line={"width": 0},
            hoverinfo="skip",
            name="95 % interval",
        )
    about = [
        f"prompts {first} to {last}<br>{n:,} tokens<br>{plotly_text(snippet(tasks, n_characters=90))}"
        for first, last, n, tasks in zip(
            table["first_prompt"], table["last_prompt"], table["n_tokens"], table["tasks"], strict=True
        )
    ]
    figure.add_scatter(
        x=x,
        y=table["rate"].to_numpy(float),
        mode="lines+markers",
        line={"color": OKABE_ITO[0], "width": 2, "shape": "hvh"},
        marker={"size": 5},
        text=about,
        hovertemplate="%{y:.1%} of the tokens<br>%{text}<extra></extra>",
        name="this expert",
    )
    _even(figure, even, mode=mode)
    figure.update_layout(
        xaxis={"title": {"text": "prompt, as recorded"}, "showgrid": False},
        yaxis={"title": {"text": "share of tokens"}, "tickformat": PERCENT_TICKS, "rangemode": "tozero"},
    )
    return finish(figure, mode=mode, height=_HEIGHT)


def load_over_steps(share: pd.Series, *, even: float, mode: Mode = "light") -> go.Figure:
    """An expert's share of its layer's work at several training steps.

    Args:
        share: training step (index) · share of the layer's assignments.
        even: the share of an expert of an even layer.
        mode: light or dark.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=share.index.to_numpy(),
        y=share.to_numpy(float),
        mode="lines+markers",
        line={"color": OKABE_ITO[0], "width": 2},
        marker={"size": 7},
        hovertemplate="step %{x:,}<br>%{y:.2%} of assignments<extra></extra>",
        name="this expert",
    )
    _even(figure, even, mode=mode)
    figure.update_layout(
        xaxis={"title": {"text": "training step"}, "showgrid": False},
        yaxis={"title": {"text": "share of assignments"}, "tickformat": PERCENT_TICKS, "rangemode": "tozero"},
    )
    return finish(figure, mode=mode, height=_HEIGHT)


def _even(figure: go.Figure, even: float, *, mode: Mode) -> None:
    figure.add_hline(
        y=even,
        line={"color": INKS[mode].muted, "width": 1.2, "dash": "dot"},
        annotation={"text": "even share", "font": {"size": 11, "color": INKS[mode].muted}},
        annotation_position="top right",
    )


def _pale(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
