"""Expert: what does this one do?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from analysis.experts import expert_profile
from analysis.load import activation_rate, expert_load
from analysis.single_expert import expert_lifts, load_over_run, similar_experts
from analysis.specialization import specialization
from app import cache, choices, headings, state
from app.explain import hint
from app.panel import data_popover, definitions_popover, empty, mode, panel
from app.runs import Run, snapshots
from app.sentences import escaped, percent, times
from app.views.expert import sentences as expert_sentences
from app.views.expert.companions import companion_panels, expert_lines
from app.views.expert.contexts import context_panel
from app.views.expert.detail import task_panel, token_table
from app.views.expert.knock_out import knock_out_panel
from figures import expert as figures
from routing import RoutingTrace, Selection, SelectionError, TraceError, expert_name

__all__ = ["render"]

_SHOWN_SIMILAR = 6


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the page of one expert."""
    if trace.n_tokens == 0 and trace.level != "counts":
        empty("This run holds no token that an expert could serve.", "Let the recording run on, or open another run.")
        return
    layer, expert = _pick(trace, selection)
    name = expert_name(layer, expert, names=trace.expert_names)
    within = Selection(tasks=selection.tasks, prompts=selection.prompts)
    profile = cache.answer(trace, expert_profile, within=within, layer=layer, expert=expert)
    _numbers(trace, selection, within, layer=layer, expert=expert)
    if profile.overall_rate == 0:
        empty(
            f"No token of this selection chose {escaped(name)}.",
            "It is idle here: clear the filters, or see the Load view.",
        )
    left, right = st.columns([3, 2], gap="large")
    with left:
        task_panel(
            trace, profile, layer=layer, expert=expert, key="expert_page_tasks", sentence=_beyond(trace, layer, expert)
        )
    with right:
        token_table(profile)
    if trace.level == "counts":
        empty("This run holds counts only.", "Record it at level `assignments` to see contexts and companions.")
        return
    context_panel(
        trace,
        replace(selection, experts=(), layers=(), focus=None),
        expert=(layer, expert),
        title=f"Where {escaped(name)} fires",
        key="expert_contexts",
        opens="tokens",
    )
    _over_time(trace, within, layer=layer, expert=expert)
    companion_panels(trace, layer=layer, expert=expert)
    left, right = st.columns(2, gap="large")
    with left:
        _similar(trace, layer=layer, expert=expert)
    with right:
        knock_out_panel(trace, layer=layer, expert=expert)


def _pick(trace: RoutingTrace, selection: Selection) -> tuple[str, int]:
    """The expert of the page, with what leads to others."""
    asked = state.option("expert")
    found: tuple[tuple[str, int], ...] = ()
    if asked:
        try:
            found = Selection.from_query({"experts": asked}, trace).experts
        except SelectionError as error:
            st.warning(escaped(str(error)), icon=":material/link_off:")
    if not found:
        found = selection.experts
    if not found:
        load = cache.answer(trace, expert_load)
        best = load.argmax(("layer", "expert"), skipna=True) if bool(load.notnull().any()) else {}
        found = (
            ((str(load["layer"].values[int(best["layer"])]), int(best["expert"])),) if best else ((trace.layers[0], 0),)
        )
    layer, expert = found[0]
    sizes = {facts.label: facts.n_experts for facts in trace.layer_facts}

    def go(layer: str, expert: int) -> None:
        state.set_options(expert=state.expert_in_url(layer, min(expert, sizes[layer] - 1)))

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="pick_expert"):
        headings.section(escaped(expert_name(layer, expert, names=trace.expert_names)), width="content")
        with st.container(width=130):
            choices.choose_one(
                "Layer", trace.layers, key="page_layer", chosen=layer, on_change=lambda label: go(label, expert)
            )
        with st.container(width=180):
            choices.choose_one(
                f"Expert · of {sizes[layer]}",
                range(sizes[layer]),
                key="page_expert",
                chosen=expert,
                on_change=lambda number: go(layer, number),
                shown=lambda number: expert_name(layer, number, names=trace.expert_names).removeprefix(f"{layer}·"),
            )
        for label, icon, step in (("Previous expert", "left", -1), ("Next expert", "right", 1)):
            st.button(
                label,
                icon=f":material/chevron_{icon}:",
                key=f"expert_{icon}",
                help=label,
                disabled=not 0 <= expert + step < sizes[layer],
                on_click=go,
                args=(layer, expert + step),
            )
        st.button(
            "Select it",
            icon=":material/filter_alt:",
            key="select_expert",
            help="Makes this expert the selection of all views.",
            disabled=selection.experts == ((layer, expert),),
            on_click=lambda: state.select(replace(selection, experts=((layer, expert),))),
        )
        st.space("stretch")
        definitions_popover(("expert_load", "activation_rate"), key="expert_numbers")
    return layer, expert


