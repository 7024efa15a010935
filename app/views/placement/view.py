"""Placement: where should experts live?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from analysis.placement_study import PlacementStudy, placement_what_if
from analysis.placements import Placement
from app import choices, headings, slow_answers, state, status
from app.components.plot_bridge import Click
from app.panel import data_popover, definitions_popover, empty, mode, panel
from app.sentences import count, escaped
from app.views.placement import questions as placement_questions
from app.views.placement import sentences as told
from app.views.placement.capacity import capacity_panels
from app.views.placement.files import download_map
from app.views.placement.imports import imported_maps, of_layers
from figures.comparisons import placement_dots
from figures.placement import device_load_heatmap
from routing import RoutingTrace, Selection, SelectionError

__all__ = ["devices_that_work", "render"]

_WHAT_IF = {"devices": "Experts on devices", "capacity": "A capacity for every expert"}
_BATCHES = ("1", "4", "16", "64")
_USUAL_DEVICES = 8
# Beyond this many decisions a study takes longer than a reader should wait for a page.
_MOST_AT_ONCE = 400_000


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    if trace.n_tokens == 0:
        empty("This run holds no tokens yet.", "Let the recording run on, and reload the page.")
        return
    if trace.dense_routing:
        empty(
            "Every expert of this run is always selected, so devices have even work wherever experts live.",
            "How experts are weighed is on the Routes view.",
        )
        return
    if trace.unit == "prompt":
        empty(
            "The router of this run decides once a prompt, and work is done by token.",
            "Open a run whose router decides for every token to see what devices would do.",
        )
        return
    within = replace(selection, experts=(), focus=None)
    with st.container(horizontal=True, gap="large"):
        what_if = choices.choose("What if there were", list(_WHAT_IF), name="whatif", shown=_WHAT_IF.__getitem__)
        batch_size = choices.choose(
            "Prompts a batch",
            _BATCHES,
            name="batch",
            default="16",
            help="The trace does not keep which prompts ran together, so they are put into batches as they were "
            "recorded. A device waits for the busiest one of every pass.",
        )
    try:
        # One leaves the page before the other comes: together they would push each other about.
        places = {each: st.container(key=f"of_{each}") if each == what_if else st.empty() for each in _WHAT_IF}
        with places[what_if]:
            if what_if == "capacity":
                capacity_panels(trace, selection, batch_size=int(batch_size))
            else:
                _devices(trace, selection, within, batch_size=int(batch_size))
    except SelectionError as error:
        empty(escaped(str(error)), "")


def devices_that_work(trace: RoutingTrace) -> list[int]:
    """Numbers of devices that divide the experts of every layer; where none does, those up to the fewest experts."""
    n_experts = [facts.n_experts for facts in trace.layer_facts]
    together = math.gcd(*n_experts)
    dividing = [number for number in range(2, together + 1) if together % number == 0]
    return dividing or list(range(2, min(n_experts) + 1))


def _devices(trace: RoutingTrace, selection: Selection, within: Selection, *, batch_size: int) -> None:
    narrowed = trace.select(within)
    possible = devices_that_work(narrowed)
    if not possible:
        empty("A layer of this run has a single expert, which leaves nothing to place.", "Choose other layers above.")
        return
    n_devices, n_nodes, n_redundant, imported = _controls(trace, narrowed, possible)
    options = {"n_devices": n_devices, "n_nodes": n_nodes, "n_redundant": n_redundant, "batch_size": batch_size}
    tables = slow_answers.tables(
        trace,
        placement_questions.placement_tables,
        what="Placements are being judged",
        slow=slow_answers.cells_to_scan(trace) > _MOST_AT_ONCE,
        within=within,
        **options,
    )
    if tables is None:
        return
    study = placement_questions.study_of_tables(tables)
    if imported:
        study = _with_imported(narrowed, study, imported, options=options)
    measures = study.table
    advice = told.of_advice(measures, n_devices=n_devices, n_nodes=n_nodes, batch_size=batch_size)
    with st.container(border=True, key="placement_advice"):
        st.markdown(advice)
        if alone := told.of_single_experts(tables["bounds"], n_devices=n_devices, names=trace.expert_names):
            st.markdown(alone)
    if measures.xs("judged", level="part")["slowdown_bound"].isna().all():
        return
    left, right = st.columns([5, 6], gap="large")
    with left:
        _measure(measures, n_nodes=n_nodes)
    with right:
        _all_measures(measures, n_nodes=n_nodes)
    _loads(trace, narrowed, selection, study, whole=len(narrowed.layers) == len(trace.layers))


def _controls(
    trace: RoutingTrace, narrowed: RoutingTrace, possible: list[int]
) -> tuple[int, int, int, list[Placement]]:
    usual = max((each for each in possible if each <= _USUAL_DEVICES), default=possible[0])
    with st.container(horizontal=True, gap="large", vertical_alignment="bottom"):
        n_devices = _number("Devices", possible, name="devices", default=usual, help="That divide the experts.")
        nodes = [each for each in range(1, n_devices + 1) if n_devices % each == 0]
        n_nodes = _number("Nodes", nodes, name="nodes", default=1, help="Devices of a node are near each other.")
        redundant = [times * n_devices for times in (0, 1, 2, 4) if times * n_devices <= narrowed.n_experts]
        n_redundant = _number(
            "Redundant slots",
            redundant,
            name="redundant",
            default=0,
            help="For copies of busy experts, as many on every device; they take memory.",
        )
        imported = imported_maps(trace, n_devices=n_devices, n_nodes=n_nodes)
    return n_devices, n_nodes, n_redundant, imported


def _number(label: str, possible: list[int], *, name: str, default: int, help: str) -> int:  # noqa: A002
    few = len(possible) <= 5
    with st.container(width="content" if few else 130):
        return choices.choose(
            label, possible, name=name, default=default, kind="segmented" if few else "select", help=help
        )


def _with_imported(
    narrowed: RoutingTrace, study: PlacementStudy, imported: list[Placement], *, options: dict[str, Any]
) -> PlacementStudy:
    """The study with the reader's own maps judged as the others are; nothing of them leaves the session."""
    own = [of_layers(each, narrowed.layers) for each in imported]
    key = (narrowed.digest, *sorted(options.items()), *((each.name, str(each.to_json())) for each in own))

    def judged() -> PlacementStudy:
        with status.doing("Judging your maps"):
            return placement_what_if(narrowed, imported=own, n_random=0, **options)

    found = state.remembered("imported_placements", key, judged)
    for each in own:
        if (each.n_devices, each.n_nodes) != (options["n_devices"], options["n_nodes"]):
            st.caption(
                f"{escaped(each.name)} says itself that it is for {each.n_devices} devices on {each.n_nodes} nodes, "
                "and is judged so."
            )
    return placement_questions.with_imported(study, found, [each.name for each in own])


