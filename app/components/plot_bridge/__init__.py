"""Which cell of a chart was clicked, and which part of it was zoomed into: Streamlit forwards neither for heatmaps.

Keys reach cells as well: a heatmap that can be clicked takes the focus.

It also tells what a cell stands for, where a chart has so many that their names would outweigh the picture.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from app.exchange import component_state

__all__ = ["Click", "Label", "Range", "Tooltip", "bridge_key", "plot_bridge", "row_of"]

_HERE = Path(__file__).parent
_mount = st.components.v2.component(
    "routescope.plot_bridge",
    js="\n".join(
        (_HERE / name).read_text("utf-8") for name in ("tooltip.js", "labels.js", "cells.js", "plot_bridge.js")
    ),
)
_STEPS = 65534
_NONE = 65535


@dataclass(frozen=True)
class Click:
    """One click on a point or a cell.

    Attributes:
        x: the point's place on the horizontal axis, as the axis names it.
        y: the point's place on the vertical axis, as the axis names it.
        z: the cell's value, None where there is none.
        customdata: what the figure stored with the point.
    """

    x: Any
    y: Any
    z: float | None = None
    customdata: Any = None


@dataclass(frozen=True)
class Label:
    """One click on a name beside an axis.

    Attributes:
        axis: "x" or "y".
        at: place on the axis that the name stands at.
    """

    axis: str
    at: float


def row_of(customdata: Any) -> int:
    """The row that a figure stored with a point: alone, or before other things."""
    return int(customdata[0] if isinstance(customdata, (list, tuple)) else customdata)


@dataclass(frozen=True)
class Range:
    """The part of a chart that is zoomed into, in the units of its axes.

    Attributes:
        x: left and right end.
        y: lower and upper end, in whichever order the axis has them.
    """

    x: tuple[float, float]
    y: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Tooltip:
    """What the cells of a large heatmap say when pointed at.

    Attributes:
        rows: names of the rows.
        columns: names of everything that a cell may stand for.
        source: (row, column) · which of `columns` the cell stands for.
        lines: what else is told: a text with {} for the number, its value in each cell (NaN where there is none), and
            how it is written: "percent", "ratio" or "number".
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    source: np.ndarray
    lines: tuple[tuple[str, np.ndarray, str], ...] = ()


def plot_bridge(
    *,
    target: str,
    on_click: Callable[[Click], None] | None = None,
    on_range: Callable[[Range | None], None] | None = None,
    on_label: Callable[[Label], None] | None = None,
    on_hide: Callable[[tuple[str, ...]], None] | None = None,
    tooltip: Tooltip | None = None,
) -> None:
    """Listen to one chart of the page.

    Args:
        target: key of the `st.plotly_chart` that is listened to.
        on_click: called with a click, before the rerun that it causes.
        on_range: called with the part that was zoomed into, None for a double click, before the rerun that it causes.
        on_label: called with the name beside an axis that was clicked, before the rerun that it causes.
        on_hide: called with the names that the legend leaves out, once the reader changed that.
        tooltip: what cells say when pointed at.
    """
    key = bridge_key(target)

    def clicked() -> None:
        click = component_state(key, "click")
        if click and on_click is not None:
            on_click(Click(**{name: click.get(name) for name in ("x", "y", "z", "customdata")}))

    def zoomed() -> None:
        told = component_state(key, "range")
        if told and on_range is not None:
            on_range(Range(tuple(told["x"]), tuple(told["y"])) if told.get("x") else None)

    def named() -> None:
        told = component_state(key, "label")
        if told and on_label is not None:
            on_label(Label(axis=str(told["axis"]), at=float(told["at"])))

    def hid() -> None:
        told = component_state(key, "hide")
        if told is not None and on_hide is not None:
            on_hide(tuple(str(each) for each in told["names"]))

    _mount(
        key=key,
        data={
            "target": target,
            "clicks": on_click is not None,
            "legend": on_hide is not None,
            "zooms": on_range is not None,
            "labels": on_label is not None,
            "tooltip": _sent(tooltip),
        },
        on_click_change=clicked,
        on_range_change=zoomed,
        on_label_change=named,
        on_hide_change=hid,
    )


def bridge_key(target: str) -> str:
    """Key under which the session holds the bridge of a chart."""
    return f"{target}_bridge"


def _sent(tooltip: Tooltip | None) -> dict[str, Any] | None:
    if tooltip is None:
        return None
    return {
        "rows": list(tooltip.rows),
        "columns": list(tooltip.columns),
        "width": tooltip.source.shape[1],
        "source": _packed(tooltip.source),
        "lines": [_line(*line) for line in tooltip.lines],
    }


def _line(text: str, values: np.ndarray, kind: str) -> dict[str, Any]:
    known = np.isfinite(values)
    low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
    step = (high - low) / _STEPS
    codes = np.where(known, np.clip(np.round((np.nan_to_num(values) - low) / (step or 1.0)), 0, _STEPS), _NONE)
    return {"text": text, "kind": kind, "low": low, "step": step, "codes": _packed(codes)}


def _packed(numbers: np.ndarray) -> str:
    """Whole numbers below 65,536 as text, row after row."""
    return base64.b64encode(np.ascontiguousarray(numbers).astype("<u2").tobytes()).decode("ascii")