def _numbers(trace: RoutingTrace, selection: Selection, within: Selection, *, layer: str, expert: int) -> None:
    facts = trace.layer_facts[trace.layers.index(layer)]
    load = cache.answer(trace, expert_load, within=within).sel(layer=layer).to_numpy()
    rate = float(cache.answer(trace, activation_rate, within=within, by=None).sel(layer=layer, expert=expert))
    share = float(load[expert])
    place = int((load > share).sum()) + 1 if np.isfinite(share) else 0
    cards = [
        ("Load ÷ even share", times(share * facts.n_experts) if np.isfinite(share) else "unknown", "over_fair"),
        ("Share of the layer's work", percent(share), "load"),
        ("Chosen by", f"{percent(rate)} of tokens", "activation_rate"),
        ("Place in its layer", f"{place} of {facts.n_experts}" if place else "unknown", "place"),
    ]
    with st.container(horizontal=True, gap="small", key="expert_numbers"):
        for label, value, column in cards:
            st.metric(label, value, border=True, help=hint(column, within=("expert_load",)))


def _beyond(trace: RoutingTrace, layer: str, expert: int) -> str:
    """What the expert serves beyond chance: tasks, then types of them."""
    n_permutations = 0 if trace.level == "counts" else 1000
    if not n_permutations:
        return ""
    sentences = []
    for over, plural in (("task", "task"), ("task_type", "type of task")):
        special = cache.answer(trace, specialization, over=over, n_permutations=n_permutations)
        if special.sizes["group"] > 1:
            sentences.append(expert_sentences.types_reading(special, layer=layer, expert=expert, over=plural))
    return " ".join(dict.fromkeys(sentences))


def _similar(trace: RoutingTrace, *, layer: str, expert: int) -> None:
    found = similar_experts(trace, layer=layer, expert=expert, lifts=cache.answer(trace, expert_lifts))
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        headings.part("Experts that are used alike", width="stretch")
        definitions_popover(("similar_experts",), key="expert_similar")
        data_popover(lambda: found, key="expert_similar", definitions=("similar_experts",))
    shown = found.head(_SHOWN_SIMILAR)
    lines = []
    for row in shown.itertuples():
        by_weight = "" if pd.isna(row.weight_similarity) else f" · weights alike {row.weight_similarity:.2f}"
        lines.append((str(row.layer), int(row.expert), f"r = {row.similarity:.2f}{by_weight}", bool(row.beats_chance)))
    expert_lines(trace, lines)
    st.markdown(expert_sentences.similar_reading(found))


def _over_time(trace: RoutingTrace, within: Selection, *, layer: str, expert: int) -> None:
    facts = trace.layer_facts[trace.layers.index(layer)]
    run = cache.run_of(trace)
    series = snapshots(cache.runs(), run) if run is not None else ()
    columns = st.columns(2 if series else 1, gap="large")
    with columns[0]:
        table = cache.answer(trace, load_over_run, within=within, layer=layer, expert=expert)
        even = facts.top_k / facts.n_experts
        panel(
            "Its load over the run",
            figures.load_over_run(table, even=even, mode=mode()),
            key="expert_run",
            reading=expert_sentences.run_reading(table, even=even),
            table=lambda: table,
            definitions=("load_over_run",),
        )
    if not series:
        return
    traces = {int(each.step or 0): _read(each) for each in series}
    known = {
        step: float(cache.answer(each, expert_load).sel(layer=layer, expert=expert))
        for step, each in traces.items()
        if each is not None and layer in each.layers and expert < each.n_experts
    }
    if len(known) < 2:
        return
    share = pd.Series(known)
    with columns[1]:
        panel(
            "Its load over training",
            figures.load_over_steps(share, even=1 / facts.n_experts, mode=mode()),
            key="expert_steps",
            reading=expert_sentences.steps_reading(share, even=1 / facts.n_experts),
            table=lambda: share.rename("share").rename_axis("step").reset_index(),
            definitions=("expert_load",),
        )


def _read(run: Run) -> RoutingTrace | None:
    """A snapshot; None where it cannot be read, for the page is not about it."""
    try:
        return cache.trace_of(run)
    except TraceError:
        return None
