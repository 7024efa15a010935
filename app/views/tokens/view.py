"""Tokens: what happened to this text?"""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path

import pandas as pd
import streamlit as st

from analysis.reading import prompt_tokens
from app import cache, choices, state
from app.links import view_link
from app.panel import empty
from app.prompts import Outcome, choices_around, outcome_of, outcomes, prompt_labels
from app.sentences import escaped
from app.views.expert.contexts import context_panel
from app.views.tokens.passage import Reading, passage_panel, picked_layer, routing_of
from app.views.tokens.prompt_route import prompt_route
from app.views.tokens.route import route_panel
from app.views.tokens.search import KINDS, Kind, asked_expert, found_prompts, marks_of
from figures.pieces import shown_text
from routing import Focus, RoutingTrace, Selection, expert_name

__all__ = ["render"]

_CSS = Path(__file__).with_name("tokens.css")
# A list that a reader can still scan; beyond it the search narrows better than scrolling.
_MOST_CHOICES = 500
_PLACEHOLDERS: dict[Kind, str] = {
    "text": "any text or id",
    "token": "a token, such as the",
    "expert": "L07·E12, or E12",
}


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the picker, the passage, and the route of the token that was pointed at."""
    st.html(_CSS)
    if not trace.n_prompts:
        empty("This run holds no prompt yet.", "Let the recording run on, and reload the page.")
        return
    layer = picked_layer(trace, selection).label
    kind, text, expert = _asked(trace, layer=layer)
    prompt = _pick_prompt(trace, selection, kind=kind, text=text, expert=expert)
    if prompt is None:
        return
    name = str(prompt["prompt"])
    tokens = cache.answer(trace, prompt_tokens, prompt=name)
    _facts(prompt, tokens, unit=trace.unit)
    if trace.unit == "prompt":
        prompt_route(trace, selection, prompt)
        return
    if tokens.empty:
        empty("This prompt has no tokens in the run.", "It was empty, or recording stopped before it: pick another.")
        return
    token = _focused(tokens, selection)
    routing = routing_of(trace, name, n_tokens=len(tokens))
    if not text and len(selection.experts) == 1:
        # What is picked in another view is found in the text, too.
        expert = selection.experts[0]
    marks = marks_of(trace, tokens, routing, kind=kind, text=text, expert=expert)
    reading = Reading(prompt=name, tokens=tokens, routing=routing, marks=marks)

    def choose(row: int | None) -> None:
        at = None if row is None else int(tokens["position"].iloc[row])
        twice = at is not None and int((tokens["position"] == at).sum()) > 1
        stack = str(tokens["stack"].iloc[row]) if twice and row is not None else None
        state.select(replace(selection, focus=Focus(prompt=name, position=at)), stack=stack)

    passage_panel(trace, selection, reading, token=token, on_choose=choose)
    _try_it(prompt, tokens, token=token)
    if token is None:
        st.caption("Point at a token to see what every layer did with it, and where else its experts fire.")
        return
    route_panel(trace, selection, tokens=tokens, token=token, prompt=name)
    _elsewhere(trace, selection, reading, token=token, layer=layer)


def _asked(trace: RoutingTrace, *, layer: str) -> tuple[Kind, str, tuple[str, int] | None]:
    """What is looked for: kind, text, and the expert that it names."""
    kind: Kind = choices.chosen("in", tuple(KINDS))
    text = (state.option("find") or "").strip()
    return kind, text, asked_expert(trace, text, layer=layer) if kind == "expert" else None


def _pick_prompt(
    trace: RoutingTrace, selection: Selection, *, kind: Kind, text: str, expert: tuple[str, int] | None
) -> pd.Series | None:
    table = trace.prompts
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="pick_prompt"):
        with st.container(width=120):
            choices.choose("Find", tuple(KINDS), name="in", shown=KINDS.__getitem__, kind="select")
        with st.container(width=190):
            choices.search("What to find", name="find", placeholder=_PLACEHOLDERS[kind])
        known = cache.answer(trace, outcomes)
        outcome: Outcome = "all"
        if len(known) > 1:
            with st.container(width="content"):
                outcome = choices.choose("Answers", known, name="outcome", shown=str.capitalize)
        rows = cache.answer(
            trace,
            found_prompts,
            kind=kind,
            text=text,
            expert=expert,
            tasks=selection.tasks,
            prompts=selection.prompts,
            outcome=outcome,
        )
        focus = selection.focus.prompt if selection.focus else None
        focused = next(iter(table.index[table["prompt"] == focus]), None)
        offered = choices_around(rows, focus=focused, most=_MOST_CHOICES)
        if not offered:
            empty("No prompt is like that.", "Clear the search, or take tasks out of the selection.")
            return None
        chosen = offered[0] if focused is None else focused
        labels = prompt_labels(trace, rows=offered)
        with st.container(width="stretch"):
            choices.choose_one(
                f"Prompt · {len(rows):,} of {len(table):,}",
                offered,
                key="prompt",
                chosen=chosen,
                on_change=lambda row: _go_to(table, row, selection),
                shown=labels.__getitem__,
            )
        with st.container(horizontal=True, gap="xxsmall", width="content"):
            for label, icon, step in (("Previous prompt", "left", -1), ("Next prompt", "right", 1)):
                place = offered.index(chosen) + step
                there = 0 <= place < len(offered)
                st.button(
                    label,
                    icon=f":material/chevron_{icon}:",
                    key=label.split()[0].lower(),
                    help=label,
                    disabled=not there,
                    on_click=_go_to,
                    args=(table, offered[place] if there else chosen, selection),
                )
    if kind == "expert" and text and expert is None:
        st.caption(f"No expert is named so here; one of this run is {expert_name(trace.layers[-1], 0)}.")
    elif kind != "text" and text and rows:
        most = "largest share" if kind == "expert" else "most finds"
        st.caption(f"Prompts with the {most} come first.")
    if len(rows) > len(offered):
        st.caption(f"The list holds {len(offered)} of {len(rows):,} matching prompts; search to narrow it.")
    return table.loc[chosen]


def _go_to(table: pd.DataFrame, row: int, selection: Selection) -> None:
    state.select(replace(selection, focus=Focus(prompt=str(table.loc[row, "prompt"]))), stack=None)


def _facts(prompt: pd.Series, tokens: pd.DataFrame, *, unit: str) -> None:
    n_generated = int((tokens["phase"] == "generated").sum())
    facts = {
        "Prompt": prompt["prompt"],
        "Task": f"{prompt['task']} ({prompt['task_type']})",
        "Tokens": f"{len(tokens):,}, of which {n_generated:,} generated" if unit == "token" else "",
        "Target": prompt["target"],
        "Prediction": prompt["prediction"],
        "Score": "" if pd.isna(prompt["score"]) else f"{prompt['score']:.2f} {_metric(prompt)} · {_outcome(prompt)}",
    }
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(shown_text(str(value).strip()))}</dd></div>"
        for name, value in facts.items()
        if not pd.isna(value) and str(value).strip()
    )
    st.html(f'<dl class="facts">{cells}</dl>')


def _metric(prompt: pd.Series) -> str:
    return str(prompt.get("metric") or "").replace("_", " ").replace("f1", "F1")


def _outcome(prompt: pd.Series) -> str:
    return outcome_of(prompt["score"])


def _focused(tokens: pd.DataFrame, selection: Selection) -> int | None:
    """Row of the token in focus; a position that two stacks number alike needs the stack's name beside it."""
    if selection.focus is None or selection.focus.position is None:
        return None
    here = tokens["position"] == selection.focus.position
    stack = state.option("stack")
    if stack is not None:
        here &= tokens["stack"].astype(str) == stack
    rows = tokens.index[here]
    return int(rows[0]) if len(rows) else None


def _try_it(prompt: pd.Series, tokens: pd.DataFrame, *, token: int | None) -> None:
    """Offer to change a decision in what the model was given; what it wrote is no part of that."""
    if not isinstance(prompt["text"], str) or not prompt["text"]:
        return
    given = token is not None and tokens["phase"].iloc[token] == "prompt" and tokens["stack"].nunique() == 1
    view_link(
        "try_it",
        "Try it: force another expert in this text, or type your own",
        icon=":material/edit_note:",
        selection=Selection(focus=Focus(prompt=str(prompt["prompt"]))),
        token=str(token) if given else None,
    )


def _elsewhere(trace: RoutingTrace, selection: Selection, reading: Reading, *, token: int, layer: str) -> None:
    """Where else the token's first expert of this layer fires like this."""
    row = reading.routing.sel(layer=layer).isel(token=token)
    expert = int(row["experts"].values[0])
    if expert < 0:
        return
    weight = float(row["weight"])
    context_panel(
        trace,
        selection,
        expert=(layer, expert),
        title=f"Where else {escaped(expert_name(layer, expert, names=trace.expert_names))} fires like this",
        key="token_contexts",
        near=weight if weight == weight else None,
        skip=reading.prompt,
    )
