"""A map of up to millions of points: pan, zoom, lasso, a legend that filters, density where many share a pixel.

Places and colors travel as bytes, each on its own, so that a click costs neither; what is drawn around comes back
as a polygon, and what a point says is asked for when the mouse rests on it. Texts are data, never markup.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app.exchange import component_state, heard, revision

__all__ = ["Entry", "Kinds", "Lasso", "PointMarks", "kinds_bytes", "places_bytes", "point_map"]

_HERE = Path(__file__).parent
_SPAN = 65535
_TOOLS = (
    ("lasso", "Lasso", "Draw around points to select them (Shift: pan)"),
    ("pan", "Pan", "Drag the map (Shift: lasso)"),
    ("in", "+", "Zoom in"),
    ("out", "−", "Zoom out"),
    ("all", "All", "Show the whole map"),
    ("save", "PNG", "Save the picture"),
)
_BUTTONS = "".join(
    f'<button type="button" data-tool="{name}" title="{help_}" aria-label="{help_}"'
    + (f' aria-pressed="{str(name == "lasso").lower()}"' if name in ("lasso", "pan") else "")
    + f">{label}</button>"
    for name, label, help_ in _TOOLS
)
_HTML = f"""
<div class="map">
  <div class="row">
    <div class="frame">
      <div class="stage" tabindex="0" role="application">
        <canvas class="picture"></canvas><canvas class="marks"></canvas>
        <div class="tip"></div>
      </div>
      <div class="tools" role="toolbar" aria-label="Map">{_BUTTONS}</div>
    </div>
    <div class="legend" role="group" aria-label="Legend, which filters"></div>
  </div>
  <div class="count"></div>
  <div class="live" aria-live="polite"></div>
</div>
"""


def _script(*names: str) -> str:
    return "\n".join((_HERE / name).read_text("utf-8") for name in names)


_mount = st.components.v2.component(
    "routescope.point_map",
    html=_HTML,
    css=(_HERE / "point_map.css").read_text("utf-8"),
    js=_script("shared.js", "cloud.js", "legend.js", "marks.js", "point_map.js"),
)
_feed = st.components.v2.component("routescope.point_map_feed", js=_script("shared.js", "feed.js"))
_tip = st.components.v2.component("routescope.point_map_tip", js=_script("shared.js", "tip.js"))


@dataclass(frozen=True)
class Entry:
    """One line of the legend.

    Attributes:
        name: what is written.
        start: first color code that it stands for.
        stop: one past the last.
    """

    name: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Kinds:
    """What the color of each point says.

    Attributes:
        title: of the legend.
        codes: (point,) uint8 · number of its color.
        colors: hex color of each code.
        entries: the legend, which together covers all codes.
    """

    title: str
    codes: np.ndarray
    colors: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True, eq=False)
class PointMarks:
    """What is marked on the map.

    Attributes:
        picked: rows that are selected.
        near: rows that are nearest to the picked one.
        labels: x, y, text of names on the map.
        outline: x and y of the corners of what was drawn around; empty where nothing was.
    """

    picked: np.ndarray
    near: np.ndarray
    labels: pd.DataFrame | None = None
    outline: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Lasso:
    """What was drawn around.

    Attributes:
        x: of the corners, in the units of the map.
        y: likewise.
        hidden: color codes that the legend left out.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    hidden: frozenset[int]


