"""A button that copies the link of the screen, and a shelf of selections with names.

The shelf lies in the reader's own browser: a server that several people use never learns, or shows, what each of them
kept. Names are data, never markup.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from app.exchange import component_state

__all__ = ["shelf"]

_HERE = Path(__file__).parent
_HTML = """
<div class="shelf">
  <button type="button" class="copy" title="Copy a link to this screen">Link</button>
  <button type="button" class="open" aria-haspopup="dialog" title="Selections kept in this browser">Saved</button>
  <div class="panel" popover role="dialog" aria-label="Saved selections">
    <form>
      <input type="text" maxlength="60" aria-label="Name of this selection" placeholder="Name of this selection">
      <button type="submit">Save</button>
    </form>
    <p class="what"></p>
    <div class="kept" role="list"></div>
  </div>
  <span class="live" aria-live="polite"></span>
</div>
"""
_mount = st.components.v2.component(
    "routescope.shelf",
    html=_HTML,
    css=(_HERE / "shelf.css").read_text("utf-8"),
    js=(_HERE / "shelf.js").read_text("utf-8"),
)


def shelf(*, query: str, summary: str, run: str, on_apply: Callable[[str], None]) -> None:
    """Draw the two buttons.

    Args:
        query: of what is selected now, as a URL writes it; empty where nothing is.
        summary: of what is selected now, in a few words.
        run: name of the run.
        on_apply: called with the query of a kept selection, before the rerun that it causes.
    """

    def applying() -> None:
        told = component_state("shelf", "apply")
        if isinstance(told, str):
            on_apply(told)

    _mount(key="shelf", data={"query": query, "summary": summary, "run": run}, on_apply_change=applying)