def _measures(n_nodes: int) -> list[str]:
    between = ("sends_per_token", "nodes_per_token", "leaving_share")
    return [name for name in told.MEASURES if n_nodes > 1 or name not in between]


def _measure(measures: pd.DataFrame, *, n_nodes: int) -> None:
    known = _measures(n_nodes)
    measure = choices.chosen("measure", known)
    panel(
        "On unseen prompts",
        placement_dots(
            measures.rename(index=told.shown_name, level="placement"),
            measure=measure,
            value_title=told.MEASURES[measure][1],
            mode=mode(),
        ),
        key="placement_dots",
        reading=told.of_measure(measures, measure),
        table=lambda: measures.reset_index(),
        definitions=(
            "placement_what_if",
            "expert_bound",
            "linear_placement",
            "balanced_placement",
            "coactivated_placement",
        ),
        controls=lambda: choices.choose(
            "Measure",
            known,
            name="measure",
            kind="select",
            shown=lambda each: told.MEASURES[each][0],
            label_visibility="collapsed",
        ),
    )


def _all_measures(measures: pd.DataFrame, *, n_nodes: int) -> None:
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        headings.part("Every measure, with its interval", width="stretch")
        definitions_popover(("placement_what_if",), key="placement_table")
        data_popover(lambda: measures.reset_index(), key="placement_table", definitions=("placement_what_if",))
    st.dataframe(told.table_of(measures, _measures(n_nodes)), height="content")
    n_batches = measures.attrs["n_batches"]
    sure = "; 95\N{NO-BREAK SPACE}% intervals from drawing batches again" if n_batches > 1 else ", so no interval"
    st.caption(
        f"Unseen prompts, {count(n_batches, 'batch', plural='batches')}{sure}. "
        "Bounds and worst pass: lower is better, 1 is even. Balancedness: higher is better, 1 is even."
    )


def _loads(
    trace: RoutingTrace, narrowed: RoutingTrace, selection: Selection, study: PlacementStudy, *, whole: bool
) -> None:
    names = [name for name in study.placements if name != "linear"]
    best = told.advised(study.table)
    shown = choices.chosen("map", names, default=best if best in names else names[0])
    loads = {name: study.device_load.sel(placement=name) for name in ("linear", shown)}
    choices.choose(
        "Map beside the linear one",
        names,
        name="map",
        default=best if best in names else names[0],
        shown=told.shown_name,
        kind="segmented" if len(names) <= 5 else "select",
    )
    for column, (name, load) in zip(st.columns(2, gap="large"), loads.items(), strict=True):
        placement = study.placements[name]

        def clicked(click: Click, placement: Placement = placement) -> None:
            layer = placement.layers[round(click.y)]
            a_device = placement.n_slots // placement.n_devices
            held = placement.slots_LS[round(click.y), round(click.x) * a_device :][:a_device]
            experts = tuple((layer, int(each)) for each in dict.fromkeys(held.tolist()) if each >= 0)
            state.select(replace(selection, experts=() if selection.experts == experts else experts))

        with column:
            panel(
                f"Load of every device, {escaped(told.shown_name(name))}",
                device_load_heatmap(
                    load,
                    slots=placement.slots_LS,
                    beside=list(loads.values()),
                    names=trace.expert_names,
                    mode=mode(),
                ),
                key="placement_load_linear" if name == "linear" else "placement_load",
                reading=told.of_devices(load, name=name) + " Click a cell to select the experts that live there.",
                table=lambda load=load: load.to_dataframe(name="load").dropna().reset_index(),  # type: ignore[misc]
                definitions=("placement_what_if",),
                on_click=clicked,
            )
    headings.part(f"Take the {escaped(told.shown_name(shown))} map along")
    download_map(study.placements[shown], narrowed, whole=whole)
