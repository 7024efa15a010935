"""What is selected, and what can be done with it: take out, undo, keep, make it a group."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl, urlencode

import streamlit as st

from app import groups, sentences, state
from app.components.shelf import shelf
from app.links import expert_link, view_link
from routing import RoutingTrace, Selection, expert_name

__all__ = ["selection_chips", "selection_tools"]

_MOST_CHIPS = 12


def selection_tools(trace: RoutingTrace, selection: Selection, *, run: str) -> None:
    """Draw the buttons that stand beside the filters.

    Args:
        trace: the trace.
        selection: what the user looks at.
        run: name of the run.
    """
    past, future = state.history()
    for label, icon, there, act in (
        ("Undo", "undo", past, state.undo),
        ("Redo", "redo", future, state.redo),
    ):
        st.button(
            label,
            icon=f":material/{icon}:",
            key=icon,
            help=f"{label} a change of the selection",
            disabled=not there,
            on_click=act,
        )
    _groups(trace, selection)

    def apply(query: str) -> None:
        asked = dict(parse_qsl(query))
        state.select(Selection.from_query(asked, trace, missing="drop"))

    query = {name: text for name, text in selection.to_query().items() if name != "focus"}
    shelf(query=urlencode(query), summary=_summary(trace, selection), run=run, on_apply=apply)


def selection_chips(trace: RoutingTrace, selection: Selection) -> None:
    """Draw a chip for each part of the selection, and for the two groups of prompts."""
    chips: list[tuple[str, Selection]] = []
    for task in selection.tasks:
        chips.append((task, replace(selection, tasks=_without(selection.tasks, task))))
    for layer in selection.layers:
        chips.append((layer, replace(selection, layers=_without(selection.layers, layer))))
    for expert in selection.experts:
        name = expert_name(*expert, names=trace.expert_names)
        chips.append((name, replace(selection, experts=_without(selection.experts, expert))))
    for prompt in selection.prompts:
        chips.append((prompt, replace(selection, prompts=_without(selection.prompts, prompt))))
    if selection.focus is not None:
        place = "" if selection.focus.position is None else f" @ {selection.focus.position}"
        chips.append((f"{selection.focus.prompt}{place}", replace(selection, focus=None)))
    made = groups.made(trace)
    if not chips and not made:
        return
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center", key="chips"):
        for number, (text, rest) in enumerate(chips[:_MOST_CHIPS]):
            st.button(
                f"{sentences.escaped(text)} ✕",
                key=f"chip_{number}",
                help=f"Take {sentences.escaped(text)} out of the selection",
                on_click=state.select,
                args=(rest,),
            )
        if len(chips) > _MOST_CHIPS:
            st.caption(f"and {len(chips) - _MOST_CHIPS} more", width="content")
        if chips:
            st.button(
                "Clear",
                key="clear",
                type="tertiary",
                icon=":material/close:",
                on_click=state.select,
                args=(Selection(),),
            )
        if len(selection.experts) == 1 and state.option("expert") is None:
            expert_link(trace, *selection.experts[0])
        for name, group in made.items():
            st.button(
                f"**{name}** {sentences.escaped(_summary(trace, group))} ✕",
                key=f"group_{name}",
                help=f"Forget group {name}",
                on_click=groups.forget,
                args=(name,),
            )
        if made:
            view_link("groups", "Compare them", icon=":material/compare_arrows:")


def _groups(trace: RoutingTrace, selection: Selection) -> None:
    picked = Selection(tasks=selection.tasks, prompts=selection.prompts)
    with st.popover("A | B", icon=":material/compare_arrows:", key="groups"):
        st.markdown(
            "Two groups of prompts, to see what sets them apart. A group is what is selected now; without B, A is"
        )
        st.markdown("compared with all other prompts.")
        if not picked.to_query():
            st.caption("Select tasks or prompts first: with the filter above, or around points on the Map.")
        for name in groups.NAMES:
            held = groups.made(trace).get(name)
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.button(
                    f"Make it group {name}",
                    key=f"make_{name}",
                    disabled=not picked.to_query(),
                    on_click=groups.make,
                    args=(name, picked),
                )
                st.markdown(sentences.escaped(_summary(trace, held)) if held else ":gray[empty]")
        view_link("groups", "Compare them", icon=":material/arrow_forward:")


def _summary(trace: RoutingTrace, selection: Selection) -> str:
    """A selection in a few words."""
    parts = []
    for names, noun in ((selection.tasks, "task"), (selection.layers, "layer"), (selection.prompts, "prompt")):
        if names:
            parts.append(names[0] if len(names) == 1 else sentences.count(len(names), noun))
    if selection.experts:
        first = expert_name(*selection.experts[0], names=trace.expert_names)
        parts.append(first if len(selection.experts) == 1 else sentences.count(len(selection.experts), "expert"))
    return ", ".join(parts) or "everything"


def _without(items: tuple, item: object) -> tuple:
    return tuple(each for each in items if each != item)
