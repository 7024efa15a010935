"""What stays of the differences between tasks when position, token, template or length is held fixed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
import xarray as xr

from app import choices, slow_answers
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.sentences import escaped
from app.views.tasks.part import is_large, layers_of, narrowed, pick, selected_groups
from app.views.tasks.part_sentences import of_control_cells, of_controls
from app.views.tasks.questions import LARGE, control_cells, control_shares
from figures.dots import interval_dots
from figures.grid import ColorScale
from figures.task_heatmap import cells_of, task_expert_heatmap
from figures.theme import PERCENT_TICKS
from routing import RoutingTrace, Selection

__all__ = ["draw_controls", "shares_by_control"]

_MATCH = {"token": "token_id", "position": "position", "none": None}
_MATCH_NAMES = {"token": "the same token", "position": "the same position", "none": "all tokens"}
_OVER_NAMES = {"task": "tasks", "task_type": "task types"}
_TEXT = (
    "%{customdata[0]:+.1%} with these controls<br>%{customdata[1]:+.1%} as recorded<br>"
    "q %{customdata[2]:.3f} against shuffled prompts"
)


def draw_controls(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the differences with each control, and cell by cell with those that are switched on."""
    if trace.level == "counts":
        empty("This run holds counts only, and a control compares tokens.", "Record it at level `assignments`.")
        return
    over = choices.chosen("over", tuple(_OVER_NAMES))
    within = narrowed(selection, tasks=False)
    _shares(trace, selection, over=over, within=within)
    _cells(trace, selection, over=over, within=within)


def shares_by_control(shares: pd.DataFrame, *, groups: list[str], layers: list[str]) -> pd.DataFrame:
    """Shares of the cells of some groups and layers that differ much, control by control.

    Returns:
        (control) · n_cells, n_large, n_sure, large, sure · cells, share of cells.
    """
    shown = shares[shares["group"].isin(groups) & shares["layer"].isin(layers)]
    table = shown.groupby("control", sort=False)[["n_cells", "n_large", "n_sure"]].sum()
    whole = table["n_cells"].where(table["n_cells"] > 0)
    return table.assign(large=table["n_large"] / whole, sure=table["n_sure"] / whole)


def _shares(trace: RoutingTrace, selection: Selection, *, over: str, within: Selection) -> None:
    found = slow_answers.tables(
        trace,
        control_shares,
        what="Differences are compared under each control",
        slow=is_large(trace),
        within=within,
        over=over,
    )
    if found is None:
        return
    groups = selected_groups(trace, selection, over=over, known=found["shares"]["group"].unique().tolist())
    table = shares_by_control(found["shares"], groups=groups, layers=layers_of(trace, selection))
    if table.empty:
        empty("Nothing of this selection can be compared.", "Select other tasks, layers or prompts.")
        return
    series = {"10 points or more": (table["large"].to_numpy(float), None, None)}
    tested = bool(found["shares"]["n_sure"].any())
    panel(
        "What each control leaves of the differences",
        interval_dots(
            [str(name) for name in table.index],
            series,
            value_title="share of cells whose rate differs from the average",
            marks={"of them beyond shuffled prompts": table["sure"].to_numpy(float)} if tested else None,
            number_format=".1%",
            mode=mode(),
        ).update_layout(xaxis_tickformat=PERCENT_TICKS, xaxis_rangemode="tozero"),
        key="tasks_controls",
        reading=of_controls(table, large=LARGE, tested=tested),
        table=lambda: table.reset_index(),
        definitions=("controlled_specialization", "template_tokens"),
    )


def _cells(trace: RoutingTrace, selection: Selection, *, over: str, within: Selection) -> None:
    match = _MATCH[choices.chosen("match", tuple(_MATCH))]
    options = {
        "match": match,
        "without_template": choices.is_on("template_out"),
        "equal_budgets": choices.is_on("equal_budgets"),
        "over": over,
    }
    found = slow_answers.tables(
        trace,
        control_cells,
        what="Cells are compared under these controls",
        slow=is_large(trace),
        within=within,
        **options,
    )
    if found is None:
        _switches()
        return
    if "problem" in found:
        _switches()
        st.warning(escaped(str(found["problem"]["text"].iloc[0])), icon=":material/rule:")
        return
    layers = layers_of(trace, selection)
    cells = found["cells"]
    groups = selected_groups(trace, selection, over=over, known=cells["group"].unique().tolist())
    shown = cells[cells["group"].isin(groups) & cells["layer"].isin(layers)]
    if not groups or not shown["difference"].notna().any():
        empty("Nothing of this selection can be compared.", "Select other tasks, layers or prompts.")
        return
    table = shown.set_index(["group", "layer", "expert"]).to_xarray().sel(group=groups, layer=layers)
    figure, drawn = _heatmap(trace, selection, table, over=over)

    def clicked(click: Click) -> None:
        if not isinstance(click.customdata, int):
            pick(selection, drawn.at(float(click.x), float(click.y))[1])

    about = found["about"].iloc[0]
    panel(
        f"What stays, cell by cell: {_OVER_NAMES[over]} × experts",
        figure,
        key="tasks_controlled",
        reading=of_control_cells(
            shown, large=LARGE, covered=float(about["covered"]), budget=int(about["budget"]), names=trace.expert_names
        ),
        table=lambda: shown.dropna(subset=["difference"]).sort_values("difference", key=np.abs, ascending=False),
        definitions=("controlled_specialization", "template_tokens", "q_value"),
        on_click=clicked,
        controls=_switches,
    )


def _switches() -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        choices.choose("Each token is compared with", tuple(_MATCH), name="match", shown=_MATCH_NAMES.__getitem__)
        choices.choose("Rows", tuple(_OVER_NAMES), name="over", shown=_OVER_NAMES.__getitem__)
        choices.toggle(
            "Leave out the template",
            name="template_out",
            help="Tokens that nine in ten prompts of a task have at the same place.",
        )
        choices.toggle(
            "Equal token budgets",
            name="equal_budgets",
            help="Only the first tokens of each prompt, as many as nine in ten prompts have.",
        )


def _heatmap(trace: RoutingTrace, selection: Selection, table: xr.Dataset, *, over: str) -> go.Figure:
    values = table["difference"]
    muted = ~table["significant"].astype(bool) & values.notnull() if bool(table["q_value"].notnull().any()) else None
    drawn = cells_of(
        values,
        exists=trace.expert_exists,
        rows=[str(name) for name in values["group"].values],
        muted=muted,
        details=(values, table["plain_difference"], table["q_value"]),
    )
    # Both pictures, with controls and without, keep the colors of what was recorded.
    ends = np.abs(table["plain_difference"].to_numpy())
    most = max(0.05, float(np.nanquantile(ends, 0.98)) if np.isfinite(ends).any() else 0.05)
    scale = ColorScale(title="rate − average", low=-most, high=most, diverging=True, tick_format=f"+{PERCENT_TICKS}")
    types = trace.task_types if over == "task" else {name: name for name in drawn.groups}
    figure = task_expert_heatmap(
        drawn,
        scale=scale,
        value_text=_TEXT,
        task_types=types,
        selected=selection.experts,
        names=trace.expert_names,
        mode=mode(),
    )
    return figure, drawn
