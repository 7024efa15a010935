"""Try it: what happens to a text of one's own, and what if the router chose otherwise?"""

from __future__ import annotations

import streamlit as st

from analysis.passages import passage_routing
from analysis.reading import prompt_tokens
from app import cache, state
from app.explain import looking_at
from app.links import view_link
from app.panel import empty
from app.tries.asked import PROMPT, Found, TryRequest
from app.tries.models import is_own
from app.views.tokens.passage import Reading, passage_panel
from app.views.tokens.prompt_route import whole_route
from app.views.tokens.route import way_panel
from app.views.try_it.asking import answered
from app.views.try_it.box import asked_for, is_warmed
from app.views.try_it.change import change_part
from app.views.try_it.keeping import keep_popover
from app.views.try_it.next_panel import next_panel
from app.views.try_it.sentences import of_memory, of_whole_text
from routing import Focus, RoutingTrace, Selection

__all__ = ["render"]

_NO_SELECTION = Selection()


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the box, the text that was typed, the route of a token, and what a change does."""
    box = asked_for(trace, selection)
    if box is None:
        return
    reader, request = box
    memory = st.empty()
    memory.caption(of_memory(reader, held=0, is_warmed=is_warmed(reader)))
    if request is None:
        empty(
            "Nothing is read yet.",
            "Type a text and press “Read it”: it is colored by the experts that its tokens are sent to, and then you "
            "may force another expert and see what the model makes of it.",
        )
        if trace.n_prompts and isinstance(trace.prompts["text"].iloc[0], str) and trace.prompts["text"].iloc[0]:
            first = Selection(focus=Focus(prompt=str(trace.prompts["prompt"].iloc[0])))
            view_link("try_it", "Begin with a prompt of this run", selection=first, icon=":material/arrow_forward:")
        return
    found = answered(request, slot="text")
    if found is None:
        return
    memory.caption(of_memory(reader, held=cache.tries().held_bytes, is_warmed=is_warmed(reader)))
    run = trace if is_own(reader, trace) and _is_alike(trace, found.trace) else None
    # Explanations speak of this text, not of the run.
    with looking_at(found.trace, _NO_SELECTION):
        if found.trace.unit == "prompt":
            _whole(found, request, run=run)
        else:
            _by_token(found, request, run=run)


def _by_token(found: Found, request: TryRequest, *, run: RoutingTrace | None) -> None:
    trace = found.trace
    tokens = prompt_tokens(trace, PROMPT)
    routing = passage_routing(trace, PROMPT)
    token = _picked(len(tokens))
    passage_panel(
        trace,
        _NO_SELECTION,
        Reading(prompt=PROMPT, tokens=tokens, routing=routing),
        token=token,
        on_choose=lambda row: state.set_options(token=None if row is None else str(row)),
        compares=False,
    )
    keep_popover(trace)
    if token is None:
        st.caption("Point at a token to see what every layer did with it, and to have its experts exchanged.")
    else:
        selected = routing["experts"].isel(token=token)

        def clicked(label: str, expert: int | None) -> None:
            runs_up = expert is not None and expert not in selected.sel(layer=label).values
            if runs_up and not found.why_not:
                state.set_options(layer=label, force="expert", force_layer=label, force_expert=str(expert))
            else:
                state.set_options(layer=label)

        way_panel(
            trace,
            tokens=tokens,
            token=token,
            prompt=PROMPT,
            usual_of=run,
            on_cell=clicked,
            hint="" if found.why_not else "Click a runner-up to have it come in, and see below what changes.",
        )
    if found.why_not:
        next_panel(found.likeliest, tokens=None, row=0)
        st.info(found.why_not, icon=":material/info:")
        return
    change_part(found, request, tokens=tokens, routing=routing, token=token)


def _whole(found: Found, request: TryRequest, *, run: RoutingTrace | None) -> None:
    """A text for which the router decides once."""
    whole_route(found.trace, found.trace.prompts.iloc[0], usual_of=run, on_cell=lambda *_: None)
    st.info(of_whole_text(found.trace, task=request.task), icon=":material/info:")
    next_panel(found.likeliest, tokens=None, row=0)
    keep_popover(found.trace)


def _picked(n_tokens: int) -> int | None:
    """Row of the token that the URL names."""
    named = state.option("token") or ""
    return int(named) if named.isdecimal() and int(named) < n_tokens else None


def _is_alike(one: RoutingTrace, other: RoutingTrace) -> bool:
    """Whether margins of one run say what is usual in the other."""
    if one.scores is None or not one.n_tokens:
        return False
    sizes = [[(each.label, each.n_experts, each.top_k) for each in run.layer_facts] for run in (one, other)]
    return sizes[0] == sizes[1]
