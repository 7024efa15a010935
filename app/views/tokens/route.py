"""One token's way through the layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from analysis.confidence import margins
from analysis.reading import token_adapters, token_route
from app import cache, state
from app.components.plot_bridge import Click
from app.links import expert_link
from app.panel import empty, mode, panel
from app.views.tokens.sentences import adapters_reading, route_reading, token_name
from figures.tokens import token_route as route_figure
from routing import RoutingTrace, Selection

__all__ = ["OnCell", "route_panel", "usual_margins", "way_panel"]

_MOST_LINKS = 8
# What is called with the layer of a clicked cell, and its expert, or None for the margins, which name none.
OnCell = Callable[[str, int | None], None]


def route_panel(trace: RoutingTrace, selection: Selection, *, tokens: pd.DataFrame, token: int, prompt: str) -> None:
    """Draw what every layer did with a token of a run, its experts to be selected.

    Args:
        trace: the trace.
        selection: what the user looks at.
        tokens: of the prompt, as `prompt_tokens` gives them.
        token: row of the token.
        prompt: id of the prompt.
    """

    def clicked(layer: str, expert: int | None) -> None:
        chosen = selection if expert is None else replace(selection, experts=((layer, expert),))
        state.select(chosen, layer=layer)

    def controls(experts: tuple[tuple[str, int], ...]) -> None:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button(
                "Select its experts",
                icon=":material/filter_alt:",
                key="select_route",
                help="Makes the experts that this token was sent to the selection, for the other views.",
                on_click=state.select,
                args=(replace(selection, experts=experts),),
            )
            for layer, expert in [each for each in selection.experts if each in experts][:_MOST_LINKS]:
                expert_link(trace, layer, expert)

    way_panel(
        trace,
        tokens=tokens,
        token=token,
        prompt=prompt,
        usual_of=trace,
        on_cell=clicked,
        hint="Click a cell to color the text by its layer and pick its expert.",
        controls=controls,
    )


def way_panel(
    trace: RoutingTrace,
    *,
    tokens: pd.DataFrame,
    token: int,
    prompt: str,
    usual_of: RoutingTrace | None,
    on_cell: OnCell,
    hint: str,
    controls: Callable[[tuple[tuple[str, int], ...]], None] | None = None,
) -> None:
    """Draw what every layer did with a token: selected, runners-up, weights, margins, adapters.

    Args:
        trace: the trace.
        tokens: of the prompt, as `prompt_tokens` gives them.
        token: row of the token.
        prompt: id of the prompt.
        usual_of: the run whose margins are drawn behind those of the token; none, where it is None.
        on_cell: called when a cell is clicked.
        hint: what a click does.
        controls: draws widgets below the title, given the experts that the token was sent to.
    """
    options: dict[str, Any] = {"position": int(tokens["position"].iloc[token])}
    if tokens["stack"].nunique() > 1:
        options["stack"] = str(tokens["stack"].iloc[token])
    route = cache.answer(trace, token_route, prompt=prompt, **options)
    if route.empty:
        empty(f"No layer routed token {token}.", "Point at another one.")
        return
    usual = usual_margins(usual_of) if usual_of is not None and route["margin"].notna().any() else None
    adapters = None
    if trace.adapters is not None:
        adapters = cache.answer(trace, token_adapters, prompt=prompt, **options)
        adapters = adapters if adapters["ratio"].notna().any() else None
    name = token_name(tokens, token)
    selected = route[route["selected"]]
    experts = tuple((str(layer), int(e)) for layer, e in zip(selected["layer"], selected["expert"], strict=True))

    def clicked(click: Click) -> None:
        # The margins beside the ranks name a layer, and no expert.
        expert = click.customdata[-1] if isinstance(click.customdata, list) and len(click.customdata) == 2 else None
        layer = str(click.y)
        on_cell(layer, expert if isinstance(expert, int) and layer in trace.layers else None)

    sentences = [route_reading(route, name=name, usual=usual)]
    if adapters is not None:
        sentences.append(adapters_reading(adapters))
    panel(
        f"Route of {name}",
        route_figure(route, mode=mode(), usual=usual, adapters=None if adapters is None else adapters["ratio"]),
        key="token_route",
        reading=f"{' '.join(sentences)} {hint}",
        table=lambda: route if adapters is None else route.join(adapters, on="layer"),
        definitions=("margins", "token_route", *(("token_adapters",) if adapters is not None else ())),
        on_click=clicked,
        controls=None if controls is None else lambda: controls(experts),
    )


def usual_margins(trace: RoutingTrace) -> pd.DataFrame:
    """The middle half of all tokens' margins: layer (index) × low, high."""
    # A scan of the whole run, the first time that anyone asks.
    spread = cache.answer(trace, margins, by=None)
    return spread[["q25", "q75"]].set_axis(["low", "high"], axis=1)
