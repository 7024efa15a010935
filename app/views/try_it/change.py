"""Another expert, and what becomes of the text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st
import xarray as xr

from analysis.passages import token_churn
from app import choices, headings, state
from app.components.plot_bridge import Click
from app.panel import mode, panel
from app.tries.asked import PROMPT, Changed, Found, Kind, TryRequest
from app.views.try_it import sentences
from app.views.try_it.asking import answered
from app.views.try_it.next_panel import next_panel
from figures.comparisons import token_churn_heatmap
from figures.next_tokens import runner_up_bars, surprise_bars
from routing import RoutingTrace

__all__ = ["change_part", "experts_to_force"]

_KINDS = {
    "nothing": "nothing changed",
    "runner_up": "its runner-up came in",
    "expert": "another expert came in",
    "knock_out": "an expert were gone",
}
_HELP = (
    "The first two change one decision: the last selected expert of the token stays out, and with it whatever ranks "
    "before the one that is to come in. The third takes an expert from all tokens of the text. Who is kept out has no "
    "share in the router's softmax, as if it were not there."
)
# More columns than this cannot be told apart.
_MOST_COLUMNS = 120


def change_part(
    found: Found, request: TryRequest, *, tokens: pd.DataFrame, routing: xr.Dataset, token: int | None
) -> None:
    """Draw what may be changed, and what the change does.

    Args:
        found: the text as it was read.
        request: what was asked for that.
        tokens: of the text, as `prompt_tokens` gives them.
        routing: as `passage_routing` gives it.
        token: row of the token that was pointed at.
    """
    headings.part("Force another expert")
    change = _chosen(found.trace, routing, tokens=tokens, token=token)
    row = token if token is not None else len(tokens) - 1
    if change is None:
        next_panel(found.likeliest, tokens=tokens, row=row)
        return
    changed = answered(replace(request, change=change), slot="change")
    if changed is None:
        return
    assert changed.tokens is not None
    table = changed.tokens.assign(piece=tokens["piece"])
    churn = token_churn(found.trace, changed.trace, prompt=PROMPT)
    st.markdown(sentences.effect(changed, change, table=table, churn=churn, tokens=tokens))
    left, right = st.columns((5, 6), gap="large")
    with left:
        divergence = float(table["divergence"].iloc[row])
        next_panel(changed.likeliest, tokens=tokens, row=row, divergence=divergence)
    with right:
        panel(
            "How much each token surprises the model",
            surprise_bars(table, selected=change.position, mode=mode()),
            key="try_surprise",
            reading=sentences.surprise_reading(table, position=change.position, tokens=tokens),
            table=lambda: table,
            definitions=("changed_text",),
        )
        if changed.runner_ups is not None and len(changed.runner_ups) > 1:
            _runner_ups(changed.runner_ups, change, divergence=divergence)
    _routing_panel(churn, change)


def _runner_ups(table: pd.DataFrame, change: Changed, *, divergence: float) -> None:
    """What the change is to be measured by: the runner-up of the same token in every layer."""
    layers = set(table["layer"])

    def clicked(click: Click) -> None:
        if str(click.y) in layers:
            state.set_options(force="runner_up", force_layer=str(click.y), force_expert=None)

    panel(
        "The runner-up in each layer, one at a time",
        runner_up_bars(table, selected=change.layer, mode=mode()),
        key="try_runner_ups",
        reading=sentences.runner_up_reading(table, change, divergence=divergence),
        table=lambda: table,
        definitions=("changed_text",),
        on_click=clicked,
    )


def _routing_panel(churn: xr.Dataset, change: Changed) -> None:
    n_tokens = churn.sizes["token"]
    moved = np.flatnonzero((churn["churn"] > 0).any("layer").to_numpy())
    first = max(0, int(moved[0]) - 2) if len(moved) and n_tokens > _MOST_COLUMNS else 0
    shown = churn.isel(token=slice(first, first + _MOST_COLUMNS))
    left_out = n_tokens - shown.sizes["token"]
    cut = f" Tokens {first} to {first + shown.sizes['token'] - 1} are drawn; “Data” holds all." if left_out else ""
    at = None if change.position is None or left_out else change.position
    panel(
        "Which experts were exchanged, token by token",
        token_churn_heatmap(shown, names=("as it is", "changed"), selected=at, mode=mode()),
        key="try_routing",
        reading=sentences.routing_reading(churn, change) + cut,
        table=lambda: churn["churn"].to_dataframe().reset_index(),
        definitions=("token_churn",),
    )


def _chosen(trace: RoutingTrace, routing: xr.Dataset, *, tokens: pd.DataFrame, token: int | None) -> Changed | None:
    """What the reader asks to be changed; None where it is nothing yet."""
    layers = list(trace.layers)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="try_change"):
        kind = choices.choose("What if", list(_KINDS), name="force", shown=_KINDS.__getitem__, help=_HELP)
        if kind == "nothing":
            return None
        if kind != "knock_out" and token is None:
            st.caption("Point at a token above: it is a token's decision that is changed.")
            return None
        with st.container(width=130):
            layer = choices.choose(
                "in layer", layers, name="force_layer", default=_weightiest(trace, token), kind="select"
            )
        expert = None
        if kind != "runner_up":
            offered = experts_to_force(trace, routing, kind=kind, layer=layer, token=token)
            if not offered:
                st.caption(f"All experts of {layer} are selected already.")
                return None
            with st.container(width=270):
                picked = choices.choose(
                    "Expert", list(offered), name="force_expert", kind="select", shown=offered.__getitem__
                )
            expert = int(picked)
        st.button("Read it as it is", icon=":material/undo:", key="force_nothing", on_click=_undo)
    known: Kind = kind  # type: ignore[assignment]
    return Changed(kind=known, layer=layer, expert=expert, position=None if kind == "knock_out" else token)


def _undo() -> None:
    state.set_options(force=None, force_layer=None, force_expert=None)


def _weightiest(trace: RoutingTrace, token: int | None) -> str:
    """The layer in which most is at stake: the last selected expert of the token has its largest weight there."""
    middle = trace.layers[len(trace.layers) // 2]
    if token is None or trace.weights is None:
        return middle
    weights = trace.weights.isel(token=token).to_numpy().astype(float)
    last = np.array([row[: facts.top_k].min() for row, facts in zip(weights, trace.layer_facts, strict=True)])
    return trace.layers[int(np.nanargmax(last))] if np.isfinite(last).any() else middle


def experts_to_force(
    trace: RoutingTrace, routing: xr.Dataset, *, kind: str, layer: str, token: int | None
) -> dict[str, str]:
    """The experts that can be named, and how the list names them.

    Args:
        trace: of the text.
        routing: as `passage_routing` gives it.
        kind: "expert", for one that the token was not sent to, by rank where that is known; "knock_out", for any.
        layer: label of the layer.
        token: row of the token.

    Returns:
        number, as text → name.
    """
    at = trace.layers.index(layer)
    facts = trace.layer_facts[at]
    if kind == "knock_out":
        chosen = routing["experts"].sel(layer=layer).to_numpy()
        counts = np.bincount(chosen[chosen >= 0], minlength=facts.n_experts)
        order = np.argsort(-counts, kind="stable")
        return {str(each): f"E{each} · {counts[each]} of {len(chosen)} tokens" for each in map(int, order)}
    assert token is not None
    assert trace.experts is not None
    selected = {int(each) for each in routing["experts"].sel(layer=layer).isel(token=token).values}
    ranked = [int(each) for each in trace.experts.isel(layer=at, token=token).to_numpy() if each != trace.absent]
    behind = [each for each in ranked if each not in selected]
    others = [each for each in range(facts.n_experts) if each not in selected and each not in behind]
    names = {str(each): f"E{each} · {_ordinal(place + 1)} runner-up" for place, each in enumerate(behind)}
    return names | {str(each): f"E{each} · further behind" for each in others}


def _ordinal(number: int) -> str:
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number, 'th') }"
