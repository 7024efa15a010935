"""Numbers along the layers, and along training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from figures.grid import thinned
from figures.intervals import interval_bars
from figures.pieces import plotly_text
from figures.theme import INKS, OKABE_ITO, SEQUENTIAL, Mode, finish

__all__ = ["Track", "layer_tracks", "training_curves"]

_NORMAL, _BEYOND, _OTHER_RUN = OKABE_ITO[0], OKABE_ITO[5], OKABE_ITO[1]


@dataclass(frozen=True, kw_only=True)
class Track:
    """One number of each layer, drawn in a panel of its own.

    Attributes:
        column: of the table; its interval is in column_low and column_high.
        title: of the panel's axis, with the unit.
        threshold: what the number should not pass, None where there is no such value.
        above_is_worse: on which side of the threshold a layer stands out.
        number_format: d3 format.
    """

    column: str
    title: str
    threshold: float | None = None
    above_is_worse: bool = True
    number_format: str = ".2f"


def layer_tracks(
    table: pd.DataFrame,
    tracks: Sequence[Track],
    *,
    other: pd.DataFrame | None = None,
    names: tuple[str, str] = ("this run", "other run"),
    mode: Mode = "light",
) -> go.Figure:
    """Layers downward, one panel a number, each with its interval; what passes a threshold stands out.

    Args:
        table: index layer · the tracks' columns.
        tracks: which numbers to draw.
        other: the same of another run, drawn in a second color.
        names: of the two runs.
        mode: light or dark.
    """
    ink = INKS[mode]
    layers = [str(layer) for layer in table.index]
    figure = go.Figure()
    gap = 0.035
    width = (1 - gap * (len(tracks) - 1)) / len(tracks)
    for number, track in enumerate(tracks, start=1):
        axis = "x" if number == 1 else f"x{number}"
        beyond = _beyond(table[track.column].to_numpy(float), track)
        runs = [(table, layers, _NORMAL, names[0], -0.14 if other is not None else 0.0)]
        if other is not None:
            shared = [layer for layer in layers if layer in other.index]
            runs.append((other.loc[shared], shared, _OTHER_RUN, names[1], 0.14))
        for rows, labels, color, name, shift in runs:
            bounds = _bounds(rows, track.column)
            colors: str | list[str] = color
            if other is None and track.threshold is not None:
                colors = [_BEYOND if is_beyond else _NORMAL for is_beyond in beyond]
            figure.add_scatter(
                x=rows[track.column],
                y=np.array([layers.index(label) for label in labels]) + shift,
                error_x=_interval(rows[track.column], bounds, color=ink.muted),
                mode="markers",
                marker={"size": 8, "color": colors, "line": {"width": 1, "color": ink.paper}},
                text=[plotly_text(label) for label in labels],
                hovertemplate=_hover(track, has_bounds=bounds is not None),
                customdata=bounds,
                name=plotly_text(name),
                legendgroup=name,
                showlegend=number == 1 and other is not None,
                xaxis=axis,
                yaxis="y",
            )
        if track.threshold is not None:
            figure.add_shape(
                type="line",
                xref=axis,
                yref="y",
                x0=track.threshold,
                x1=track.threshold,
                y0=-0.5,
                y1=len(layers) - 0.5,
                line={"color": _BEYOND, "width": 1.2, "dash": "dot"},
            )
        left = (number - 1) * (width + gap)
        figure.update_layout(
            {
                f"xaxis{'' if number == 1 else number}": {
                    "domain": [left, left + width],
                    "title": {"text": track.title},
                    "anchor": "y",
                    "zeroline": False,
                    "nticks": 5,
                    # Where all are 0, Plotly would draw from −1 to 1; an entropy has no place below 0.
                    "rangemode": "nonnegative" if (table[track.column].dropna() >= 0).all() else "normal",
                }
            }
        )
    shown = thinned(layers, most=40)
    figure.update_layout(
        yaxis={
            "title": {"text": "layer"},
            "tickvals": shown,
            "ticktext": [plotly_text(layers[row]) for row in shown],
            "range": [len(layers) - 0.5, -0.5],
            "zeroline": False,
        }
    )
    per_row = 28 if len(layers) <= 16 else 18
    return finish(figure, mode=mode, height=105 + max(3, len(layers)) * per_row)


def training_curves(
    table: pd.DataFrame,
    *,
    value: str,
    value_title: str,
    reference: float | None = None,
    reference_name: str = "",
    mode: Mode = "light",
) -> go.Figure:
    """A number of each layer over training steps; early layers dark, late layers bright.

    Args:
        table: step, layer and the value, one row each; other columns are ignored.
        value: name of the column.
        value_title: of the axis, with the unit.
        reference: a level for comparison, such as what chance gives.
        reference_name: what it is.
        mode: light or dark.
    """
    figure = go.Figure()
    layers = list(dict.fromkeys(table["layer"].astype(str)))
    steps = sorted(int(step) for step in table["step"].unique())
    # Most happens early, so snapshots are taken close together there: by the number they would lie on one another.
    even = len(steps) < 3 or min(b - a for a, b in pairwise(steps)) > 0.08 * (steps[-1] - steps[0])
    place = {step: step if even else number for number, step in enumerate(steps)}
    shades = sample_colorscale(SEQUENTIAL, np.linspace(0.12, 0.92, max(2, len(layers))).tolist())
    for layer, shade in zip(layers, shades, strict=False):
        part = table[table["layer"].astype(str) == layer].sort_values("step")
        figure.add_scatter(
            x=part["step"].map(place),
            y=part[value],
            mode="lines+markers",
            line={"color": shade, "width": 2},
            marker={"size": 6, "color": shade},
            name=plotly_text(layer),
            customdata=part["step"],
            hovertemplate=f"<b>{plotly_text(layer)}</b> · step %{{customdata:,}}<br>%{{y:.3g}}<extra></extra>",
        )
    if reference is not None:
        figure.add_hline(
            y=reference,
            line={"color": INKS[mode].muted, "width": 1.2, "dash": "dot"},
            annotation={"text": reference_name, "font": {"size": 11, "color": INKS[mode].muted}},
            annotation_position="bottom right" if reference else "top right",
        )
    figure.update_layout(
        xaxis={
            "title": {"text": "training step" if even else "training step (not to scale)"},
            "tickvals": [place[step] for step in steps],
            "ticktext": [f"{step:,}" for step in steps],
            "tickangle": 0,
        },
        yaxis={"title": {"text": value_title}, "rangemode": "tozero"},
    )
    return finish(figure, mode=mode, height=320)


def _beyond(values: np.ndarray, track: Track) -> np.ndarray:
    if track.threshold is None:
        return np.zeros(len(values), dtype=bool)
    return values > track.threshold if track.above_is_worse else values < track.threshold


def _bounds(rows: pd.DataFrame, column: str) -> np.ndarray | None:
    if f"{column}_low" not in rows:
        return None
    return np.column_stack([rows[f"{column}{end}"].to_numpy(float) for end in ("_low", "_high")])


def _interval(middle: pd.Series, bounds: np.ndarray | None, *, color: str) -> Mapping[str, object] | None:
    if bounds is None or not np.isfinite(bounds).any():
        return None
    return interval_bars(middle.to_numpy(float), bounds[:, 0], bounds[:, 1], color=color)


def _hover(track: Track, *, has_bounds: bool) -> str:
    text = f"<b>%{{text}}</b><br>{track.title}: %{{x:{track.number_format}}}"
    if has_bounds:
        text += f"<br>95 %: %{{customdata[0]:{track.number_format}}} to %{{customdata[1]:{track.number_format}}}"
    return text + "<extra></extra>"
