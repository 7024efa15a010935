"""Strips of color beside a table of cells: the task types of its rows, or of its columns, with a legend."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import plotly.graph_objects as go

from figures.pieces import plotly_text
from figures.theme import color_of_task_types

__all__ = ["add_column_strip", "add_row_strip"]


def add_row_strip(figure: go.Figure, types: Sequence[str], *, width: float, click: str = "") -> None:
    """Beside the rows, at the left, the type of each.

    Args:
        figure: gets the bars, and the axis x2.
        types: one for each row.
        width: share of the figure's width.
        click: what a click on the strip does, for the hover; the click then reports its row.
    """
    for task_type, color in color_of_task_types(types).items():
        rows = [row for row, each in enumerate(types) if each == task_type]
        # A bar a row, so that the legend names the types and the strip needs no second color axis.
        figure.add_bar(
            x=[1.0] * len(rows),
            y=rows,
            # The row that a click on the strip picks; cells carry lists, or nothing.
            customdata=rows if click else None,
            orientation="h",
            width=0.94,
            marker={"color": color, "line": {"width": 0}},
            name=plotly_text(task_type),
            hovertemplate=plotly_text(task_type) + (f"<br>{click}" if click else "") + "<extra></extra>",
            xaxis="x2",
            yaxis="y",
        )
    figure.update_layout(
        barmode="overlay",
        xaxis2={"domain": [0, width], "range": [0, 1], "visible": False, "fixedrange": True, "anchor": "y"},
    )


def add_column_strip(
    figure: go.Figure, types: Sequence[str | None], *, height: float, in_legend: Collection[str], top: float = 1.0
) -> None:
    """Above the cells, what each column serves; columns without a type stay blank.

    Args:
        figure: gets the bars, and the axis y4; its cells make room.
        types: one for each column, or None.
        height: share of the figure's height.
        in_legend: types that the legend has already.
        top: share of the figure's height at which it ends.
    """
    bottom = top - height
    colors = color_of_task_types([*sorted(in_legend), *(each for each in types if each)])
    for task_type, color in colors.items():
        places = [place for place, each in enumerate(types) if each == task_type]
        if places:
            figure.add_bar(
                x=places,
                y=[1.0] * len(places),
                width=1.0,
                marker={"color": color, "line": {"width": 0}},
                name=plotly_text(task_type),
                hovertemplate=f"serves {plotly_text(task_type)} most<extra></extra>",
                showlegend=task_type not in in_legend,
                xaxis="x",
                yaxis="y4",
            )
    figure.update_layout(
        yaxis_domain=[0, bottom - 0.004],
        yaxis4={"domain": [bottom, top], "range": [0, 1], "visible": False, "fixedrange": True, "anchor": "x"},
    )
