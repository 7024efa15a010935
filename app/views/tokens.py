"""Tokens: what happened to this text?"""

from __future__ import annotations

import html
from collections.abc import Hashable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pandas as pd
import streamlit as st

from analysis.confidence import margins
from analysis.reading import prompt_tokens, token_experts, token_route
from app import cache, state
from app.components.plot_bridge import Click
from app.components.token_strip import Passage, Section, token_strip
from app.panel import data_popover, definitions_popover, empty, mode, panel
from app.prompts import Outcome, choices_around, matching_prompts, outcome_of, outcomes, prompt_labels
from app.token_sentences import passage_reading, route_reading, token_name
from figures.pieces import shown_text
from figures.token_colors import Shading, expert_shading, value_shading
from figures.tokens import token_route as route_figure
from routing import Focus, LayerFacts, RoutingTrace, Selection, expert_name

__all__ = ["render"]

_CSS = Path(__file__).with_name("tokens.css")
# A list that a reader can still scan; beyond it the search narrows better than scrolling.
_MOST_CHOICES = 500
_SHADES = {"expert": "First expert", "margin": "Margin", "entropy": "Entropy", "nll": "NLL"}
_TITLES = {
    "margin": "Margin in {layer} (selection score)",
    "entropy": "Entropy in {layer} (share of ln experts)",
    "nll": "Negative log-likelihood (nats)",
}
_KEY = "token_strip"


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the picker, the passage, and the route of the token that was pointed at."""
    st.html(_CSS)
    prompt = _pick_prompt(trace, selection)
    if prompt is None:
        return
    name = str(prompt["prompt"])
    tokens = cache.answer(trace, prompt_tokens, prompt=name)
    _facts(prompt, tokens)
    if tokens.empty:
        empty("This prompt has no tokens in the run.", "It was empty, or recording stopped before it: pick another.")
        return
    token = _focused(tokens, selection)
    _passage(trace, selection, tokens=tokens, token=token, prompt=name)
    if token is None:
        st.caption("Point at a token to see what every layer did with it.")
    else:
        _route(trace, selection, tokens=tokens, token=token, prompt=name)


def _pick_prompt(trace: RoutingTrace, selection: Selection) -> pd.Series | None:
    table = trace.prompts
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="pick_prompt"):
        with st.container(width=260):
            text = state.search("Find in prompts and answers", name="find", placeholder="any text or id")
        known = cache.answer(trace, outcomes)
        outcome: Outcome = "all"
        if len(known) > 1:
            with st.container(width="content"):
                outcome = state.choose("Answers", known, name="outcome", shown=str.capitalize)
        rows = cache.answer(
            trace, matching_prompts, tasks=selection.tasks, prompts=selection.prompts, outcome=outcome, text=text
        )
        focus = selection.focus.prompt if selection.focus else None
        focused = next(iter(table.index[table["prompt"] == focus]), None)
        choices = choices_around(rows, focus=focused, most=_MOST_CHOICES)
        if not choices:
            empty("No prompt is like that.", "Clear the search, or take tasks out of the selection.")
            return None
        chosen = choices[0] if focused is None else focused
        labels = prompt_labels(trace, rows=choices)
        with st.container(width="stretch"):
            state.choose_one(
                f"Prompt · {len(rows):,} of {len(table):,}",
                choices,
                key="prompt",
                chosen=chosen,
                on_change=lambda row: _go_to(table, row, selection),
                shown=labels.__getitem__,
            )
        with st.container(horizontal=True, gap="xxsmall", width="content"):
            for label, icon, step in (("Previous prompt", "left", -1), ("Next prompt", "right", 1)):
                place = choices.index(chosen) + step
                there = 0 <= place < len(choices)
                st.button(
                    label,
                    icon=f":material/chevron_{icon}:",
                    key=label.split()[0].lower(),
                    help=label,
                    disabled=not there,
                    on_click=_go_to,
                    args=(table, choices[place] if there else chosen, selection),
                )
    if len(rows) > len(choices):
        st.caption(f"The list holds {len(choices)} of {len(rows):,} matching prompts; search to narrow it.")
    return table.loc[chosen]


def _go_to(table: pd.DataFrame, row: int, selection: Selection) -> None:
    state.select(replace(selection, focus=Focus(prompt=str(table.loc[row, "prompt"]))), stack=None)


def _facts(prompt: pd.Series, tokens: pd.DataFrame) -> None:
    n_generated = int((tokens["phase"] == "generated").sum())
    facts = {
        "Prompt": prompt["prompt"],
        "Task": f"{prompt['task']} ({prompt['task_type']})",
        "Tokens": f"{len(tokens)}, of which {n_generated} generated",
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


def _pick_layer(trace: RoutingTrace, selection: Selection) -> LayerFacts:
    facts = {each.label: each for each in trace.layer_facts if not selection.layers or each.label in selection.layers}
    labels = list(facts)
    wanted = selection.experts[0][0] if selection.experts else None
    label = state.choose(
        "Layer",
        labels,
        name="layer",
        default=wanted if wanted in facts else labels[len(labels) // 2],
        kind="slider" if len(labels) > 1 else "segmented",
    )
    return facts[label]


def _passage(
    trace: RoutingTrace, selection: Selection, *, tokens: pd.DataFrame, token: int | None, prompt: str
) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="passage_controls"):
        with st.container(width="stretch"):
            layer = _pick_layer(trace, selection)
        experts = cache.answer(trace, token_experts, prompt=prompt, layer=layer.label)
        known = {
            "expert": True,
            "margin": experts["margin"].notna().any(),
            "entropy": experts["entropy"].notna().any(),
            "nll": tokens["nll"].notna().any(),
        }
        with st.container(width="content"):
            shade = state.choose(
                "Color by", [name for name in _SHADES if known[name]], name="shade", shown=_SHADES.__getitem__
            )
        definitions_popover(("margins", "routing_entropy"), key="passage")
        data_popover(lambda: _token_table(tokens, experts, layer.label), key="passage")

    def choose(position: int | None) -> None:
        at = None if position is None else int(tokens["position"].iloc[position])
        twice = at is not None and int((tokens["position"] == at).sum()) > 1
        stack = str(tokens["stack"].iloc[position]) if twice and position is not None else None
        state.select(replace(selection, focus=Focus(prompt=prompt, position=at)), stack=stack)

    names = {e: expert_name(layer.label, int(e)) for e in experts["expert"].dropna().unique()}
    token_strip(
        Passage(
            id=f"{trace.digest}/{prompt}",
            name=f"Tokens of prompt {prompt}",
            pieces=tuple(tokens["piece"]),
            sections=_sections(tokens),
            experts=tuple(None if pd.isna(e) else names[e] for e in experts["expert"]),
            columns=tuple(
                (label, _rounded(values, digits), digits)
                for label, values, digits in (
                    ("weight", experts["weight"], 3),
                    ("margin", experts["margin"], 4),
                    ("entropy", experts["entropy"], 3),
                    ("nll", tokens["nll"], 2),
                )
                if values.notna().any()
            ),
        ),
        _shading(shade, tokens, experts, layer=layer.label),
        key=_KEY,
        chosen=token,
        on_choose=choose,
    )
    st.markdown(passage_reading(tokens, experts, layer=layer.label, shade=shade, n_experts=layer.n_experts))


def _shading(shade: str, tokens: pd.DataFrame, experts: pd.DataFrame, *, layer: str) -> Shading:
    if shade == "expert":
        first = [None if pd.isna(e) else int(e) for e in experts["expert"]]
        return expert_shading(first, layer=layer, names={e: f"E{e}" for e in first if e is not None})
    values = tokens["nll"] if shade == "nll" else experts[shade]
    digits = 2 if shade == "nll" else 3
    return value_shading(values.tolist(), title=_TITLES[shade].format(layer=layer), digits=digits, mode=mode())


def _sections(tokens: pd.DataFrame) -> tuple[Section, ...]:
    several = tokens["stack"].nunique() > 1
    keys = [
        f"{stack} · {phase}" if several else str(phase)
        for stack, phase in zip(tokens["stack"], tokens["phase"], strict=True)
    ]
    sections, start = [], 0
    for label, run in groupby(keys):
        stop = start + len(list(run))
        sections.append(Section(start, stop, label))
        start = stop
    return tuple(sections)


def _rounded(values: pd.Series, digits: int) -> list[float | None]:
    return [None if pd.isna(value) else round(float(value), digits) for value in values]


def _token_table(tokens: pd.DataFrame, experts: pd.DataFrame, layer: str) -> pd.DataFrame:
    return tokens.assign(layer=layer, **{name: experts[name] for name in ("expert", "weight", "margin", "entropy")})


def _route(trace: RoutingTrace, selection: Selection, *, tokens: pd.DataFrame, token: int, prompt: str) -> None:
    options: dict[str, Hashable] = {"position": int(tokens["position"].iloc[token])}
    if tokens["stack"].nunique() > 1:
        options["stack"] = str(tokens["stack"].iloc[token])
    route = cache.answer(trace, token_route, prompt=prompt, **options)
    if route.empty:
        empty(f"No layer routed token {token}.", "Point at another one.")
        return
    usual = None
    if route["margin"].notna().any():
        # A scan of the whole run, the first time that anyone asks.
        with st.spinner("Reading how wide margins are in this run …", show_time=True):
            spread = cache.answer(trace, margins, by=None)
        usual = spread[["q25", "q75"]].set_axis(["low", "high"], axis=1)
    name = token_name(tokens, token)
    selected = route[route["selected"]]

    def clicked(click: Click) -> None:
        # The margins beside the ranks name a layer, and no expert.
        expert = click.customdata[-1] if isinstance(click.customdata, list) and len(click.customdata) == 2 else None
        layer = str(click.y)
        known = isinstance(expert, int) and layer in trace.layers
        state.select(replace(selection, experts=((layer, expert),)) if known else selection, layer=layer)

    experts = tuple((str(layer), int(e)) for layer, e in zip(selected["layer"], selected["expert"], strict=True))
    panel(
        f"Route of {name}",
        route_figure(route, mode=mode(), usual=usual),
        key="token_route",
        reading=route_reading(route, name=name, usual=usual) + " Click a cell to color the text by its layer.",
        table=lambda: route,
        definitions=("margins",),
        on_click=clicked,
        controls=lambda: st.button(
            "Select its experts",
            icon=":material/filter_alt:",
            key="select_route",
            help="Makes the experts that this token was sent to the selection, for the other views.",
            on_click=state.select,
            args=(replace(selection, experts=experts),),
        ),
    )
