"""A figure as the app shows it: title, picture, a sentence of reading, its numbers and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import headings
from app.components.figure_saver import figure_saver
from app.components.plot_bridge import Click, Label, Range, Tooltip, plot_bridge
from app.definitions import definition_of
from app.exchange import component_state
from app.explain import column_hints, explanation
from app.report.parts import Panel
from app.sentences import spoken
from figures.theme import Mode

__all__ = [
    "Brush",
    "data_popover",
    "definitions_popover",
    "empty",
    "keep_for_report",
    "mode",
    "panel",
    "panels_shown",
]

# A browser gets so many rows at once; of more, those that it shows.
_AT_ONCE = 5000
_CONFIG: dict[str, Any] = {"displaylogo": False}
_UNUSED_BUTTONS = ["autoScale2d", "zoomIn2d", "zoomOut2d"]
_BRUSHES = ["select2d", "lasso2d"]
# What the view that is being drawn has shown so far, for whoever wants to keep it.
_SHOWN: ContextVar[list[Panel] | None] = ContextVar("shown", default=None)


@dataclass(frozen=True)
class Brush:
    """What a lasso, a box or a click took in.

    Attributes:
        points: customdata of the points that were hit.
        polygons: corners' x and y of what was drawn, in the units of the axes; none for a click.
    """

    points: tuple[Any, ...]
    polygons: tuple[tuple[list[float], list[float]], ...]


def mode() -> Mode:
    """Which of our two looks the user's theme asks for."""
    return "dark" if st.context.theme.type == "dark" else "light"


@contextmanager
def panels_shown() -> Iterator[list[Panel]]:
    """Gather the panels that are drawn meanwhile, in their order, for a report."""
    shown: list[Panel] = []
    token = _SHOWN.set(shown)
    try:
        yield shown
    finally:
        _SHOWN.reset(token)


def panel(
    title: str,
    figure: go.Figure,
    *,
    key: str,
    reading: str,
    table: Callable[[], pd.DataFrame],
    definitions: Sequence[str] = (),
    made_of: Mapping[str, str] | None = None,
    on_click: Callable[[Click], None] | None = None,
    controls: Callable[[], object] | None = None,
    on_brush: Callable[[Brush], None] | None = None,
    on_range: Callable[[Range | None], None] | None = None,
    on_label: Callable[[Label], None] | None = None,
    on_hide: Callable[[tuple[str, ...]], None] | None = None,
    tooltip: Tooltip | None = None,
    drawn: Callable[[], object] | None = None,
) -> None:
    """Show a figure with everything that belongs to it.

    Args:
        title: what the picture shows, as a noun phrase.
        figure: the picture.
        key: of the chart, unique in the app; also the name of the files it is saved to.
        reading: a sentence that follows the data, under the picture.
        table: gives the numbers of the picture; called when the reader asks for them.
        definitions: headings of docs/metrics.md behind the numbers.
        made_of: what went into the number that the picture is about, symbol or name → value.
        on_click: called with a clicked cell or point before the page runs again.
        controls: draws the panel's own widgets, between title and picture.
        on_brush: called with what a lasso, a box or a click took in, before the page runs again.
        on_range: called with the part that was zoomed into, None for all of it, before the page runs again.
        on_label: called with a clicked name beside an axis, before the page runs again.
        on_hide: called with the names that the legend leaves out, once the reader changed that.
        tooltip: what the cells of a large heatmap say when pointed at.
        drawn: draws the picture in place of the figure, which only reports then keep.
    """
    keep_for_report(
        Panel(title=title, figure=figure, reading=reading, table=table, definitions=tuple(definitions), key=key)
    )
    with st.container(key=f"panel_{key}", gap="xsmall"):
        with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
            headings.part(title, width="stretch")
            definitions_popover(definitions, key=key, made_of=made_of)
            data_popover(table, key=key, definitions=definitions)
            _save_popover(table, key=key, is_chart=drawn is None)
        if controls is not None:
            controls()
        if drawn is not None:
            drawn()
            st.markdown(reading)
            return
        config = _CONFIG | {"toImageButtonOptions": {"format": "png", "scale": 3, "filename": key}}
        config["modeBarButtonsToRemove"] = _UNUSED_BUTTONS + ([] if on_brush else _BRUSHES)
        # Streamlit's own `theme` would paint over ours.
        common: dict[str, Any] = {"key": key, "theme": None, "config": config, "alt": spoken(f"{title}. {reading}")}
        if on_brush is None:
            st.plotly_chart(figure, **common)
        else:
            st.plotly_chart(figure, on_select=lambda: _brushed(key, on_brush), **common)
        if on_click is not None or on_range is not None:
            plot_bridge(
                target=key, on_click=on_click, on_range=on_range, on_label=on_label, on_hide=on_hide, tooltip=tooltip
            )
        st.markdown(reading)


