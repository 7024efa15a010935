"""Tells the app what Streamlit itself does not: a change between light and dark, and going back in the browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from figures.theme import Mode

__all__ = ["page_watch"]

_JS = (Path(__file__).parent / "page_watch.js").read_text("utf-8")
_mount = st.components.v2.component("routescope.page_watch", js=_JS)


def page_watch(drawn: Mode, *, page: str, on_went: Callable[[], None]) -> None:
    """Cause a new run as soon as the page looks otherwise than the figures on it, or another URL was gone to.

    Args:
        drawn: the look that this run gives its figures.
        page: the path of the page that this run draws.
        on_went: called when the reader went back or forward within the page.
    """
    _mount(key="page_watch", data={"drawn": drawn, "page": page}, on_look_change=_again, on_went_change=on_went)


def _again() -> None: ...