def point_map(
    points: pd.DataFrame,
    kinds: Kinds,
    marks: PointMarks,
    *,
    key: str,
    name: str,
    on_click: Callable[[int], None],
    on_lasso: Callable[[Lasso], None],
    on_clear: Callable[[], None],
    on_hide: Callable[[tuple[str, ...]], None],
    hidden: tuple[str, ...] = (),
    told: Callable[[int], tuple[str, str]],
) -> None:
    """Draw a map and listen to it.

    Args:
        points: x and y of each point.
        kinds: its colors.
        marks: what is marked.
        key: of this map.
        name: what a screen reader calls it.
        on_click: called with the row of a clicked point, before the rerun that it causes.
        on_lasso: called with what was drawn around.
        on_clear: called when the reader lets go of what is picked.
        on_hide: called with the groups that the legend leaves out, when the reader changed that.
        hidden: groups that it leaves out, by their names.
        told: name and text of a point, asked for when the mouse rests on it.
    """
    places, frame = places_bytes(points, key=key)

    def here(what: str) -> Any:
        told_ = component_state(key, what)
        # What was drawn on a map that is no longer there says nothing of this one.
        return told_ if told_ and told_.get("id") == frame.id else None

    def clicked() -> None:
        if (click := here("click")) and 0 <= int(click["row"]) < len(points):
            on_click(int(click["row"]))

    def lassoed() -> None:
        if lasso := here("lasso"):
            hidden = frozenset(code for start, stop in lasso["off"] for code in range(int(start), int(stop)))
            on_lasso(Lasso(x=tuple(lasso["x"]), y=tuple(lasso["y"]), hidden=hidden))

    def cleared() -> None:
        if here("clear"):
            on_clear()

    def hid() -> None:
        # Of a legend that is no longer there, its names may stand for something else.
        if (told_ := component_state(key, "hide")) and told_.get("title") == kinds.title:
            names = tuple(str(each) for each in told_["names"])
            heard(f"{key}_hidden", (kinds.title, names))
            on_hide(names)

    number, (title, names) = revision(f"{key}_hidden", (kinds.title, hidden))

    _mount(
        key=key,
        data={
            "key": key,
            "name": name,
            "picked": marks.picked.tolist(),
            "near": marks.near.tolist(),
            "labels": [] if marks.labels is None else frame.labels(marks.labels),
            "outline": [frame.place(*corner) for corner in marks.outline],
            "hidden": {"revision": number, "title": title, "names": list(names)},
        },
        on_click_change=clicked,
        on_lasso_change=lassoed,
        on_clear_change=cleared,
        on_hide_change=hid,
    )
    _feed(key=f"{key}_places", data=places)
    _feed(key=f"{key}_kinds", data=kinds_bytes(kinds, key=key))
    _tooltip(key, frame.id, len(points), told)


@st.fragment
def _tooltip(key: str, places: str, n_points: int, told: Callable[[int], tuple[str, str]]) -> None:
    """Answer what a point says, without drawing the page again."""
    asked = component_state(f"{key}_tip", "ask") or {}
    row = int(asked.get("row", -1)) if asked.get("id") == places else -1
    known = 0 <= row < n_points
    name, text = told(row) if known else ("", "")
    _tip(
        key=f"{key}_tip",
        data={"key": key, "row": row if known else None, "name": name, "text": text},
        on_ask_change=lambda: None,
    )


@dataclass(frozen=True)
class _Frame:
    """How places became whole numbers."""

    id: str
    low: tuple[float, float]
    step: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A place of the map in these numbers."""
        return (x - self.low[0]) / self.step, (y - self.low[1]) / self.step

    def labels(self, labels: pd.DataFrame) -> list[dict[str, Any]]:
        rows: Sequence[Mapping[str, Any]] = labels.to_dict("records")
        places = [self.place(row["x"], row["y"]) for row in rows]
        return [{"x": x, "y": y, "text": str(row["text"])} for (x, y), row in zip(places, rows, strict=True)]


def places_bytes(points: pd.DataFrame, *, key: str) -> tuple[bytes, _Frame]:
    """Places as they travel, four bytes each, with one scale for both axes; and that scale."""
    places = points[["x", "y"]].to_numpy(np.float64)
    low = places.min(axis=0) if len(places) else np.zeros(2)
    width = (places.max(axis=0) - low) if len(places) else np.ones(2)
    step = float(width.max()) / _SPAN or 1.0
    codes = np.clip(np.round((places - low) / step), 0, _SPAN).astype("<u2").tobytes()
    name = hashlib.blake2b(codes, digest_size=8).hexdigest()
    extent = [max(1.0, float(each) / step) for each in width]
    head = {"what": "places", "key": key, "id": name, "low": low.tolist(), "step": step, "extent": extent}
    return _joined(head, codes), _Frame(id=name, low=(float(low[0]), float(low[1])), step=step)


def kinds_bytes(kinds: Kinds, *, key: str) -> bytes:
    """Colors as they travel: one byte a point, after the legend."""
    codes = np.ascontiguousarray(kinds.codes, dtype=np.uint8)
    counts = np.bincount(codes, minlength=len(kinds.colors))
    head = {
        "what": "kinds",
        "key": key,
        "title": kinds.title,
        "colors": [[int(color[place : place + 2], 16) for place in (1, 3, 5)] for color in kinds.colors],
        "entries": [
            {"name": each.name, "from": each.start, "to": each.stop, "count": int(counts[each.start : each.stop].sum())}
            for each in kinds.entries
        ],
    }
    body = codes.tobytes()
    head["id"] = hashlib.blake2b(body + json.dumps(head).encode(), digest_size=8).hexdigest()
    return _joined(head, body)


def _joined(head: Mapping[str, Any], body: bytes) -> bytes:
    text = json.dumps(head).encode("utf-8")
    # Numbers of two bytes must begin at an even place.
    return struct.pack("<I", len(text)) + text + body
