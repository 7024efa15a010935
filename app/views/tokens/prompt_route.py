"""The text of a prompt for which the router decided once, and what every layer did with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import streamlit as st

from analysis.reading import token_route
from app import cache, state
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.sentences import escaped
from app.views.tokens.route import OnCell, usual_margins
from app.views.tokens.sentences import route_reading
from figures.pieces import shown_text
from figures.tokens import token_route as route_figure
from routing import RoutingTrace, Selection

__all__ = ["prompt_route", "whole_route"]


def prompt_route(trace: RoutingTrace, selection: Selection, prompt: pd.Series) -> None:
    """Draw the text, and which experts each layer took for it.

    Args:
        trace: a run whose unit is the prompt.
        selection: what the user looks at.
        prompt: row of `trace.prompts`.
    """

    def clicked(layer: str, expert: int | None) -> None:
        if expert is not None:
            state.select(replace(selection, experts=((layer, expert),)))

    def controls(experts: tuple[tuple[str, int], ...]) -> None:
        st.button(
            "Select its experts",
            icon=":material/filter_alt:",
            key="select_route",
            help="Makes the experts that this prompt was sent to the selection, for the other views.",
            on_click=state.select,
            args=(replace(selection, experts=experts),),
        )

    whole_route(trace, prompt, usual_of=trace, on_cell=clicked, controls=controls)


def whole_route(
    trace: RoutingTrace,
    prompt: pd.Series,
    *,
    usual_of: RoutingTrace | None,
    on_cell: OnCell,
    controls: Callable[[tuple[tuple[str, int], ...]], None] | None = None,
) -> None:
    """Draw the text, and its one route.

    Args:
        trace: a run whose unit is the prompt.
        prompt: row of `trace.prompts`.
        usual_of: the run whose margins are drawn behind those of the prompt; none, where it is None.
        on_cell: called when a cell is clicked.
        controls: draws widgets below the title, given the experts that the prompt was sent to.
    """
    st.caption("The router of this run decided once for the whole prompt: there are no tokens, and one route.")
    st.code(shown_text(str(prompt["text"])), language=None, wrap_lines=True)
    name = str(prompt["prompt"])
    route = cache.answer(trace, token_route, prompt=name, position=0)
    if route.empty:
        empty(
            "This prompt has no route in the run.",
            "Recording stopped before it, or its task was unknown: pick another.",
        )
        return
    usual = usual_margins(usual_of) if usual_of is not None and route["margin"].notna().any() else None
    selected = route[route["selected"]]
    experts = tuple((str(layer), int(e)) for layer, e in zip(selected["layer"], selected["expert"], strict=True))

    def clicked(click: Click) -> None:
        expert = click.customdata[-1] if isinstance(click.customdata, list) and len(click.customdata) == 2 else None
        layer = str(click.y)
        on_cell(layer, expert if isinstance(expert, int) and layer in trace.layers else None)

    panel(
        "Route of this prompt",
        route_figure(route, mode=mode(), usual=usual),
        key="prompt_route",
        reading=route_reading(route, name="this prompt", usual=usual).replace("all tokens", "all prompts")
        + _named(trace, selected),
        table=lambda: route,
        definitions=("margins", "token_route"),
        on_click=clicked,
        controls=None if controls is None else lambda: controls(experts),
    )


def _named(trace: RoutingTrace, selected: pd.DataFrame) -> str:
    """What the selected experts are called, where they have names."""
    names = [
        f"**{escaped(trace.expert_names[str(layer)][int(e)])}**"
        for layer, e in zip(selected["layer"], selected["expert"], strict=True)
        if str(layer) in trace.expert_names
    ]
    return f" Selected: {', '.join(names)}." if names else ""
