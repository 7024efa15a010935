"""What a model would write next, and how much a text surprised it, before and after a change."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from figures.pieces import plotly_text, shown_piece
from figures.theme import INKS, OKABE_ITO, PERCENT_TICKS, Mode, finish

__all__ = ["next_token_bars", "runner_up_bars", "surprise_bars"]

_ROW_PIXELS = 26
_PAIR_PIXELS = 34
# As many pieces as can be read side by side.
_N_NAMED = 32


def next_token_bars(table: pd.DataFrame, *, mode: Mode = "light", written: int | None = None) -> go.Figure:
    """A bar for each of the likeliest next tokens, or two: before and after.

    Args:
        table: token_id, piece and probability, or before and after, in the order of the rows downward.
        mode: light or dark.
        written: token id of what the text has there, whose name is set in bold.
    """
    ink = INKS[mode]
    pairs = "after" in table
    figure = go.Figure()
    names = [_name(piece, bold=each == written) for piece, each in zip(table["piece"], table["token_id"], strict=True)]
    rows = np.arange(len(table))
    series = {"before": ink.muted, "after": OKABE_ITO[1]} if pairs else {"probability": OKABE_ITO[0]}
    for column, color in series.items():
        figure.add_bar(
            x=table[column].to_numpy(np.float32),
            y=rows,
            orientation="h",
            name=column,
            marker={"color": color, "line": {"width": 0}},
            text=[f"{value:.1%}" for value in table[column]],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{customdata}}<br>{column} %{{x:.2%}}<extra></extra>",
            customdata=names,
        )
    top = float(table[list(series)].to_numpy().max()) if len(table) else 1.0
    figure.update_xaxes(
        title="Probability of the next token",
        tickformat=PERCENT_TICKS,
        range=[0, 1.18 * max(top, 1e-6)],
    )
    figure.update_yaxes(tickvals=rows, ticktext=names, range=[len(table) - 0.5, -0.5], showgrid=False, zeroline=False)
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.05, showlegend=pairs)
    if pairs:
        figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal"})
    return finish(figure, mode=mode, height=96 + (_PAIR_PIXELS if pairs else _ROW_PIXELS) * max(1, len(table)))


def surprise_bars(table: pd.DataFrame, *, selected: int | None = None, mode: Mode = "light") -> go.Figure:
    """How much more, or less, each token of a text surprises the model after a change.

    Args:
        table: a row a token in order: piece, nll_before, nll_after in nats, NaN where unknown.
        selected: row of the token whose decision was changed.
        mode: light or dark.
    """
    ink = INKS[mode]
    change = (table["nll_after"] - table["nll_before"]).to_numpy(np.float32)
    names = [plotly_text(shown_piece(str(piece)).text.strip()) or "␣" for piece in table["piece"]]
    rows = np.arange(len(table))
    figure = go.Figure()
    figure.add_bar(
        x=rows,
        y=change,
        marker={"color": np.where(change > 0, OKABE_ITO[1], OKABE_ITO[0]).tolist(), "line": {"width": 0}},
        customdata=np.stack([np.array(names, object), table["nll_before"], table["nll_after"]], axis=-1),
        hovertemplate="“%{customdata[0]}” (token %{x})<br>%{customdata[1]:.3f} → %{customdata[2]:.3f} nats"
        "<br>%{y:+.3f}<extra></extra>",
    )
    if selected is not None:
        figure.add_vline(x=selected, line={"color": ink.accent, "width": 2, "dash": "dot"})
        figure.add_annotation(
            x=selected,
            y=1,
            yref="paper",
            text="changed here",
            showarrow=False,
            xanchor="left" if selected < len(table) / 2 else "right",
            yanchor="bottom",
            font={"size": 12, "color": ink.accent},
        )
    if len(table) <= _N_NAMED:
        figure.update_xaxes(tickvals=rows, ticktext=names, tickangle=-60 if len(table) > 12 else 0)
    figure.update_xaxes(title="Token of the text", showgrid=False, range=[-0.5, len(table) - 0.5])
    figure.update_yaxes(title="Change of nll (nats)", zeroline=True, zerolinecolor=ink.muted)
    figure.update_layout(showlegend=False, bargap=0.25)
    # Room for the words above the line.
    return finish(figure, mode=mode, height=320).update_layout(margin={"t": 28})


def runner_up_bars(table: pd.DataFrame, *, selected: str | None = None, mode: Mode = "light") -> go.Figure:
    """A bar a layer: how far the next token's distribution moves if the runner-up comes in there.

    Args:
        table: a row a layer: layer, taken_out, put_in, nll_change, divergence in nats.
        selected: label of the layer to mark.
        mode: light or dark.
    """
    ink = INKS[mode]
    layers = [str(each) for each in table["layer"]]
    swaps = [f"E{out} → E{into}" for out, into in zip(table["taken_out"], table["put_in"], strict=True)]
    figure = go.Figure()
    figure.add_bar(
        x=table["divergence"].to_numpy(np.float32),
        y=layers,
        orientation="h",
        marker={"color": [ink.accent if each == selected else OKABE_ITO[0] for each in layers], "line": {"width": 0}},
        text=[f"{value:.3f}  {swap}" for value, swap in zip(table["divergence"], swaps, strict=True)],
        textposition="outside",
        cliponaxis=False,
        customdata=np.stack([np.array(swaps, object), table["nll_change"]], axis=-1),
        hovertemplate="%{y}: %{customdata[0]}<br>divergence %{x:.4f} nats"
        "<br>nll of the next token %{customdata[1]:+.3f} nats<extra></extra>",
    )
    top = float(table["divergence"].max()) if len(table) else 1.0
    figure.update_xaxes(title="Divergence of the next token's distribution (nats)", range=[0, 1.35 * max(top, 1e-6)])
    figure.update_yaxes(type="category", range=[len(layers) - 0.5, -0.5], showgrid=False)
    figure.update_layout(showlegend=False, bargap=0.3)
    return finish(figure, mode=mode, height=84 + 22 * max(1, len(layers)))


def _name(piece: str, *, bold: bool) -> str:
    shown = shown_piece(piece)
    # A word with a space before it is another token than the word alone.
    blank = "␣" if shown.text.startswith(" ") else ""
    text = blank + shown.text.strip() if shown.name is None else shown.name
    name = plotly_text(text)
    return f"<b>{name}</b>" if bold else name
