"""Draws the page anew when the reader changes between light and dark; Streamlit itself does not."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from figures.theme import Mode

__all__ = ["theme_watch"]

_JS = (Path(__file__).parent / "theme_watch.js").read_text("utf-8")
_mount = st.components.v2.component("routescope.theme_watch", js=_JS)


def theme_watch(drawn: Mode) -> None:
    """Cause a new run as soon as the page looks otherwise than the figures on it.

    Args:
        drawn: the look that this run gives its figures.
    """
    _mount(key="theme_watch", data={"drawn": drawn}, on_look_change=_again)


def _again() -> None: ...
