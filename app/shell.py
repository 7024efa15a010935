"""The frame around every view: navigation, the header bar, the calm error box."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app import cache, choices, headings, sentences, state, status
from app.chips import selection_chips, selection_tools
from app.components.guide import guide
from app.components.page_watch import page_watch
from app.explain import looking_at
from app.first_paint import SIDEBAR
from app.help import KEYS, tour
from app.links import view_link
from app.panel import mode, panels_shown
from app.recordings import PAGE
from app.recordings.home import recordings_page
from app.recordings.models import found_models
from app.recordings.offers import Offer, offers
from app.recordings.page import offer_to_record_anew, opened, recording_page
from app.runs import RUNS_VARIABLE, Run
from app.share import share_popover
from app.view_list import VIEWS
from app.views.page import View, what_is_missing
from routing import RoutingError, RoutingTrace, Selection

__all__ = ["VIEWS", "main"]

_HERE = Path(__file__).parent


def main() -> None:
    """Draw the app once; Streamlit calls this again at every interaction."""
    st.set_page_config(
        page_title="RouteScope", page_icon=str(_HERE / "icon.png"), layout="wide", initial_sidebar_state=SIDEBAR
    )
    st.html(_HERE / "shell.css")
    context = get_script_run_ctx()
    if context is not None and context.is_history_navigation:
        state.went()
    pages = {
        view.url: st.Page(
            partial(_show, view),
            title=view.title,
            icon=view.icon,
            # The first view is served at the root whatever its name; so that its name leads there, too, see below.
            url_path=view.url if view is not VIEWS[0] else "root",
            default=view is VIEWS[0],
        )
        for view in VIEWS
    }
    # No view: it shows no run, but how one comes to be.
    recordings = st.Page(recordings_page, title="Recordings", icon=":material/radio_button_checked:", url_path=PAGE)
    pages[PAGE] = recordings
    # A reader who knows the names of views types that of the first as well.
    first = VIEWS[0]
    named_so = st.Page(partial(_show, first), title=first.title, icon=first.icon, url_path=first.url)
    chosen = st.navigation([*pages.values(), named_so], position="hidden")
    if going := state.going_to():
        st.switch_page(pages[going[0]], query_params=going[1])
    with st.sidebar:
        with st.container(key="brand"):
            st.markdown("RouteScope")
        for group in dict.fromkeys(view.group for view in VIEWS):
            with st.container(gap="xxsmall", key=f"views_{group.split()[0].lower()}" if group else "views_first"):
                if group:
                    st.caption(group)
                for view in VIEWS:
                    if view.group == group:
                        st.page_link(pages[view.url], query_params=state.link_query(), width="stretch")
                if not group:
                    st.page_link(recordings, query_params=state.link_query(), width="stretch")
        guide(tour(), KEYS)
        page_watch(mode(), page=chosen.url_path, on_went=state.went)
    headings.begin()
    with status.told():
        chosen.run()


def _show(view: View) -> None:
    found = offers(cache.runs(), found_models(), cache.recordings().all())
    if not found:
        _welcome()
        return
    asked = state.option("run")
    offer = opened(next((each for each in found if each.name == asked), found[0]))
    labels = {each.name: each.label for each in found} | {offer.name: offer.label}
    with st.container(key="header", gap="xsmall"):
        bar = st.container(horizontal=True, vertical_alignment="center", gap="xsmall")
        with bar, st.container(width=236):
            choices.choose(
                "Run", list(labels), name="run", shown=labels.__getitem__, kind="select", label_visibility="collapsed"
            )
        # The picker is drawn before the trace is opened: a run that cannot be read must not lock the app.
        chips = st.container()
    if asked not in (None, offer.name):
        none, this = (sentences.escaped(str(name)) for name in (asked, offer.name))
        st.warning(f"There is no run named “{none}” here; this is “{this}”.", icon=":material/link_off:")
    if offer.run is None or offer.is_under_way:
        recording_page(offer)
    else:
        _show_run(view, offer, offer.run, bar=bar, chips=chips)


def _show_run(view: View, offer: Offer, run: Run, *, bar: DeltaGenerator, chips: DeltaGenerator) -> None:
    try:
        trace = cache.trace_of(run)
        looked = state.look(trace)
        with bar:
            _task_filter(trace, looked.selection)
            _layer_filter(trace, looked.selection)
            selection_tools(trace, looked.selection, run=run.name)
            if trace.provenance.note:
                _badge(trace.provenance.note)
        with chips:
            selection_chips(trace, looked.selection)
        if looked.problem:
            problem = sentences.escaped(looked.problem)
            st.warning(f"This link asks for more than the run holds. {problem}", icon=":material/link_off:")
        offer_to_record_anew(offer, trace)
        st.title(view.question, anchor=False)
        if missing := what_is_missing(view, trace):
            st.info(missing, icon=":material/info:")
            return
        with panels_shown() as shown, looking_at(trace, looked.selection):
            view.load()(trace, looked.selection)
        with bar:
            share_popover(trace, shown, name=offer.name, question=view.question, url=view.url)
    except RoutingError as error:
        st.error(sentences.escaped(str(error)), icon=":material/error:")
        for note in getattr(error, "__notes__", ()):
            st.caption(sentences.escaped(note))


def _badge(note: str) -> None:
    synthetic = "synthetic" in note.lower()
    st.badge(
        "synthetic data" if synthetic else "note",
        icon=":material/science:" if synthetic else ":material/sticky_note_2:",
        color="orange" if synthetic else "gray",
        help=sentences.escaped(note),
    )


def _task_filter(trace: RoutingTrace, selection: Selection) -> None:
    n_chosen = len(selection.tasks)
    label = f"Tasks · {n_chosen} of {len(trace.tasks)}" if n_chosen else f"Tasks · all {len(trace.tasks)}"
    by_type: dict[str, list[str]] = {}
    for task, kind in trace.task_types.items():
        by_type.setdefault(kind or "other", []).append(task)
    with st.popover(label, icon=":material/filter_alt:", key="filter_tasks"):
        for kind, tasks in by_type.items():

            def chosen(picked: tuple[str, ...], tasks: list[str] = tasks) -> None:
                # What is selected now: quick clicks on several lists come in one run, after one drawing of the page.
                now = state.look(trace).selection
                together = {*picked, *(task for task in now.tasks if task not in tasks)}
                ordered = tuple(task for task in trace.tasks if task in together)
                state.select(replace(now, tasks=ordered))

            choices.choose_several(kind, tasks, key=f"tasks_{kind}", chosen=selection.tasks, on_change=chosen)


def _layer_filter(trace: RoutingTrace, selection: Selection) -> None:
    n_chosen = len(selection.layers)
    label = f"Layers · {n_chosen} of {len(trace.layers)}" if n_chosen else f"Layers · all {len(trace.layers)}"

    def chosen(picked: tuple[str, ...]) -> None:
        state.select(replace(state.look(trace).selection, layers=picked))

    with st.popover(label, icon=":material/layers:", key="filter_layers"):
        choices.choose_several(
            "Layers",
            trace.layers,
            key="layers",
            chosen=selection.layers,
            on_change=chosen,
            label_visibility="collapsed",
        )


def _welcome() -> None:
    st.title("No run to show yet", anchor=False)
    view_link(PAGE, "Record a model here, with your tasks or the sample tasks", icon=":material/radio_button_checked:")
    st.markdown("Or in a terminal; then reload this page. With the sample model and the sample tasks:")
    st.code("make app", language="bash")
    st.markdown("With a model of your own, from a folder or a hub name:")
    st.code("routescope record MODEL --tasks TASKS --out runs/first", language="bash")
    st.caption(f"Runs are looked for in ./runs, or where {RUNS_VARIABLE} points.")
