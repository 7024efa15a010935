"""Compare: what changed between two runs?"""

from __future__ import annotations

import streamlit as st

from app import cache, choices, headings
from app.links import tell_lost_run
from app.panel import definitions_popover, empty
from app.runs import Run, snapshots
from app.sentences import escaped
from app.training import CURVES, training_panels
from app.views.compare import pairing as comparing
from app.views.compare import sentences as told
from app.views.compare.answers import Sides, answers
from app.views.compare.panels import (
    balance_panels,
    distance_panel,
    information_panels,
    routing_panels,
    score_panel,
    use_panel,
)
from app.views.compare.prompts import prompt_panels
from routing import RoutingTrace, Selection, TraceError

__all__ = ["render"]

_NO_RUN = "choose a run"
# Two points make a line whatever happened between them.
_FEWEST_SNAPSHOTS = 3


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    run = cache.run_of(trace)
    other = _picked(run)
    if other is not None:
        _compare(trace, selection, run=run, other=other)
    if run is not None and len(snapshots(cache.runs(), run)) >= _FEWEST_SNAPSHOTS:
        training_panels(
            trace,
            *CURVES.values(),
            heading="The whole way: the same prompts over training",
            key="compare",
            within=selection,
        )


def _picked(run: Run | None) -> Run | None:
    """The run to compare with: the one that the URL names, else the snapshot before this one."""
    labels = comparing.other_runs(cache.runs(), run)
    if not labels:
        empty("This is the only run here.", "Record another one, of the same prompts, to compare the two.")
        return None
    tell_lost_run("other")
    known = run is not None and bool(snapshots(cache.runs(), run))
    names = [*labels] if known else [_NO_RUN, *labels]
    with st.container(width=420):
        name = choices.choose(
            "Compared with", names, name="other", shown=lambda each: labels.get(each, each), kind="select"
        )
    if name == _NO_RUN:
        empty("Another run says what changed.", "Choose a checkpoint, a precision, an engine or a twin above.")
        return None
    return next(each for each in cache.runs() if each.name == name)


def _compare(trace: RoutingTrace, selection: Selection, *, run: Run | None, other: Run) -> None:
    try:
        there = cache.trace_of(other)
    except TraceError as error:
        st.warning(escaped(str(error)), icon=":material/error:")
        return
    kin = "unknown" if run is None else comparing.kin(cache.runs(), run, other, traces=(trace, there))
    steps = [None if kin != "snapshots" or each is None else each.step for each in (run, other)]
    # A snapshot may be compared with a later one; what came first in training stands first.
    is_first = steps[0] is not None and steps[1] is not None and steps[0] < steps[1]
    names = [
        f"step {step:,}" if step is not None else name
        for step, name in zip(steps, ("this run", other.name), strict=True)
    ]
    pair, names = ((trace, there), names) if is_first else ((there, trace), names[::-1])
    found = cache.answer_over(
        dict(zip(("before", "after"), pair, strict=True)),
        comparing.comparison,
        tasks=selection.tasks,
        prompts=selection.prompts,
        layers=selection.layers,
    )
    counts = "counts" in (trace.level, there.level)
    ground = told.of_ground(
        found, names=(names[0], names[1]), n_layers=(pair[0].n_layers, pair[1].n_layers), counts=counts
    )
    if found.beside is None:
        empty(ground, "")
        return
    tables = answers((pair[0], pair[1]), selection, found)
    if tables is None:
        return
    first = (run if is_first else other) or other
    sides = Sides(
        trace=trace,
        selection=selection,
        other=other.name,
        names=(names[0], names[1]),
        here=0 if is_first else 1,
        found=found,
        untrained=kin == "snapshots" and first.step == 0,
        answered=tables,
    )
    _draw(sides, kin, ground, counts=counts)


def _draw(sides: Sides, kin: comparing.Kin, ground: str, *, counts: bool) -> None:
    by_number = _ground(sides, kin, ground, counts=counts)
    of_tokens = by_number and sides.found.over == "tokens"
    if of_tokens and routing_panels(sides):
        left, right = st.columns(2, gap="large")
        with left:
            use_panel(sides)
        with right:
            score_panel(sides)
        prompt_panels(sides)
    elif of_tokens:
        score_panel(sides)
    elif by_number:
        distance_panel(sides)
    _whatever_the_numbers(sides, counts=counts, scores=not of_tokens and bool(sides.found.ground.prompts))


def _ground(sides: Sides, kin: comparing.Kin, ground: str, *, counts: bool) -> bool:
    """Say what can be compared; give whether experts are, by their numbers."""
    if sides.found.matched is None or counts:
        st.markdown(ground)
        return False
    table = None if kin != "unknown" else sides.ask(comparing.numbering)
    shared = table is None or float(table.attrs["p_value"]) <= told.SHARED_FROM
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        st.markdown(f"{ground} {told.of_numbers(kin, table, names=sides.names)}", width="stretch")
        definitions_popover(("common_ground", "expert_numbering"), key="compare_ground")
    if shared:
        return True
    return choices.toggle(
        "Compare by number all the same",
        name="numbers",
        help="For twins that began alike, say. What is shown then holds of numbers, not of experts that do the same.",
    )


def _whatever_the_numbers(sides: Sides, *, counts: bool, scores: bool) -> None:
    """Draw what can be compared of any two runs; scores, too, where they were not shown before."""
    headings.section("Whatever the experts' numbers")
    panels = [*([score_panel] if scores else []), *([] if counts else [information_panels]), balance_panels]
    if sides.found.matched is None:
        for draw in panels:
            draw(sides)
        return
    for first in range(0, len(panels), 2):
        for column, draw in zip(st.columns(2, gap="large"), panels[first : first + 2], strict=False):
            with column:
                draw(sides)
