"""Together: which experts work together, and along which paths?"""

from __future__ import annotations

from dataclasses import replace

from app import choices
from app.panel import empty
from app.views.together.pairs import pairs_part
from app.views.together.paths import paths_part
from app.views.together.stay import stay_part
from app.views.together.steps import steps_part
from routing import RoutingTrace, Selection

__all__ = ["render"]

_PARTS = {
    "pairs": ("In one token", pairs_part),
    "steps": ("From layer to layer", steps_part),
    "paths": ("Paths through layers", paths_part),
    "stay": ("Along a text", stay_part),
}


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    if trace.n_tokens == 0:
        empty("This run holds no tokens yet.", "Let the recording run on, and reload the page.")
        return
    part = choices.choose(
        "Look at",
        tuple(_PARTS),
        name="part",
        shown=lambda name: _PARTS[name][0],
        label_visibility="collapsed",
    )
    # Layers choose what is shown: what was found in the others stays known, and a click computes nothing anew.
    within = replace(selection, layers=(), experts=(), focus=None)
    _PARTS[part][1](trace, selection, within)
