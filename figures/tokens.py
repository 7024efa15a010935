"""One token's way through the layers: what was selected, what came next, and how close it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.pieces import plotly_text
from figures.theme import INKS, OKABE_ITO, PERCENT_TICKS, SEQUENTIAL, Mode, finish
from routing.selection import expert_name

__all__ = ["token_route"]

# From here on a cell is too narrow for a weight beside the expert's name.
_N_WIDE_RANKS = 4
# Between the selected and the runners-up, in columns.
_GAP = 0.35


def token_route(
    route: pd.DataFrame, *, mode: Mode, usual: pd.DataFrame | None = None, adapters: pd.Series | None = None
) -> go.Figure:
    """A row a layer: selected experts, runners-up, and the margin between the two.

    Args:
        route: one token's rows of layer, rank, expert, score, weight, selected, dropped, margin, as
            `analysis.reading.token_route` gives them.
        mode: light or dark.
        usual: layer (index) × low, high: the middle half of all tokens' margins, drawn behind this one's.
        adapters: site (index) · what an adapter added over what it was added to; those that are named as a layer stand
            beside it.

    Returns:
        (layer, rank) · selection score · one scale for all layers; beside it (layer) · margin. The last of a cell's
        `customdata` is its expert.
    """
    layers = list(dict.fromkeys(route["layer"]))
    beside = None if adapters is None else adapters.reindex(layers)
    widths = [0.76, 0.24] if beside is None or beside.isna().all() else [0.64, 0.2, 0.16]
    figure = make_subplots(cols=len(widths), shared_yaxes=True, column_widths=widths, horizontal_spacing=0.02)
    _add_ranks(figure, route, layers=layers, mode=mode)
    _add_margins(figure, route, layers=layers, mode=mode, usual=usual)
    if len(widths) == 3 and beside is not None:
        _add_adapters(figure, beside, mode=mode)
    # Set by hand: markers would push the ends of an automatic range outwards.
    figure.update_yaxes(range=[len(layers) - 0.5, -0.5], showgrid=False, zeroline=False)
    figure.update_yaxes(ticks="outside", ticklen=6, tickcolor="rgba(0,0,0,0)", row=1, col=1)
    return finish(figure, mode=mode, height=92 + _row_height(layers) * len(layers))


def _row_height(layers: list[str]) -> int:
    return 30 if len(layers) <= 24 else 20


def _add_ranks(figure: go.Figure, route: pd.DataFrame, *, layers: list[str], mode: Mode) -> None:
    n_selected_of = route.groupby("layer")["selected"].transform("sum")
    n_selected = int(n_selected_of.max()) if len(route) else 0
    wide = n_selected <= _N_WIDE_RANKS
    chosen = route[route["selected"]]
    # Runners-up stand in one column also where layers select different numbers of experts.
    following = route[~route["selected"]].assign(rank=lambda rows: rows["rank"] - n_selected_of[rows.index])
    scores = route["score"].dropna()
    scale = {
        "colorscale": SEQUENTIAL,
        # Scores are shares or probabilities as a rule: zero belongs on the scale unless they pass it.
        "zmin": min(0.0, float(scores.min())) if len(scores) else 0.0,
        "zmax": float(scores.max()) if len(scores) else 1.0,
    }
    starts = (0.0, n_selected + _GAP)
    for rows, start, shows_bar in ((chosen, starts[0], True), (following, starts[1], False)):
        if len(rows):
            cells = _cells(rows, layers=layers, start=start, wide=wide, showscale=shows_bar, **scale)
            figure.add_trace(cells, row=1, col=1)
    n_following = int(following["rank"].max()) + 1 if len(following) else 0
    end = starts[1] + n_following if n_following else n_selected
    figure.update_xaxes(
        tickvals=[*range(n_selected), *(starts[1] + place for place in range(n_following))],
        ticktext=[*map(str, range(n_selected)), *(f"+{place + 1}" for place in range(n_following))],
        range=[-0.5, end - 0.5],
        title="Rank · place behind the selected" if n_following else "Rank",
        showgrid=False,
        zeroline=False,
        row=1,
        col=1,
    )
    _head(figure, x=-0.5, xref="x", text="<b>Selected</b>" + (" · weight" if wide else ""), mode=mode)
    if n_following:
        _head(figure, x=starts[1] - 0.5, xref="x", text="<b>Runners-up</b>", mode=mode)


def _cells(rows: pd.DataFrame, *, layers: list[str], start: float, wide: bool, **options: Any) -> go.Heatmap:
    n_columns = int(rows["rank"].max()) + 1
    shape = (len(layers), n_columns)
    z = np.full(shape, np.nan, dtype=np.float32)
    text = np.full(shape, "", dtype=object)
    # What a cell says when pointed at, and which expert it is.
    about = np.full((*shape, 2), "", dtype=object)
    at = {layer: number for number, layer in enumerate(layers)}
    for row in rows.to_dict("records"):
        place = at[row["layer"]], int(row["rank"])
        z[place] = row["score"]
        text[place] = _cell_text(row, wide=wide)
        about[place] = _cell_hover(row), int(row["expert"])
    return go.Heatmap(
        z=z,
        x=start + np.arange(n_columns, dtype=np.float32),
        y=layers,
        text=text,
        texttemplate="%{text}",
        textfont={"size": 12},
        customdata=about,
        hovertemplate="%{customdata[0]}<extra></extra>",
        hoverongaps=False,
        xgap=3,
        ygap=3,
        colorbar={
            "title": "Selection score",
            "lenmode": "pixels",
            "len": min(170, _row_height(layers) * len(layers)),
            "y": 1,
            "yanchor": "top",
        },
        **options,
    )


def _head(figure: go.Figure, *, x: float, xref: str, text: str, mode: Mode) -> None:
    figure.add_annotation(
        x=x,
        xref=xref,
        y=1,
        yref="paper",
        text=text,
        showarrow=False,
        xanchor="left",
        yanchor="bottom",
        font={"size": 12, "color": INKS[mode].text},
    )


def _cell_text(row: dict[str, Any], *, wide: bool) -> str:
    name = f"E{int(row['expert'])}"
    if not row["selected"]:
        return name
    if _was_dropped(row):
        return f"<s>{name}</s>"
    weight = f"  {row['weight']:.2f}" if wide and pd.notna(row["weight"]) else ""
    return f"<b>{name}</b>{weight}"


def _cell_hover(row: dict[str, Any]) -> str:
    lines = [f"<b>{plotly_text(expert_name(row['layer'], int(row['expert'])))}</b>"]
    lines.append(f"selected, rank {int(row['rank'])}" if row["selected"] else f"{int(row['rank']) + 1}. runner-up")
    if pd.notna(row["score"]):
        lines.append(f"selection score {row['score']:.4f}")
    if row["selected"] and pd.notna(row["weight"]):
        lines.append(f"weight {row['weight']:.4f}")
    if _was_dropped(row):
        lines.append("dropped: the expert was full")
    return "<br>".join(lines)


def _was_dropped(row: dict[str, Any]) -> bool:
    return bool(row["selected"]) and pd.notna(row["dropped"]) and bool(row["dropped"])


def _add_margins(
    figure: go.Figure, route: pd.DataFrame, *, layers: list[str], mode: Mode, usual: pd.DataFrame | None
) -> None:
    ink = INKS[mode]
    margins = route.drop_duplicates("layer").set_index("layer")["margin"].reindex(layers)
    if usual is not None:
        band = usual.reindex(layers)
        figure.add_bar(
            x=(band["high"] - band["low"]).to_numpy(np.float32),
            base=band["low"].to_numpy(np.float32),
            y=layers,
            orientation="h",
            width=0.72,
            marker={"color": ink.grid, "line": {"width": 0}},
            name="middle half of all tokens",
            customdata=band[["low", "high"]].to_numpy(np.float32),
            hovertemplate="%{y}: half of all tokens have %{customdata[0]:.4f} to %{customdata[1]:.4f}<extra></extra>",
            row=1,
            col=2,
        )
    figure.add_scatter(
        x=margins.to_numpy(np.float32),
        y=layers,
        mode="markers",
        marker={
            "color": ink.accent,
            "size": 9,
            "symbol": "line-ns",
            "line": {"width": 3, "color": ink.accent},
        },
        name="this token",
        hovertemplate="%{y}: margin %{x:.4f}<extra></extra>",
        row=1,
        col=2,
    )
    figure.update_xaxes(title="Margin (selection score)", rangemode="tozero", row=1, col=2)
    figure.update_layout(barmode="overlay", showlegend=False)
    _head(
        figure,
        x=0,
        xref="x2 domain",
        text="<b>Margin</b> · band: middle half of all tokens" if usual is not None else "<b>Margin</b>",
        mode=mode,
    )


def _add_adapters(figure: go.Figure, ratio: pd.Series, *, mode: Mode) -> None:
    figure.add_bar(
        x=ratio.to_numpy(np.float32),
        y=list(ratio.index),
        orientation="h",
        width=0.5,
        marker={"color": OKABE_ITO[0], "line": {"width": 0}},
        name="adapter",
        hovertemplate="%{y}: the adapter added %{x:.1%} of the norm<extra></extra>",
        row=1,
        col=3,
    )
    figure.update_xaxes(title="Adapter ÷ output (norms)", rangemode="tozero", tickformat=PERCENT_TICKS, row=1, col=3)
    _head(figure, x=0, xref="x3 domain", text="<b>Adapter</b>", mode=mode)
