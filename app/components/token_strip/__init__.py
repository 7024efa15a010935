"""A passage whose tokens can be pointed at, colored by what the router did with them, layer by layer.

The passage is a listbox in a shadow root: left and right move by one token, up and down by one layer. All layers
are sent with the passage, so that going through them asks nothing of the server. Its texts are data, never markup.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from app.exchange import component_state, heard, revision
from figures.pieces import shown_piece
from figures.token_colors import Shading

__all__ = ["Column", "Marks", "Passage", "Section", "token_strip"]

_HERE = Path(__file__).parent
_HTML = """
<div class="strip">
  <style class="looks"></style>
  <div class="layers"></div>
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
    js="\n".join((_HERE / name).read_text("utf-8") for name in ("legend.js", "token_strip.js")),
)
# Steps of a value as it travels; the last code says that there is none.
_N_STEPS = 65534
_NONE = 65535


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


@dataclass(frozen=True, eq=False)
class Column:
    """A figure of each token that the status line tells.

    Attributes:
        label: its name.
        values: (layer, token), or (token,) where all layers have the same; NaN where unknown.
        digits: that it is written with.
    """

    label: str
    values: np.ndarray
    digits: int


@dataclass(frozen=True)
class Marks:
    """Tokens that a search found.

    Attributes:
        tokens: their places, ascending.
        what: was looked for, as a noun phrase.
    """

    tokens: tuple[int, ...]
    what: str


@dataclass(frozen=True, eq=False)
class Passage:
    """The tokens of one text, and what the status line says of each.

    Attributes:
        id: changes when the text does.
        name: accessible name of the listbox.
        pieces: the tokens' texts, as in the vocabulary.
        sections: consecutive stretches that cover all tokens.
        layers: labels of the layers that can be looked at.
        experts: (layer, token) · first expert, −1 where the layer did not route the token.
        expert_names: names of a layer's experts, where they have any.
        columns: what else is told of each token.
        marks: what a search found in it.
    """

    id: str
    name: str
    pieces: tuple[str, ...]
    sections: tuple[Section, ...]
    layers: tuple[str, ...]
    experts: np.ndarray
    expert_names: Mapping[str, Sequence[str]]
    columns: tuple[Column, ...] = ()
    marks: Marks | None = None


def token_strip(
    passage: Passage,
    shading: Shading,
    *,
    key: str,
    chosen: int | None,
    layer: str,
    on_choose: Callable[[int | None], None],
    on_layer: Callable[[str], None],
) -> None:
    """Draw a passage and listen to what the user points at.

    Args:
        passage: what to show.
        shading: the look of each token, layer by layer.
        key: of this strip.
        chosen: position of the token that is marked, None for none.
        layer: label of the layer whose colors are shown.
        on_choose: called with the new position (None when it was cleared) before the rerun that it causes.
        on_layer: called with the label of the layer that the user went to, before the rerun that it causes.
    """

    def choosing() -> None:
        told = component_state(key, "choose")
        if told is not None:
            position = int(told) if 0 <= int(told) < len(passage.pieces) else None
            heard(key, (passage.id, position))
            on_choose(position)

    def moving() -> None:
        told = component_state(key, "layer")
        if told is not None and 0 <= int(told) < len(passage.layers):
            heard(f"{key}_layer", passage.layers[int(told)])
            on_layer(passage.layers[int(told)])

    number, (_, wanted) = revision(key, (passage.id, chosen))
    layer_number, wanted_layer = revision(f"{key}_layer", layer)
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
            "layers": list(passage.layers),
            "experts": _packed(np.where(passage.experts < 0, _NONE, passage.experts)),
            "expert_names": {label: list(names) for label, names in passage.expert_names.items()},
            "columns": [_column(column) for column in passage.columns],
            "marks": asdict(passage.marks) if passage.marks is not None else None,
            "rev": number,
            "selected": -1 if wanted is None else wanted,
            "layer_rev": layer_number,
            # The layer that was wanted may be none of a passage that came later.
            "layer": passage.layers.index(wanted_layer if wanted_layer in passage.layers else layer),
            "levels": _packed(np.where(shading.levels < 0, _NONE, shading.levels)),
            "palette": [asdict(shade) for shade in shading.palette],
            "legends": list(shading.legends),
            "absent": shading.absent,
        },
        on_choose_change=choosing,
        on_layer_change=moving,
    )


def _packed(numbers: np.ndarray) -> str:
    """Whole numbers below 65,536 as text; a list of them would be five times as long."""
    return base64.b64encode(numbers.astype("<u2").tobytes()).decode("ascii")


def _column(column: Column) -> dict[str, Any]:
    known = np.isfinite(column.values)
    low, high = (column.values[known].min(), column.values[known].max()) if known.any() else (0.0, 0.0)
    step = float(high - low) / _N_STEPS
    scaled = (np.nan_to_num(column.values) - low) / (step or 1.0)
    codes = np.where(known, np.clip(np.round(scaled), 0, _N_STEPS), _NONE)
    return {"label": column.label, "digits": column.digits, "low": float(low), "step": step, "codes": _packed(codes)}
