"""Stretches of text with their tokens lit, one a line; a line leads to its place.

Texts are data, never markup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app.exchange import component_state
from figures.pieces import shown_piece

__all__ = ["Context", "context_list"]

_HERE = Path(__file__).parent
_mount = st.components.v2.component(
    "routescope.context_list",
    html='<div class="contexts" role="list"></div>',
    css=(_HERE / "context_list.css").read_text("utf-8"),
    js=(_HERE / "context_list.js").read_text("utf-8"),
)


@dataclass(frozen=True)
class Context:
    """One line.

    Attributes:
        value: what is written before it.
        head: where it is from.
        pieces: texts of its tokens, as in the vocabulary.
        strengths: how strongly each is lit, 0 to 1.
        at: place of the token that the line is about.
    """

    value: str
    head: str
    pieces: tuple[str, ...]
    strengths: tuple[float, ...]
    at: int


def context_list(
    contexts: Sequence[Context], *, key: str, name: str, color: str, on_choose: Callable[[int], None]
) -> None:
    """Draw lines of context and listen to which one is opened.

    Args:
        contexts: the lines.
        key: of this list.
        name: accessible name of the list.
        color: of the light, a hex color.
        on_choose: called with the number of the line that was opened, before the rerun that it causes.
    """

    def choosing() -> None:
        told = component_state(key, "open")
        if told is not None and 0 <= int(told) < len(contexts):
            on_choose(int(told))

    rows = [_row(context) for context in contexts]
    _mount(key=key, data={"name": name, "color": color, "rows": rows}, on_open_change=choosing)


def _row(context: Context) -> dict[str, Any]:
    shown = [shown_piece(piece) for piece in context.pieces]
    return asdict(context) | {
        # A line is one line: what would break it is shown by its sign alone.
        "pieces": [" ".join(piece.text.split("\n")) for piece in shown],
        "strengths": [round(each, 3) for each in context.strengths],
    }
