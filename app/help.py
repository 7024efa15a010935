"""What the help beside every page says: the tour's four steps, and the keys."""

from __future__ import annotations

from app.components.guide import Keys, Step
from app.view_list import VIEWS

__all__ = ["KEYS", "tour"]

# The questions that most readers come with; each view asks its own.
_FIRST = ("tasks", "load", "tokens", "map", "causes", "compare", "placement")

KEYS = (
    Keys("Tab, Shift+Tab", "from one control to the next, and back"),
    Keys("Enter, Space", "press what is in focus; Esc closes what it opened"),
    Keys("← →", "in a text: the token before or after, with Shift ten; in the tour: the step before or after"),
    Keys("↑ ↓", "in a text: the layer above or below"),
    Keys("Home, End", "in a text: its first or last token"),
    Keys("Enter, Shift+Enter", "in a text: the next or previous find"),
    Keys("Esc", "in a text: no token is picked any more"),
    Keys("← → ↑ ↓, Enter", "in a heatmap: from cell to cell, Home and End along its row; Enter picks the cell"),
    Keys(
        "← → ↑ ↓, + −, 0",
        "on the map of all tokens: move, zoom, show all; Enter picks what is in the middle",
    ),
    Keys("Shift+Enter", "in the legend of that map: show one group alone"),
    Keys("R", "read the page again"),
)


def tour() -> tuple[Step, ...]:
    """The tour: what a trace is, the selection, a picture with its null, and where to go with which question."""
    by_url = {view.url: view for view in VIEWS}
    return (
        Step(
            title="A run is a record of every choice",
            text="While a model read its prompts, RouteScope wrote down, for every token and every layer with a "
            "router, which experts were selected, with what weight, and who came second. Each prompt belongs to a "
            "task. Nothing is estimated here: what the model did is on disk, and was checked against its own output.",
            shows=".st-key-choice_run",
        ),
        Step(
            title="One selection for all views",
            text="Tasks and layers are picked at the top; experts, prompts and tokens by clicking them in any "
            "picture. What is picked stands there as chips, holds in every view, and can be undone. The address of "
            "the page holds it, too: a link shows others the same screen.",
            shows=".st-key-header",
        ),
        Step(
            title="Read a picture with its chance",
            text="Routing is full of patterns that mean nothing. Below each picture a sentence says what holds up "
            "against chance, or that nothing does; bars are 95 % intervals over prompts. “Explain” beside a picture "
            "says what its number is and where it misleads, “Data” shows the numbers as a table.",
            shows="[class*='st-key-definition_'] button",
        ),
        Step(
            title="Where to go with which question",
            text="Each view asks one question. Begin with the Overview, whose sentences lead on to where they were "
            "found.",
            points=tuple(f"{by_url[url].title}: {by_url[url].question}" for url in _FIRST),
            shows="[data-testid='stSidebar']",
        ),
    )
