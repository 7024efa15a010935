"""Causes: what breaks when an expert is gone?"""

from __future__ import annotations

import shlex
from dataclasses import replace

import streamlit as st

from app import cache, choices, headings, state
from app.components.plot_bridge import Click
from app.links import view_link
from app.panel import empty, mode, panel
from app.sentences import escaped
from app.views.causes import sentences as told
from app.views.causes.making import filled_in, making, watched
from app.views.causes.panels import effects_panel, exchange_panel
from app.views.causes.studies_shown import (
    KnockOutStudy,
    called,
    decision_rows,
    double_rows,
    effect_rows,
    knock_outs,
    measures_of,
    runner_up,
    shown_groups,
    studied_runs,
)
from figures.effects import effect_dots
from routing import RoutingTrace, Selection

__all__ = ["render"]

_MOST_ROWS = 48
_EVERY_SET = "all sets"


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    if trace.n_tokens == 0:
        empty("This run holds no tokens yet.", "Let the recording run on, and reload the page.")
        return
    sites = () if trace.adapters is None else trace.adapters.sites
    retrieves = bool(sites) and not any(site.made_from == "selected_set" for site in sites)
    if retrieves:
        # What is retrieved stands for no expert that could be gone.
        exchange_panel(trace)
        return
    # Read anew at each run: a study may end while the page is open, and its tables are small.
    studies = knock_outs(trace)
    is_made = watched(trace)
    if studies:
        _study(trace, selection, studies)
        with st.expander("Ask the model for more", expanded=False):
            making(trace, selection, is_made=is_made)
    else:
        st.markdown(
            "Nobody has taken experts out of this run's model yet. A knock-out makes experts unselectable, has the "
            "model answer the prompts again, and compares what they lose with what random experts of the same layers "
            "and like load cost."
        )
        for name in studied_runs(trace, cache.runs()):
            view_link("causes", f"What was found with {escaped(name)}, of the same model", run=name)
        making(trace, selection, is_made=is_made)
    _runner_up(trace, selection)
    if sites:
        effects_panel(trace)


def _study(trace: RoutingTrace, selection: Selection, studies: list[KnockOutStudy]) -> None:
    by_name = {each.name: each for each in studies}
    study = studies[0]
    if len(studies) > 1:
        with st.container(width=560):
            name = choices.choose(
                "Study", list(by_name), name="study", shown=lambda each: told.of_study(by_name[each]), kind="select"
            )
        study = by_name[name]
    else:
        st.caption(told.of_study(study))
    _effects(trace, selection, study)
    if len(study.double):
        _double(study)


def _effects(trace: RoutingTrace, selection: Selection, study: KnockOutStudy) -> None:
    measures = {each.name: each for each in measures_of(study)}
    measure = measures[choices.chosen("measure", list(measures))]
    grains = ["type", "task"] if study.over == "task_type" and study.by_task is not None else []
    by_task = bool(grains) and choices.chosen("by", grains) == "task"
    whole = study.by_task if by_task and study.by_task is not None else study.effects
    table = shown_groups(trace, whole, tasks=selection.tasks)
    names = list(study.sets)
    too_many = len(table) + len(names) > _MOST_ROWS and len(names) > 1
    some = names if too_many else [_EVERY_SET, *names]
    shown = choices.chosen("set", some)
    sets = names if shown == _EVERY_SET else [shown]
    called_so = {name: called(trace, study, name) for name in names}
    table = table[table["set"].isin(sets)]

    def clicked(click: Click) -> None:
        if click.customdata and click.customdata[0] in study.sets:
            experts = study.sets[click.customdata[0]]
            state.select(replace(selection, experts=() if selection.experts == experts else experts))

    def controls() -> None:
        with st.container(horizontal=True, gap="large", vertical_alignment="bottom"):
            if len(measures) > 1:
                choices.choose("Measure", list(measures), name="measure")
            if grains:
                choices.choose("Prompts by", grains, name="by")
            if len(names) > 1:
                with st.container(width=420):
                    choices.choose(
                        "Taken out",
                        some,
                        name="set",
                        kind="select",
                        shown=lambda each: called_so.get(each, each),
                    )

    panel(
        "What each group of prompts loses without these experts",
        effect_dots(
            effect_rows(trace, study, table, measure, sets=sets),
            value_title=measure.title,
            mode=mode(),
        ),
        key="causes_effects",
        reading=told.of_knock_outs(table, measure, serves=study.serves, called=called_so)
        + told.of_loads(study, sets=sets, called=called_so)
        + " Click a dot to select its experts.",
        table=lambda: table,
        definitions=("knock_out",),
        on_click=clicked,
        controls=controls,
    )


def _double(study: KnockOutStudy) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        panel(
            "Do the sets come apart?",
            effect_dots(double_rows(study), value_title="own less other, both sets (nats a token)", mode=mode()),
            key="causes_double",
            reading=told.of_double(study.double),
            table=lambda: study.double,
            definitions=("knock_out",),
        )
    with right:
        headings.part("The four changes behind each pair")
        st.dataframe(
            study.double[["a", "b", "a_on_a", "a_on_b", "b_on_b", "b_on_a"]],
            hide_index=True,
            column_config={
                f"{one}_on_{where}": st.column_config.NumberColumn(
                    f"{one} on {where}",
                    format="%+.3f",
                    help=f"Change of the loss of {where}'s prompts without {one}'s experts, nats a token",
                )
                for one in "ab"
                for where in "ab"
            },
        )


def _runner_up(trace: RoutingTrace, selection: Selection) -> None:
    found = runner_up(trace)
    headings.section("Single decisions")
    if found is None:
        if trace.unit == "prompt" or len(trace.stacks) > 1:
            st.markdown("Single decisions are changed in models that read and write in one stack of layers.")
            return
        st.markdown(
            "Would the runner-up have served the token as well? This changes a sample of decisions one at a time, and "
            "keeps the result beside the run:"
        )
        command = f"routescope runner-up {shlex.quote(str(trace.path))}{filled_in(trace)}"
        st.code(command, language="bash", wrap_lines=True)
        return
    decisions, layers = found
    layers = layers[layers["layer"].isin(selection.layers or trace.layers)]
    if layers.empty:
        empty("No decision of these layers was changed.", "Clear the layer filter.")
        return
    decisions = decisions[decisions["layer"].isin(layers["layer"])]
    panel(
        "What the runner-up in place of the last selected expert costs",
        effect_dots(decision_rows(layers), value_title="change of the loss at the next token (nats)", mode=mode()),
        key="causes_runner_up",
        reading=told.of_runner_up(decisions, layers),
        table=lambda: layers,
        definitions=("runner_up_regret",),
    )
