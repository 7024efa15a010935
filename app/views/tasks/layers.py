"""Layer by layer: what routing tells of the task, whether it would be found again, and whether it was learned."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from analysis.information import task_information
from analysis.reliability import against_control
from app import cache, choices, headings, slow_answers
from app.panel import empty, mode, panel
from app.runs import Run, snapshots
from app.sentences import escaped
from app.views.tasks.part import layers_of, narrowed
from app.views.tasks.questions import halves
from app.views.tasks.structure_sentences import of_halves, of_information, of_training_control
from figures.dots import interval_dots
from figures.theme import PERCENT_TICKS
from routing import RoutingTrace, Selection, TraceError

__all__ = ["draw_layers", "gain_over_control"]

_NOUNS = {"task": "task", "task_type": "type"}
_OVER_NAMES = {"task": "the task", "task_type": "its type"}


def draw_layers(trace: RoutingTrace, selection: Selection) -> None:
    """Draw what each layer tells of the task, what an earlier run tells, and how alike halves of the prompts are."""
    if trace.level == "counts":
        empty("This run holds counts only, and chance is judged by prompts.", "Record it at level `assignments`.")
        return
    over = choices.choose("What routing tells of", tuple(_NOUNS), name="over", shown=_OVER_NAMES.__getitem__)
    within = narrowed(selection)
    layers = layers_of(trace, selection)
    told = cache.answer(trace, task_information, within=within, over=over)
    _information(told.loc[layers], noun=_NOUNS[over])
    _control(trace, over=over, layers=layers)
    found = slow_answers.tables(trace, halves, what="Prompts are dealt to halves", slow=True, within=within, over=over)
    if found is not None:
        _halves(found["layers"].set_index("layer").loc[layers], noun=_NOUNS[over])


def gain_over_control(traces: Mapping[str, RoutingTrace], *, over: str) -> pd.DataFrame:
    """`against_control` of the run "now" and the run "control"."""
    return against_control(traces["now"], traces["control"], over=over)  # type: ignore[arg-type]


def _information(table: pd.DataFrame, *, noun: str) -> None:
    if not table["information_nats"].notna().any():
        empty("No token of this selection was routed.", "Select other tasks, layers or prompts.")
        return
    tested = bool(table["null_95"].notna().any())
    panel(
        f"How much each layer tells of the {noun}",
        interval_dots(
            [str(layer) for layer in table.index],
            {"this run": (table["information_nats"].to_numpy(float), None, None)},
            value_title=f"information on the {noun}, nats",
            marks={"permuted prompts, 95 %": table["null_95"].to_numpy(float)} if tested else None,
            number_format=".2f",
            mode=mode(),
        ).update_layout(xaxis_rangemode="tozero"),
        key="tasks_information",
        reading=of_information(table, noun=noun),
        table=lambda: table.reset_index(),
        definitions=("task_information",),
    )


def _control(trace: RoutingTrace, *, over: str, layers: list[str]) -> None:
    earlier = _earlier(trace)
    if not earlier:
        return
    called = {step: _called(step) for step in earlier}
    step = choices.chosen("control", tuple(earlier))
    try:
        traces = {"now": trace, "control": cache.trace_of(earlier[step])}
        table = cache.answer_over(traces, gain_over_control, over=over)
    except TraceError as error:
        st.info(escaped(str(error)), icon=":material/info:")
        return
    shown = table.loc[layers]
    groups = len(trace.tasks) if over == "task" else len(set(trace.task_types.values()))
    exists = trace.expert_exists.sel(layer=layers)
    panel(
        "Was that learned?",
        interval_dots(
            [str(layer) for layer in shown.index],
            {
                "this run": (shown["share"].to_numpy(float), None, None),
                called[step]: (shown["share_control"].to_numpy(float), None, None),
            },
            value_title=f"share of what there is to know about the {_NOUNS[over]}, beyond permuted prompts",
            zero_line=True,
            number_format=".1%",
            mode=mode(),
        ).update_layout(xaxis_tickformat=PERCENT_TICKS),
        key="tasks_control",
        reading=of_training_control(shown, control=called[step], noun=_NOUNS[over], n_cells=groups * int(exists.sum())),
        table=lambda: shown.reset_index(),
        definitions=("against_control", "task_information"),
        controls=lambda: _choose_control(called),
    )


def _choose_control(called: Mapping[str, str]) -> None:
    with st.container(width=240):
        choices.choose("Compared with", tuple(called), name="control", shown=called.__getitem__, kind="select")


def _earlier(trace: RoutingTrace) -> dict[str, Run]:
    """Earlier snapshots of the same model by their step, the earliest first."""
    run = cache.run_of(trace)
    if run is None:
        return {}
    found = [each for each in snapshots(cache.runs(), run) if each.path != run.path]
    return {str(each.step): each for each in found if run.step is None or (each.step or 0) < run.step}


def _called(step: str) -> str:
    return "step 0 (untrained)" if step == "0" else f"step {int(step):,}"


def _halves(table: pd.DataFrame, *, noun: str) -> None:
    if not table["rho"].notna().any():
        headings.part("Would other prompts say the same?")
        st.markdown(of_halves(table, noun=noun))
        return
    tested = bool(table["null_95"].notna().any())
    ends = (table["rho_low"].to_numpy(float), table["rho_high"].to_numpy(float))
    panel(
        "Would other prompts say the same?",
        interval_dots(
            [str(layer) for layer in table.index],
            {"halves of the prompts": (table["rho"].to_numpy(float), *ends)},
            value_title="rank correlation between halves; bars: least and most of ten deals",
            marks={f"{noun}s dealt at random, 95 %": table["null_95"].to_numpy(float)} if tested else None,
            zero_line=True,
            number_format=".2f",
            mode=mode(),
        ),
        key="tasks_halves",
        reading=of_halves(table, noun=noun),
        table=lambda: table.reset_index(),
        definitions=("split_half",),
    )
