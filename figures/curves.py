"""A number of each layer along something that grows: positions, capacity factors, prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.colors import sample_colorscale

from figures.pieces import plotly_text
from figures.theme import INKS, OKABE_ITO, PERCENT_TICKS, SEQUENTIAL, Mode, finish

__all__ = ["capacity_curve", "convergence_curve", "layer_curves", "pass_dots", "position_curves", "rank_curves"]


def layer_curves(
    places: Sequence[object],
    values: np.ndarray,
    *,
    layers: Sequence[str],
    place_title: str,
    value_title: str,
    reference: np.ndarray | None = None,
    reference_name: str = "chance",
    band: tuple[str, np.ndarray, np.ndarray] | None = None,
    number_format: str = ".3g",
    mode: Mode = "light",
) -> go.Figure:
    """A line for each layer, early layers dark, late layers bright, and a dotted one to compare with.

    Args:
        places: along the horizontal axis.
        values: (layer, place) · the numbers, NaN where there is none.
        layers: labels of the lines.
        place_title: of the horizontal axis.
        value_title: of the vertical axis, with the unit.
        reference: (place) · drawn dotted.
        reference_name: what it is.
        band: label of one layer, and the ends of its intervals (place), drawn as a band; NaN where there is none.
        number_format: d3 format.
        mode: light or dark.
    """
    figure = go.Figure()
    texts = [str(place) for place in places]
    x = np.arange(len(texts))
    shades = sample_colorscale(SEQUENTIAL, np.linspace(0.12, 0.92, max(2, len(layers))).tolist())
    if band is not None:
        _band(
            figure, x, band[1], band[2], name=f"{band[0]}, 95 %", color=dict(zip(layers, shades, strict=False))[band[0]]
        )
    for layer, value, shade in zip(layers, values, shades, strict=False):
        name = plotly_text(str(layer))
        figure.add_scatter(
            x=x,
            y=value,
            mode="lines+markers",
            line={"color": shade, "width": 2},
            marker={"size": 6, "color": shade},
            text=texts,
            name=name,
            hovertemplate=f"<b>{name}</b> · {place_title} %{{text}}<br>%{{y:{number_format}}}<extra></extra>",
        )
    if reference is not None and np.isfinite(reference).any():
        figure.add_scatter(
            x=x,
            y=reference,
            mode="lines",
            line={"color": INKS[mode].muted, "width": 1.5, "dash": "dot"},
            name=plotly_text(reference_name),
            hovertemplate=f"{plotly_text(reference_name)}: %{{y:{number_format}}}<extra></extra>",
        )
    figure.update_layout(
        xaxis={"title": {"text": place_title}, "tickvals": x.tolist(), "ticktext": [plotly_text(t) for t in texts]},
        yaxis={"title": {"text": value_title}, "rangemode": "tozero"},
    )
    return finish(figure, mode=mode, height=320)


def _band(figure: go.Figure, x: np.ndarray, low: np.ndarray, high: np.ndarray, *, name: str, color: str) -> None:
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return
    at = x[known]
    figure.add_scatter(
        x=np.concatenate([at, at[::-1]]),
        y=np.concatenate([high[known], low[known][::-1]]),
        mode="lines",
        fill="toself",
        line={"width": 0, "color": color},
        fillcolor=color.replace("rgb(", "rgba(").replace(")", ", 0.22)"),
        name=plotly_text(name),
        hoverinfo="skip",
    )


def position_curves(
    table: xr.Dataset, *, column: str = "max_over_mean", value_title: str, mode: Mode = "light"
) -> go.Figure:
    """A column of `analysis.load_by_position` over positions, with what an even router gives.

    Args:
        table: (position, layer) · the column, and even_router.
        column: which number to draw.
        value_title: of the axis, with the unit.
        mode: light or dark.
    """
    even = table["even_router"].mean("layer").to_numpy() if column == "max_over_mean" else None
    return layer_curves(
        table["position"].values.tolist(),
        table[column].transpose("layer", "position").to_numpy(),
        layers=[str(layer) for layer in table["layer"].values],
        place_title="position",
        value_title=value_title,
        reference=even,
        reference_name="an even router",
        mode=mode,
    )


def capacity_curve(table: xr.Dataset, *, mode: Mode = "light") -> go.Figure:
    """Dropped assignments over capacity factors, with what an even router drops.

    Args:
        table: (factor, layer) · drop_rate, even_router, as `analysis.capacity_drops` gives them.
        mode: light or dark.
    """
    figure = layer_curves(
        [f"{factor:g}" for factor in table["factor"].values],
        table["drop_rate"].transpose("layer", "factor").to_numpy(),
        layers=[str(layer) for layer in table["layer"].values],
        place_title="capacity factor",
        value_title="share of assignments dropped",
        reference=table["even_router"].mean("layer").to_numpy(),
        reference_name="an even router",
        number_format=".1%",
        mode=mode,
    )
    return figure.update_layout(yaxis_tickformat=PERCENT_TICKS)


def rank_curves(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """What the later routing kept of the earlier one, a line a rank over the layers, chance dotted.

    Args:
        table: (layer, rank) · kept, kept_low, kept_high, chance_kept, as `analysis.saturation_by_rank` gives them.
        mode: light or dark.
    """
    figure = go.Figure()
    layers = list(dict.fromkeys(str(layer) for layer in table.index.get_level_values("layer")))
    place = {layer: number for number, layer in enumerate(layers)}
    for rank in sorted(set(table.index.get_level_values("rank"))):
        part = table.xs(rank, level="rank")
        x = [place[str(layer)] for layer in part.index]
        color = OKABE_ITO[int(rank) % len(OKABE_ITO)]
        figure.add_scatter(
            x=x,
            y=part["kept"],
            mode="lines+markers",
            line={"color": color, "width": 2},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": np.nan_to_num(part["kept_high"] - part["kept"]),
                "arrayminus": np.nan_to_num(part["kept"] - part["kept_low"]),
                "thickness": 1.2,
                "width": 0,
            },
            name=f"rank {rank}",
            text=[plotly_text(str(layer)) for layer in part.index],
            hovertemplate=f"<b>%{{text}}</b> · rank {rank}<br>%{{y:.1%}} kept<extra></extra>",
        )
        figure.add_scatter(
            x=x,
            y=part["chance_kept"],
            mode="lines",
            line={"color": color, "width": 1.2, "dash": "dot"},
            name=f"rank {rank}, another text",
            showlegend=bool(rank == 0),
            hovertemplate=f"rank {rank} by chance: %{{y:.1%}}<extra></extra>",
        )
    figure.update_layout(
        xaxis={
            "title": {"text": "layer"},
            "tickvals": list(range(len(layers))),
            "ticktext": [plotly_text(layer) for layer in layers],
        },
        yaxis={
            "title": {"text": "share of tokens whose expert was there"},
            "range": [0, 1.02],
            "tickformat": PERCENT_TICKS,
        },
    )
    return finish(figure, mode=mode, height=320)


def convergence_curve(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """How far the load of one layer still was from where it ended, beside runs in random order.

    Args:
        table: index n_prompts · distance, shuffled_mean, shuffled_95, of one layer of `analysis.load_convergence`.
        mode: light or dark.
    """
    ink = INKS[mode]
    figure = go.Figure()
    x = table.index.to_numpy()
    for column, name, dash, width in (
        ("shuffled_95", "random order, 95 %", "dot", 1.2),
        ("shuffled_mean", "random order", "dash", 1.2),
        ("distance", "as recorded", "solid", 2.0),
    ):
        figure.add_scatter(
            x=x,
            y=table[column],
            mode="lines",
            line={"color": OKABE_ITO[0] if column == "distance" else ink.muted, "width": width, "dash": dash},
            name=name,
            hovertemplate=f"{name}: %{{y:.1%}} after %{{x:,}} prompts<extra></extra>",
        )
    figure.update_layout(
        xaxis={"title": {"text": "prompts recorded"}},
        yaxis={
            "title": {"text": "share of assignments yet to move"},
            "rangemode": "tozero",
            "tickformat": PERCENT_TICKS,
        },
    )
    return finish(figure, mode=mode, height=300)


def pass_dots(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """Every pass of a layer by its number of tokens, and what its tokens would show if they were independent.

    Args:
        table: index pass · n_tokens, max_over_mean, load_alone, even_router, hottest, phase, of one layer of
            `analysis.pass_load`.
        mode: light or dark.
    """
    ink = INKS[mode]
    figure = go.Figure()
    for number, (phase, part) in enumerate(table.groupby("phase", sort=False)):
        figure.add_scatter(
            x=part["n_tokens"],
            y=part["max_over_mean"],
            mode="markers",
            marker={"size": 7, "color": OKABE_ITO[number], "opacity": 0.75},
            name=plotly_text(str(phase)),
            customdata=np.stack([part.index.to_numpy(), part["hottest"], part["load_alone"]], axis=-1),
            hovertemplate="pass %{customdata[0]} · %{x} tokens<br>E%{customdata[1]} does %{y:.2f} times the mean"
            "<br>independent tokens of this load: %{customdata[2]:.2f}<extra></extra>",
        )
    line = table.sort_values("n_tokens")
    figure.add_scatter(
        x=line["n_tokens"],
        y=line["even_router"],
        mode="lines",
        line={"color": ink.muted, "width": 1.5, "dash": "dot"},
        name="an even router",
        hovertemplate="an even router: %{y:.2f}<extra></extra>",
    )
    figure.update_layout(
        xaxis={"title": {"text": "tokens in the pass"}, "type": "log"},
        yaxis={"title": {"text": "busiest expert ÷ mean"}, "rangemode": "tozero"},
    )
    return finish(figure, mode=mode, height=320)
