"""Help beside every page: a tour in four steps, shown once in each browser, and the keys that do something.

All of it happens in the browser: no step asks the server for anything, and the page beneath neither moves nor waits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import streamlit as st

__all__ = ["TOUR_VARIABLE", "Keys", "Step", "guide"]

TOUR_VARIABLE = "ROUTESCOPE_TOUR"
"""Set to "off", the tour is shown to who asks for it alone: for screens that many people share, and for tests."""

_HERE = Path(__file__).parent
_HTML = """
<div class="guide">
  <button type="button" class="open" aria-haspopup="dialog">Help</button>
  <div class="menu" popover role="dialog" aria-label="Help">
    <button type="button" class="start">Tour in four steps</button>
    <h2>Keys</h2>
    <dl></dl>
  </div>
  <section class="tour" popover="manual" role="dialog" aria-labelledby="tour-title" tabindex="-1">
    <p class="count"></p>
    <h2 id="tour-title"></h2>
    <p class="text"></p>
    <ul></ul>
    <div class="row">
      <button type="button" class="close">Close</button>
      <span></span>
      <button type="button" class="back">Back</button>
      <button type="button" class="next">Next</button>
    </div>
  </section>
</div>
"""
_mount = st.components.v2.component(
    "routescope.guide",
    html=_HTML,
    css=(_HERE / "guide.css").read_text("utf-8"),
    js=(_HERE / "guide.js").read_text("utf-8"),
)


@dataclass(frozen=True)
class Step:
    """One step of the tour.

    Attributes:
        title: a few words.
        text: two or three sentences.
        points: a list below them.
        shows: selector of what on the page it speaks of, which is framed meanwhile; none where it is empty.
    """

    title: str
    text: str
    points: tuple[str, ...] = ()
    shows: str = ""


@dataclass(frozen=True)
class Keys:
    """Keys, and what they do where."""

    keys: str
    does: str


def guide(steps: Sequence[Step], keys: Sequence[Keys]) -> None:
    """Draw the button that opens the help; the tour opens by itself in a browser that has not seen it."""
    unasked = os.environ.get(TOUR_VARIABLE, "").strip().lower() != "off"
    data = {"steps": [asdict(step) for step in steps], "keys": [asdict(each) for each in keys], "unasked": unasked}
    _mount(key="guide", data=data)
