"""Where an expert fires, in contexts that can be opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import streamlit as st

from analysis.contexts import ContextOrder, expert_contexts
from app import cache, choices, headings, sentences, state
from app.components.context_list import Context, context_list
from app.panel import data_popover, definitions_popover, empty
from figures.theme import OKABE_ITO
from routing import Focus, RoutingTrace, Selection, expert_name

__all__ = ["context_panel"]

_ORDERS: dict[ContextOrder, str] = {"highest": "highest", "nearest": "nearest to this one", "random": "as a rule"}
_ROLES = {"selected": "selected", "runner_up": "runner-up"}


def context_panel(
    trace: RoutingTrace,
    selection: Selection,
    *,
    expert: tuple[str, int],
    title: str,
    key: str,
    near: float | None = None,
    skip: str | None = None,
    n_contexts: int = 8,
    opens: Literal["here", "tokens"] = "here",
) -> None:
    """Draw the tokens that choose an expert, with what stands around them.

    Args:
        trace: the trace.
        selection: what the user looks at; its tasks and prompts narrow the search.
        expert: layer and number.
        title: of the panel.
        key: of the panel.
        near: a weight that contexts may be asked to be near to.
        skip: id of a prompt to leave out.
        n_contexts: how many lines.
        opens: whether a line is opened on this page or in the Tokens view.
    """
    layer, number = expert
    name = expert_name(layer, number, names=trace.expert_names)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        headings.part(title, width="stretch")
        orders = [order for order in _ORDERS if order != "nearest" or near is not None]
        order = choices.choose(
            "Which contexts",
            orders,
            name="contexts",
            shown=_ORDERS.__getitem__,
            label_visibility="collapsed",
            help="Highest: where its weight is largest. As a rule: a seeded draw from all prompts that it serves.",
        )
        role = "selected"
        if trace.n_ranks > trace.layer_facts[trace.layers.index(layer)].top_k:
            role = choices.choose(
                "Role", list(_ROLES), name="role", shown=_ROLES.__getitem__, label_visibility="collapsed"
            )
        definitions_popover(("expert_contexts",), key=key)
        within = Selection(tasks=selection.tasks, prompts=selection.prompts)
        asked = {"layer": layer, "expert": number, "order": order, "role": role, "skip": skip}
        found = cache.answer(
            trace,
            expert_contexts,
            within=within,
            near=None if near is None or order != "nearest" else round(near, 3),
            n_contexts=n_contexts,
            **asked,
        )
        data_popover(
            lambda: found.drop(columns=["pieces", "values"]).assign(text=found["pieces"].map("".join)),
            key=key,
            definitions=("expert_contexts",),
        )
    if found.empty:
        where = "in the selected tasks and prompts" if within.tasks or within.prompts else "anywhere else in this run"
        empty(
            f"{sentences.escaped(name)} is not {_ROLES[role]} {where}.",
            "Clear the filters above, or look at another expert.",
        )
        return

    def open_context(place: int) -> None:
        row = found.iloc[place]
        twice = row["stack"] if trace.stacks and len(trace.stacks) > 1 else None
        focus = Focus(prompt=str(row["prompt"]), position=int(row["position"]))
        if opens == "tokens":
            state.go_to("tokens", replace(selection, focus=focus), layer=layer, stack=twice)
        else:
            state.select(replace(selection, focus=focus), layer=layer, stack=twice)

    context_list(
        [_context(row) for row in found.itertuples()],
        key=key,
        name=f"Contexts of {name}",
        color=OKABE_ITO[0] if role == "selected" else OKABE_ITO[1],
        on_choose=open_context,
    )
    st.caption(_reading(found, name=name, role=role, order=order))


def _context(row: Any) -> Context:
    values = np.array(row.values, dtype=float)
    largest = np.nanmax(values, initial=1e-9)
    share = f"{sentences.count(row.n_tokens, 'token')} of this prompt"
    return Context(
        value="" if pd.isna(row.value) else f"{row.value:.3f}",
        head=f"{row.task} · {row.prompt} · token {row.position} ({row.phase}) · {share}",
        pieces=row.pieces,
        strengths=tuple(np.nan_to_num(np.clip(values / largest, 0, 1)).tolist()),
        at=row.at,
    )


def _reading(found: pd.DataFrame, *, name: str, role: str, order: str) -> str:
    at = [pieces[place].strip() for pieces, place in zip(found["pieces"], found["at"], strict=True)]
    common = pd.Series(at).value_counts()
    what = "came next after the selected" if role == "runner_up" else "was selected"
    drawn = {"highest": "with the largest values", "nearest": "with the nearest weights", "random": "drawn at random"}
    text = f"One token a prompt at which {sentences.escaped(name)} {what}, {len(found)} prompts {drawn[order]}."
    if len(common) and common.iloc[0] > 1 and common.index[0]:
        text += f" “{sentences.escaped(str(common.index[0]))}” is the token in {common.iloc[0]} of them."
    return text + " Lit: every token of the stretch that it serves. Open a line to read it in its passage."
