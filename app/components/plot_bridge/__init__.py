"""Which cell of a chart was clicked: Streamlit forwards no clicks on heatmaps, so this component does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app.state import component_state

__all__ = ["Click", "bridge_key", "plot_bridge"]

_JS = (Path(__file__).parent / "plot_bridge.js").read_text("utf-8")
_mount = st.components.v2.component("routescope.plot_bridge", js=_JS)


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


def plot_bridge(*, target: str, on_click: Callable[[Click], None]) -> None:
    """Listen to the clicks on one chart of the page.

    Args:
        target: key of the `st.plotly_chart` whose clicks are wanted.
        on_click: called with the click, before the rerun that it causes.
    """
    key = bridge_key(target)

    def clicked() -> None:
        click = component_state(key, "click")
        if click:
            on_click(Click(**{name: click.get(name) for name in ("x", "y", "z", "customdata")}))

    _mount(key=key, data={"target": target}, on_click_change=clicked)


def bridge_key(target: str) -> str:
    """Key under which the session holds the bridge of a chart."""
    return f"{target}_bridge"
