"""Numbers with their intervals: who causes an overload, what two sets use, what changed, where experts live."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from figures.dots import interval_dots
from figures.grid import ColorScale, outlines
from figures.pieces import plotly_text, shown_piece
from figures.square import matrix_heatmap
from figures.theme import PERCENT_TICKS, Mode

__all__ = [
    "churn_dots",
    "contribution_dots",
    "difference_dots",
    "pass_ranges",
    "placement_dots",
    "repetition_dots",
    "token_churn_heatmap",
]


def contribution_dots(
    table: pd.DataFrame, *, names: Mapping[int, str] | None = None, mode: Mode = "light"
) -> go.Figure:
    """What each task, or each token of the vocabulary, brings to a busy expert, the most first.

    Args:
        table: one layer of `analysis.overload_tasks` (index task), or `analysis.overload_tokens` (columns piece and
            token_id) · contribution, contribution_low, contribution_high, and share_of_tokens where there is one.
        names: what to call rows, by their place; the index or the piece unless given.
        mode: light or dark.
    """
    ordered = table.sort_values("contribution", ascending=False, kind="stable")
    labels = (
        [repr(piece) for piece in ordered["piece"]] if "piece" in ordered else [str(name) for name in ordered.index]
    )
    if names is not None:
        labels = [names[place] for place in range(len(ordered))]
    marks = (
        {"share of the tokens": ordered["share_of_tokens"].to_numpy(float)} if "share_of_tokens" in ordered else None
    )
    return interval_dots(
        labels,
        {"contribution": _with_interval(ordered, "contribution")},
        value_title="share of the expert's surplus",
        marks=marks,
        zero_line=True,
        number_format=".1%",
        mode=mode,
    ).update_layout(xaxis_tickformat=PERCENT_TICKS)


def difference_dots(
    table: pd.DataFrame, *, one: str = "first set", other: str = "second set", n_shown: int = 20, mode: Mode = "light"
) -> go.Figure:
    """Experts that two sets of prompts use differently; filled where that is significant.

    Args:
        table: rows of `analysis.differential` or `correctness_link`, in order.
        one: name of the set whose rate is the higher to the right.
        other: name of the other.
        n_shown: most rows.
        mode: light or dark.
    """
    part = table.head(n_shown)
    labels = [f"{layer}·E{expert}" for layer, expert in zip(part["layer"], part["expert"], strict=True)]
    return interval_dots(
        labels,
        {"difference": _with_interval(part, "difference")},
        value_title=f"more in {plotly_text(other)} ← share of tokens → more in {plotly_text(one)}",
        strong=part["significant"].to_numpy(bool),
        zero_line=True,
        number_format="+.1%",
        mode=mode,
    ).update_layout(xaxis_tickformat=f"+{PERCENT_TICKS}")


def churn_dots(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """How much of the routing changed in each layer, and what two unrelated routings would show.

    Args:
        table: index layer · churn, churn_low, churn_high, chance, first_changed, as `analysis.churn` gives them.
        mode: light or dark.
    """
    return interval_dots(
        [str(layer) for layer in table.index],
        {
            "churn": _with_interval(table, "churn"),
            "another first expert": (table["first_changed"].to_numpy(float), None, None),
        },
        value_title="share changed",
        marks={"unrelated texts": table["chance"].to_numpy(float)},
        number_format=".1%",
        mode=mode,
    ).update_layout(xaxis_tickformat=PERCENT_TICKS, xaxis_rangemode="tozero")


def repetition_dots(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """How often neighbors go to the same expert, beside three kinds of chance.

    Args:
        table: index layer · same_first with _low and _high, chance_text, chance_load, chance_even, as
            `analysis.repetition` gives them.
        mode: light or dark.
    """
    return interval_dots(
        [str(layer) for layer in table.index],
        {"neighbors": _with_interval(table, "same_first")},
        value_title="share of pairs with the same first expert",
        marks={
            "two tokens of the text": table["chance_text"].to_numpy(float),
            "two tokens of the run": table["chance_load"].to_numpy(float),
            "even loads": table["chance_even"].to_numpy(float),
        },
        number_format=".1%",
        mode=mode,
    ).update_layout(xaxis_tickformat=PERCENT_TICKS, xaxis_rangemode="tozero")


def pass_ranges(table: pd.DataFrame, *, mode: Mode = "light") -> go.Figure:
    """The usual pass and the worst of each layer, beside the run as a whole and independent tokens.

    Args:
        table: index layer · mean with _low and _high, worst, whole_run, load_alone, of one phase of
            `analysis.worst_passes`.
        mode: light or dark.
    """
    return interval_dots(
        [str(layer) for layer in table.index],
        {
            "mean of the passes": _with_interval(table, "mean"),
            "worst pass": (table["worst"].to_numpy(float), None, None),
        },
        value_title="busiest expert ÷ mean",
        marks={
            "whole run": table["whole_run"].to_numpy(float),
            "independent tokens": table["load_alone"].to_numpy(float),
        },
        number_format=".2f",
        mode=mode,
    ).update_layout(xaxis_rangemode="tozero")


def placement_dots(table: pd.DataFrame, *, measure: str, value_title: str, mode: Mode = "light") -> go.Figure:
    """A measure of each placement, on the prompts that it was fitted to and on those that it had not seen.

    Args:
        table: (placement, part) · the measure with _low and _high, as `analysis.placement_what_if` gives it.
        measure: name of the column.
        value_title: of the axis, with the unit.
        mode: light or dark.
    """
    judged = table.xs("judged", level="part")
    fitted = table.xs("fitted", level="part").loc[judged.index]
    return interval_dots(
        [str(name) for name in judged.index],
        {"prompts not seen": _with_interval(judged, measure)},
        value_title=value_title,
        marks={"prompts it was fitted to": fitted[measure].to_numpy(float)},
        mode=mode,
    )


def token_churn_heatmap(
    table: xr.Dataset,
    *,
    names: tuple[str, str] = ("before", "after"),
    selected: int | None = None,
    mode: Mode = "light",
) -> go.Figure:
    """What changed for each token of a text, layers downward, tokens across.

    Args:
        table: (layer, token[, rank]) · churn, experts_before, experts_after, as `analysis.token_churn` gives them.
        names: of the two runs.
        selected: column of the token to frame.
        mode: light or dark.
    """
    churn = table["churn"].transpose("layer", "token").to_numpy()
    figure = matrix_heatmap(
        churn,
        rows=[str(layer) for layer in table["layer"].values],
        columns=[shown_piece(str(piece)).text.strip() for piece in table["piece"].values],
        scale=ColorScale(title="churn", low=0.0, high=1.0, tick_format=PERCENT_TICKS),
        value_text="churn %{z:.0%}"
        f"<br>{plotly_text(names[0])}: %{{customdata[0]}}<br>{plotly_text(names[1])}: %{{customdata[1]}}",
        row_title="layer",
        column_title="token",
        absent_name="not compared",
        mode=mode,
    )
    details = np.full((*churn.shape, 2), "", dtype=object)
    for side, name in enumerate(("experts_before", "experts_after")):
        experts = table[name].transpose("layer", "token", "rank").to_numpy()
        for row, column in np.argwhere(np.isfinite(churn)):
            details[row, column, side] = " ".join(f"E{each}" for each in experts[row, column] if each >= 0)
    for trace in figure.data:
        if trace.type == "heatmap":
            trace.customdata = details
    if selected is not None:
        frame = [(float(selected), float(selected), 0.0, float(len(churn) - 1))]
        figure.update_layout(shapes=[*figure.layout.shapes, *outlines(frame, mode=mode)])
    return figure


def _with_interval(table: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    low, high = (table.get(f"{column}_{end}") for end in ("low", "high"))
    ends = tuple(None if each is None else each.to_numpy(float) for each in (low, high))
    return table[column].to_numpy(float), ends[0], ends[1]
