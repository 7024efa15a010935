"""A passage whose tokens can be pointed at, colored by what the router did with them.

The passage is a listbox in a shadow root: arrow keys move by one and by ten, Home and End jump, Escape
clears. Its texts are data, never markup.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app.state import component_state, heard, revision
from figures.pieces import shown_piece
from figures.token_colors import Shading

__all__ = ["Passage", "Section", "token_strip"]

_HERE = Path(__file__).parent
_HTML = """
<div class="strip">
  <div class="legend"></div>
  <div class="passage" role="listbox" tabindex="0"></div>
  <div class="status" aria-hidden="true"></div>
  <div class="live visually-hidden" aria-live="polite"></div>
</div>
"""
_mount = st.components.v2.component(
    "routescope.token_strip",
    html=_HTML,
    css=(_HERE / "token_strip.css").read_text("utf-8"),
    js=(_HERE / "token_strip.js").read_text("utf-8"),
)


@dataclass(frozen=True)
class Section:
    """A stretch of a passage under one heading, such as what the model was given or what it wrote.

    Attributes:
        start: first token.
        stop: one past the last token.
        label: heading, shown where there is more than one section.
    """

    start: int
    stop: int
    label: str


@dataclass(frozen=True)
class Passage:
    """The tokens of one text, and what the status line says of each.

    Attributes:
        id: changes when the text does.
        name: accessible name of the listbox.
        pieces: the tokens' texts, as in the vocabulary.
        sections: consecutive stretches that cover all tokens.
        experts: name of each token's first expert, None where the layer did not route it.
        columns: figures of each token, (label, values with None where unknown, digits).
    """

    id: str
    name: str
    pieces: tuple[str, ...]
    sections: tuple[Section, ...]
    experts: tuple[str | None, ...]
    columns: tuple[tuple[str, list[float | None], int], ...] = ()


def token_strip(
    passage: Passage,
    shading: Shading,
    *,
    key: str,
    chosen: int | None,
    on_choose: Callable[[int | None], None],
) -> None:
    """Draw a passage and listen to what the user points at.

    Args:
        passage: what to show.
        shading: one level a token, and what the levels look like.
        key: of this strip.
        chosen: position of the token that is marked, None for none.
        on_choose: called with the new position (None when it was cleared) before the rerun that it causes.
    """

    def choosing() -> None:
        told = component_state(key, "choose")
        if told is not None:
            position = int(told) if 0 <= int(told) < len(passage.pieces) else None
            heard(key, (passage.id, position))
            on_choose(position)

    number, (_, wanted) = revision(key, (passage.id, chosen))
    shown = [shown_piece(piece) for piece in passage.pieces]
    _mount(
        key=key,
        data={
            "passage": passage.id,
            "name": passage.name,
            "texts": [piece.text for piece in shown],
            "kinds": {str(i): piece.kind for i, piece in enumerate(shown) if piece.kind != "text"},
            "names": {str(i): piece.name for i, piece in enumerate(shown) if piece.name},
            "sections": [asdict(section) for section in passage.sections],
            "experts": list(passage.experts),
            "columns": [
                {"label": label, "values": values, "digits": digits} for label, values, digits in passage.columns
            ],
            "rev": number,
            "selected": -1 if wanted is None else wanted,
            **_shading(shading),
        },
        on_choose_change=choosing,
    )


def _shading(shading: Shading) -> dict[str, Any]:
    return {
        "levels": shading.levels.tolist(),
        "palette": [asdict(shade) for shade in shading.palette],
        "legend": shading.legend,
        "absent": shading.absent,
    }