def keep_for_report(part: Panel) -> None:
    """Let a report of this view hold a part of it, where one is being gathered; `panel` does so by itself."""
    if (shown := _SHOWN.get()) is not None:
        shown.append(part)


def empty(what: str, remedy: str) -> None:
    """Say what is not there, and what would bring it."""
    st.info(f"{what} {remedy}", icon=":material/info:")


def _brushed(key: str, on_brush: Callable[[Brush], None]) -> None:
    told = component_state(key, "selection") or {}
    polygons = [(each["x"], each["y"]) for each in told.get("lasso", ())]
    # A box comes as two opposite corners.
    polygons += [
        ([x0, x1, x1, x0], [y0, y0, y1, y1])
        for (x0, x1), (y0, y1) in ((each["x"], each["y"]) for each in told.get("box", ()))
    ]
    points = tuple(point.get("customdata") for point in told.get("points", ()))
    # An empty event is Plotly's echo of a redrawn figure, not a wish.
    if points or polygons:
        on_brush(Brush(points=points, polygons=tuple(polygons)))


def definitions_popover(names: Sequence[str], *, key: str, made_of: Mapping[str, str] | None = None) -> None:
    """Offer what the numbers mean: sections of docs/metrics.md.

    Args:
        names: their headings.
        key: of the panel.
        made_of: what went into the number at hand, symbol or name → value.
    """
    if any(definition_of(name) for name in names):
        with st.popover(
            "Explain",
            icon=":material/help:",
            type="tertiary",
            key=f"definition_{key}",
            width="content",
        ):
            explanation(names, made_of=made_of)


def _save_popover(table: Callable[[], pd.DataFrame], *, key: str, is_chart: bool) -> None:
    """Offer the figure as a picture, where it is a chart, and its numbers as a file."""
    with st.popover("Save", icon=":material/save:", type="tertiary", key=f"save_{key}", width="content"):
        if is_chart:
            figure_saver(target=key)
        st.download_button(
            "CSV",
            data=lambda: table().to_csv(index=False).encode("utf-8", "replace"),
            file_name=f"{key}.csv",
            mime="text/csv",
            key=f"save_csv_{key}",
            on_click="ignore",
            help="The numbers behind the figure, all rows.",
            width="stretch",
        )


def data_popover(table: Callable[[], pd.DataFrame], *, key: str, definitions: Sequence[str] = ()) -> None:
    """Offer the numbers themselves, as a table and as a file.

    Args:
        table: gives them; called when the reader asks.
        key: of the panel.
        definitions: headings of docs/metrics.md that say what its columns hold.
    """
    popover = st.popover(
        "Data",
        icon=":material/table:",
        type="tertiary",
        key=f"data_{key}",
        on_change="rerun",
        width="content",
    )
    # A closed popover would still compute and send its table.
    if not popover.open:
        return
    with popover:
        rows = table()
        if large := len(rows) > _AT_ONCE:
            st.caption(f"{len(rows):,} rows, which come as you scroll; a click on a column's head sorts all of them.")
        st.dataframe(
            rows,
            hide_index=True,
            height=min(420, 38 + 35 * max(1, len(rows))),
            column_config=column_hints([str(column) for column in rows.columns], definitions),
            lazy=large,
        )
        st.download_button(
            "Download CSV",
            data=lambda: rows.to_csv(index=False).encode("utf-8"),
            file_name=f"{key}.csv",
            mime="text/csv",
            icon=":material/download:",
            key=f"csv_{key}",
            on_click="ignore",
        )
