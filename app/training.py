"""How routing came to be: panels over the training steps of one model, where snapshots of it were recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from analysis.dynamics import over_training
from app import cache, headings, sentences
from app.panel import empty, mode, panel
from app.runs import snapshots
from figures.lines import training_curves
from routing import RoutingError, RoutingTrace, Selection

__all__ = ["CURVES", "Curve", "training_panels"]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One number of the layers over training.

    Attributes:
        value: column of `over_training`.
        title: of the panel.
        axis: title of its axis, with the unit.
        reference: level to compare with: "even", "zero", or a column of chance levels.
        definition: heading of docs/metrics.md.
    """

    value: str
    title: str
    axis: str
    reference: str
    definition: str


CURVES = {
    curve.value: curve
    for curve in (
        Curve(
            value="saturation",
            title="How settled",
            axis="experts shared with the last step",
            reference="saturation_chance",
            definition="saturation",
        ),
        Curve(
            value="max_over_mean",
            title="How even",
            axis="max ÷ mean load",
            reference="even",
            definition="max_over_mean",
        ),
        Curve(
            value="excess_nats",
            title="How telling",
            axis="information, nats above chance",
            reference="zero",
            definition="task_information",
        ),
    )
}


def training_panels(
    trace: RoutingTrace, *curves: Curve, heading: str, key: str, within: Selection | None = None
) -> None:
    """Draw curves over training side by side; nothing where the run is no snapshot of a series.

    Args:
        trace: one of the snapshots, or a run of the same model.
        curves: what to draw.
        heading: above the panels.
        key: of the charts, unique to the view.
        within: only tasks, prompts and layers of it; all where it is None.
    """
    run = cache.run_of(trace)
    series = snapshots(cache.runs(), run) if run is not None else ()
    if not series:
        return
    headings.section(heading)
    try:
        traces = {str(each.step): cache.trace_of(each) for each in series}
        table = cache.answer_over(traces, training_within, **_parts(within)).reset_index()
    except RoutingError as error:
        st.info(sentences.escaped(str(error)), icon=":material/info:")
        return
    for column, curve in zip(st.columns(len(curves), gap="medium"), curves, strict=True):
        with column:
            _panel(table, curve, key=f"{key}_{curve.value}")


def training_within(
    traces: Mapping[str, RoutingTrace],
    *,
    tasks: tuple[str, ...] = (),
    prompts: tuple[str, ...] = (),
    layers: tuple[str, ...] = (),
) -> pd.DataFrame:
    """As `over_training`, of a part of every trace."""
    part = Selection(tasks=tasks, prompts=prompts, layers=layers)
    return over_training({step: trace.select(part) for step, trace in traces.items()})


def _parts(within: Selection | None) -> dict[str, tuple[str, ...]]:
    if within is None:
        return {}
    parts = {"tasks": within.tasks, "prompts": within.prompts, "layers": within.layers}
    return {name: part for name, part in parts.items() if part}


def _panel(table: pd.DataFrame, curve: Curve, *, key: str) -> None:
    if table[curve.value].isna().all():
        headings.part(curve.title)
        empty(sentences.of_training(table, curve.value), "Clear a task above.")
        return
    level, name = sentences.training_reference(table, curve.reference)
    panel(
        curve.title,
        training_curves(
            table, value=curve.value, value_title=curve.axis, reference=level, reference_name=name, mode=mode()
        ),
        key=key,
        reading=sentences.of_training(table, curve.value),
        table=lambda: table,
        definitions=(curve.definition,),
    )
