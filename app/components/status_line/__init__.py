"""Makes the status line at the foot of the page one that screen readers announce."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

__all__ = ["status_line"]

_JS = (Path(__file__).parent / "status_line.js").read_text("utf-8")
_mount = st.components.v2.component("routescope.status_line", js=_JS)


def status_line(*, key: str) -> None:
    """Have what is written into a container announced.

    Args:
        key: of the container, which holds this.
    """
    _mount(key=f"{key}_announced", data={"key": key})
