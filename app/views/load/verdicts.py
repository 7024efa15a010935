"""Is the load healthy? The checks of a run, each with its way to what it saw."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import streamlit as st

from app import slow_answers, state
from app.panel import data_popover, definitions_popover, keep_for_report
from app.report.parts import Panel
from app.sentences import escaped
from app.views.load import questions as load_questions
from app.views.load.sentences import of_all_verdicts, of_verdicts
from routing import RoutingTrace, Selection

__all__ = ["verdicts"]

_MOST_AT_ONCE = 250_000
_BADGES = {"act": ("act", "red"), "watch": ("watch", "orange"), "good": ("well", "green"), "unknown": ("?", "gray")}
_CHECKS = {
    "busiest": "Busiest expert",
    "idle": "Idle experts",
    "passes": "Batches",
    "capacity": "Capacity",
    "drift": "Drift",
    "length": "Length of the run",
}
# Which part of the view shows what a check looked at.
_PARTS = {"busiest": "causes", "passes": "passes", "drift": "run"}


def verdicts(trace: RoutingTrace, selection: Selection, *, batch_size: int) -> None:
    """Draw what the checks say, worst first.

    Args:
        trace: the trace.
        selection: what the user looks at.
        batch_size: prompts a batch.
    """
    tables = slow_answers.tables(
        trace,
        load_questions.verdict_tables,
        what="The load is being checked",
        slow=slow_answers.cells_to_scan(trace) > _MOST_AT_ONCE,
        within=replace(selection, experts=(), focus=None),
        batch_size=batch_size,
    )
    if tables is None or tables["verdicts"].empty:
        return
    found = tables["verdicts"]
    keep_for_report(
        Panel(
            title="Is the load healthy?",
            figure=None,
            reading=of_all_verdicts(found),
            table=lambda: found.drop(columns="query"),
            definitions=("load_health",),
            key="load_health",
        )
    )
    with st.container(border=True, key="load_verdicts", gap="xsmall"):
        with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
            st.markdown(of_verdicts(found), width="stretch")
            with st.popover("Thresholds", icon=":material/rule:", type="tertiary", width="content"):
                for row in found.itertuples():
                    st.markdown(f"**{_CHECKS[row.check]}**: {escaped(row.threshold)}. {escaped(row.reason)}")
            definitions_popover(("load_health",), key="load_health")
            data_popover(lambda: found.drop(columns="query"), key="load_health", definitions=("load_health",))
        for row in found[found["level"] != "good"].itertuples():
            _line(selection, row)
        well = found[found["level"] == "good"]
        if len(well):
            st.caption(" ".join(f":green[:material/check:] {escaped(sentence)}" for sentence in well["sentence"]))


def _line(selection: Selection, row: Any) -> None:
    text, color = _BADGES[row.level]
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        with st.container(width=64):
            st.badge(text, color=color)
        st.markdown(escaped(row.sentence), width="stretch")
        st.button(
            "Look",
            icon=":material/arrow_forward:",
            type="tertiary",
            key=f"verdict_{row.check}",
            on_click=_look,
            args=(selection, row.check, row.query),
            help="Show what this check looked at.",
        )


def _look(selection: Selection, check: str, query: str) -> None:
    """Open what a check looked at; its layer becomes the one that is shown, other layers stay."""
    layer = json.loads(query).get("layers", "").split(",")[0] or None
    if check == "capacity":
        state.go_to("placement", selection, whatif="capacity", layer=layer)
    else:
        state.select(replace(selection, experts=()), part=_PARTS.get(check), layer=layer)
