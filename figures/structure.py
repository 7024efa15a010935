"""Who works with whom, who follows whom, and which layers tell about which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from figures.grid import ColorScale, log2_scale, outlines
from figures.square import matrix_heatmap
from figures.theme import PERCENT_TICKS, Mode

__all__ = ["coactivation_matrix", "layer_information_matrix", "transition_matrix", "word_matrix"]

_Cells = Iterable[tuple[int, int]]


def coactivation_matrix(
    table: xr.Dataset,
    *,
    layer: str,
    order: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    framed: _Cells = (),
    mode: Mode = "light",
) -> go.Figure:
    """Pairs of experts of a layer: how much oftener they are chosen together than chance; the others are gray.

    Args:
        table: (layer, expert, other) · lift, lift_low, lift_high, rate, significant, as `analysis.coactivation` gives
            them.
        layer: label of the layer.
        order: experts as they are drawn; by number, unless given.
        names: of all experts, by number; E0, E1 … unless given.
        framed: pairs of experts to frame.
        mode: light or dark.
    """
    part = table.sel(layer=layer)
    experts = list(order) if order is not None else part["expert"].values.tolist()
    part = part.sel(expert=experts, other=experts)
    shown = _names(experts, names)
    figure = _lifts(part, rows=shown, columns=shown, title="together ÷ chance", mode=mode, verb="with")
    cells = [(experts.index(one), experts.index(other)) for one, other in framed if {one, other} <= set(experts)]
    return _framed(figure, [*cells, *((column, row) for row, column in cells)], mode=mode)


def transition_matrix(
    table: xr.Dataset,
    *,
    step: str,
    orders: tuple[Sequence[int], Sequence[int]] | None = None,
    names: tuple[Sequence[str], Sequence[str]] | None = None,
    framed: _Cells = (),
    mode: Mode = "light",
) -> go.Figure:
    """Which expert of the next layer follows which, against independent layers; the others are gray.

    Args:
        table: (step, expert, next_expert) · lift, lift_low, lift_high, rate, significant, layer, next_layer, as
            `analysis.transitions` gives them.
        step: name of the step, as in "L00→L01".
        orders: experts of the layer and of the next as they are drawn; by number, unless given.
        names: of all experts of the layer and of the next, by number; E0, E1 … unless given.
        framed: pairs of an expert and a next one to frame.
        mode: light or dark.
    """
    part = table.sel(step=step)
    rows, columns = orders or (part["expert"].values.tolist(), part["next_expert"].values.tolist())
    rows, columns = list(rows), list(columns)
    part = part.sel(expert=rows, next_expert=columns)
    figure = _lifts(
        part,
        rows=_names(rows, names[0] if names else None),
        columns=_names(columns, names[1] if names else None),
        title="follows ÷ chance",
        mode=mode,
        verb="then",
    )
    now, then = str(part["layer"].item()), str(part["next_layer"].item())
    figure.update_layout(xaxis_title_text=f"expert of {then}", yaxis_title_text=f"expert of {now}")
    cells = [(rows.index(one), columns.index(other)) for one, other in framed if one in rows and other in columns]
    return _framed(figure, cells, mode=mode)


def layer_information_matrix(table: xr.Dataset, *, at_most: float | None = None, mode: Mode = "light") -> go.Figure:
    """How much of one layer's choice another layer's settles, beyond chance.

    Args:
        table: (layer, other) · share, excess_nats, p_value, as `analysis.layer_information` gives them.
        at_most: p-value above which a pair is gray; None makes none gray.
        mode: light or dark.
    """
    share = table["share"].to_numpy()
    names = [str(layer) for layer in table["layer"].values]
    highest = float(np.nanmax(share)) if np.isfinite(share).any() else 1.0
    return matrix_heatmap(
        share,
        rows=names,
        columns=[str(layer) for layer in table["other"].values],
        scale=ColorScale(
            title="share of the choice settled", low=0.0, high=max(highest, 0.01), tick_format=PERCENT_TICKS
        ),
        value_text="%{z:.1%} beyond chance<br>%{customdata[0]:.2f} nats, p = %{customdata[1]:.2g}",
        row_title="layer",
        column_title="layer",
        details=np.stack([table["excess_nats"].to_numpy(), table["p_value"].to_numpy()], axis=-1),
        muted=None if at_most is None else ~(table["p_value"].to_numpy() <= at_most) & np.isfinite(share),
        absent_name="the same layer, or none of the same tokens",
        mode=mode,
    )


def word_matrix(
    table: xr.Dataset, *, layers: Sequence[str], framed: Iterable[tuple[str, int]] = (), mode: Mode = "light"
) -> go.Figure:
    """How far the token's id alone brings it to each expert, layers downward.

    Args:
        table: (layer, expert) · specialization, rate, as `analysis.context_independence` gives them.
        layers: labels of the layers to draw.
        framed: (layer, expert) to frame.
        mode: light or dark.
    """
    part = table.sel(layer=list(layers))
    values = part["specialization"].to_numpy()
    columns = np.isfinite(values).any(axis=0).nonzero()[0].max(initial=0) + 1
    figure = matrix_heatmap(
        values[:, :columns],
        rows=list(layers),
        columns=[f"E{number}" for number in range(columns)],
        scale=ColorScale(title="chosen again", low=0.0, high=1.0, tick_format=PERCENT_TICKS),
        value_text="where it is chosen, the same token elsewhere chooses it in %{z:.1%}<br>"
        "by its load it would in %{customdata[0]:.1%}",
        row_title="layer",
        column_title="expert",
        details=part["rate"].to_numpy()[:, :columns, None],
        absent_name="never chosen, or none",
        mode=mode,
    )
    cells = [(list(layers).index(layer), expert) for layer, expert in framed if layer in layers and expert < columns]
    return _framed(figure, cells, mode=mode)


def _names(experts: Sequence[int], names: Sequence[str] | None) -> list[str]:
    return [f"E{number}" if names is None else names[number] for number in experts]


def _framed(figure: go.Figure, cells: _Cells, *, mode: Mode) -> go.Figure:
    frames = [(float(column), float(column), float(row), float(row)) for row, column in cells]
    return figure.update_layout(shapes=outlines(frames, mode=mode))


def _lifts(
    part: xr.Dataset, *, rows: Sequence[str], columns: Sequence[str], title: str, mode: Mode, verb: str
) -> go.Figure:
    lift, low, high = (part[name].to_numpy() for name in ("lift", "lift_low", "lift_high"))
    with np.errstate(over="ignore"):
        details = np.stack([2.0**lift, part["rate"].to_numpy(), 2.0**low, 2.0**high], axis=-1)
    called = part["significant"].to_numpy().astype(bool)
    return matrix_heatmap(
        lift,
        rows=rows,
        columns=columns,
        scale=log2_scale([lift[called] if called.any() else lift], title=title, most=4.0),
        value_text=f"{verb} it %{{customdata[0]:.2f}} times as often as by chance<br>"
        "(95 %: %{customdata[2]:.2f} to %{customdata[3]:.2f}), in %{customdata[1]:.1%} of its tokens",
        row_title="expert",
        column_title="expert",
        details=details,
        muted=~called & np.isfinite(lift),
        absent_name="nothing to compare",
        mode=mode,
    )
