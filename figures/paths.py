"""Paths through the layers, guesses of the next one, and what the token's id decides: dots beside chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from figures.dots import interval_dots
from figures.grid import ratio_text
from figures.pieces import snippet
from figures.theme import PERCENT_TICKS, Mode

__all__ = ["common_path_dots", "context_dots", "guess_dots", "pair_dots", "path_dots"]

_LONGEST_NAME = 30
_CLOSE_TICKS = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0]


def pair_dots(table: pd.DataFrame, *, names: Sequence[str], value_title: str, mode: Mode = "light") -> go.Figure:
    """Pairs of experts, how much oftener they go together than chance, on a scale of doublings.

    Args:
        table: rows of lift, lift_low, lift_high (log2), significant, in the order in which they are drawn.
        names: of the pairs.
        value_title: of the axis.
        mode: light or dark.
    """
    value, low, high = (2.0 ** table[name].to_numpy(float) for name in ("lift", "lift_low", "lift_high"))
    figure = interval_dots(
        list(names),
        {"pair": (value, low, high)},
        value_title=value_title,
        marks={"chance": np.ones(len(table))},
        strong=table["significant"].to_numpy(bool),
        number_format=".2f",
        mode=mode,
    )
    # Doublings where there are several, finer where all is close to chance.
    doublings = [2.0**power for power in range(-8, 17)]
    ends = table[["lift_low", "lift_high"]].to_numpy(float)
    close = not (np.abs(np.where(np.isfinite(ends), ends, 0.0)) > 1).any()
    ticks = _CLOSE_TICKS if close else doublings
    return figure.update_layout(
        xaxis={"type": "log", "tickvals": ticks, "ticktext": [ratio_text(tick) for tick in ticks]}
    )


def guess_dots(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """How often the next layer's first expert is among those that are guessed, beside always naming the same.

    Args:
        table: rows of step, accuracy with _low and _high, always_same, chance, of one number of guesses of
            `analysis.next_layer_predictability`.
        mode: light or dark.
    """
    return interval_dots(
        [str(step) for step in table["step"]],
        {"guessed from this layer": _with_interval(table, "accuracy")},
        value_title="share of tokens of prompts not seen",
        marks={"always the busiest": table["always_same"].to_numpy(float), "chance": table["chance"].to_numpy(float)},
        number_format=".1%",
        mode=mode,
    ).update_layout(xaxis_tickformat=PERCENT_TICKS, xaxis_rangemode="tozero")


def path_dots(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """Over how many evenly used paths tokens spread, beside layers that know nothing of each other.

    Args:
        table: rows of window, entropy_nats, dealt_nats, independent_nats, p_value, as `analysis.path_entropy` gives
            them.
        mode: light or dark.
    """
    paths, dealt, independent = (
        np.exp(table[name].to_numpy(float)) for name in ("entropy_nats", "dealt_nats", "independent_nats")
    )
    figure = interval_dots(
        [str(name) for name in table["window"]],
        {"paths of the tokens": (paths, None, None)},
        value_title="evenly used paths, exp(entropy)",
        marks={"layers of different texts": dealt, "independent layers, endless tokens": independent},
        strong=table["p_value"].to_numpy(float) <= 0.05,
        number_format=",.0f",
        mode=mode,
    )
    return figure.update_layout(xaxis={"type": "log", "dtick": 1, "tickformat": ",.0f"})


def common_path_dots(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """The most common paths with the words on them, beside how common layers of different texts make them.

    Args:
        table: rows of experts, pieces, share with _low and _high, dealt_share, p_value, as `analysis.common_paths`
            gives them.
        mode: light or dark.
    """
    names = [_path_name(experts, pieces) for experts, pieces in zip(table["experts"], table["pieces"], strict=True)]
    return interval_dots(
        names,
        {"tokens": _with_interval(table, "share")},
        value_title="share of tokens",
        marks={"layers of different texts": table["dealt_share"].to_numpy(float)},
        strong=table["p_value"].to_numpy(float) <= 0.05,
        number_format=".2%",
        mode=mode,
    ).update_layout(xaxis_tickformat=PERCENT_TICKS, xaxis_rangemode="tozero")


def context_dots(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """How much of what chance leaves the token's id decides in each layer: 0 nothing, 1 everything.

    Args:
        table: rows of layer, share with _low and _high, as `analysis.context_independence` gives them by layer.
        mode: light or dark.
    """
    return interval_dots(
        [str(layer) for layer in table["layer"]],
        {"decided by the id": _with_interval(table, "share")},
        value_title="share of what chance leaves",
        zero_line=True,
        number_format=".1%",
        mode=mode,
    ).update_layout(xaxis_tickformat=PERCENT_TICKS)


def _path_name(experts: str, pieces: str) -> str:
    name = " → ".join(f"E{number}" for number in experts.split())
    words = snippet(pieces, n_characters=_LONGEST_NAME)
    return f"{name}  “{words}”" if words else name


def _with_interval(table: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value, low, high = (table[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    return value, low, high
