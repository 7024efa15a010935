"""Saves a chart of the page as a picture, in the browser: nothing is drawn twice and nothing leaves the machine."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

__all__ = ["figure_saver"]

_HERE = Path(__file__).parent
_mount = st.components.v2.component(
    "routescope.figure_saver",
    css=(_HERE / "figure_saver.css").read_text("utf-8"),
    js=(_HERE / "figure_saver.js").read_text("utf-8"),
)


def figure_saver(*, target: str) -> None:
    """Offer a chart as PNG and as SVG.

    Args:
        target: key of the `st.plotly_chart`; also the name of the files.
    """
    _mount(key=f"{target}_saver", data={"target": target})
