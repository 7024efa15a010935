"""Parts of the Load view beside the load itself: passes, places in the text, causes, the course of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from analysis.overload import overload_tasks, overload_tokens
from app import cache, choices, slow_answers, state
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.sentences import escaped
from app.views.load import questions as load_questions
from app.views.load import sentences as told
from figures.comparisons import contribution_dots, pass_ranges
from figures.curves import convergence_curve, pass_dots, position_curves
from figures.load_scales import scale_dots
from routing import RoutingTrace, Selection, expert_name

__all__ = ["BATCHES", "PARTS", "batch_size", "causes", "course", "passes", "places"]

PARTS = {
    "experts": "Experts",
    "passes": "Batches and passes",
    "places": "Places and scales",
    "causes": "Causes",
    "run": "Course of the run",
}
BATCHES = ("1", "4", "16", "64")
_ORDERS = {"recorded": "as recorded", "shuffled": "at random", "task": "by task"}
_MOST_AT_ONCE = 250_000
_FEW = 12


def batch_size() -> int:
    """Prompts a batch, from the address."""
    return int(choices.chosen("batch", BATCHES, default="16"))


def passes(trace: RoutingTrace, selection: Selection, *, balance: pd.DataFrame) -> None:
    """Draw the usual and the worst pass of each layer, and every pass of one of them."""
    order = choices.chosen("order", list(_ORDERS))
    tables = _tables(
        trace,
        selection,
        load_questions.pass_tables,
        what="Passes are being laid down",
        batch_size=batch_size(),
        order=order,
    )
    if tables is None:
        return
    ranges = tables["ranges"].set_index(["phase", "layer"])
    phases = list(dict.fromkeys(str(phase) for phase in ranges.index.get_level_values("phase")))
    if not phases:
        empty("No pass of this selection routed a token.", "Clear a task or a layer above.")
        return
    with st.container(horizontal=True, gap="large"):
        _batch_control()
        choices.choose("Prompts are batched", list(_ORDERS), name="order", shown=_ORDERS.__getitem__)
        phase = phases[0]
        if len(phases) > 1:
            phase = choices.choose("Passes that", phases, name="phase", shown=lambda each: _READS.get(each, each))
    layer = _layer(selection, list(balance.index), balance=balance)
    left, right = st.columns(2, gap="large")
    with left:
        here = ranges.loc[phase]
        panel(
            "The usual pass and the worst",
            pass_ranges(here, mode=mode()),
            key="load_passes",
            reading=told.of_worst(here, order=order),
            table=lambda: tables["ranges"],
            definitions=("worst_passes",),
        )
    with right:
        every = tables["passes"].set_index(["pass", "layer"]).xs(layer, level="layer")
        batch_of = every["batch"].to_dict()
        members = tables["prompts"]

        def clicked(click: Click) -> None:
            data = click.customdata
            if isinstance(data, (list, tuple)) and int(data[0]) in batch_of:
                prompts = members.loc[members["batch"] == batch_of[int(data[0])], "prompt"]
                state.select(replace(selection, prompts=tuple(prompts.astype(str)), focus=None))

        panel(
            f"Every pass of {escaped(layer)}",
            pass_dots(every, mode=mode()),
            key="load_every_pass",
            reading=told.of_passes(every, layer=layer),
            table=lambda: tables["passes"],
            definitions=("pass_load",),
            on_click=clicked,
        )


_READS = {"prompt": "read prompts", "generated": "write answers"}


def places(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the balance by position, and in one text, a batch and the run."""
    tables = _tables(
        trace, selection, load_questions.scale_tables, what="Positions are being compared", batch_size=batch_size()
    )
    if tables is None:
        return
    with st.container(horizontal=True, gap="large"):
        _batch_control()
    left, right = st.columns(2, gap="large")
    positions = tables["positions"]
    with left:
        order = list(dict.fromkeys(positions["position"]))
        layers = list(dict.fromkeys(positions["layer"]))
        labelled = positions.set_index(["position", "layer"]).to_xarray().reindex(position=order, layer=layers)
        panel(
            "Balance by position in the text",
            position_curves(labelled, value_title="busiest expert ÷ mean", mode=mode()),
            key="load_positions",
            reading=told.of_positions(positions),
            table=lambda: positions,
            definitions=("load_by_position", "max_over_mean"),
        )
    with right:
        scales = tables["scales"].set_index(["scale", "layer"])
        panel(
            "One text, one batch, the whole run",
            scale_dots(scales, mode=mode()),
            key="load_scales",
            reading=told.of_scales(tables["scales"], batch_size=batch_size()),
            table=lambda: tables["scales"],
            definitions=("balance_scales",),
        )


def causes(trace: RoutingTrace, selection: Selection, *, balance: pd.DataFrame, threshold: float) -> None:
    """Draw which tasks, and which tokens, bring the surplus of a layer's busiest expert."""
    within = replace(selection, experts=(), focus=None)
    layer = _layer(selection, list(balance.index), balance=balance)
    table = cache.answer(trace, overload_tasks, within=within).loc[layer]
    table = table[table["contribution"].notna()].sort_values("contribution", ascending=False, kind="stable")
    if table.empty:
        empty(f"{escaped(layer)} is perfectly even, or routed nothing of this selection.", "Choose another layer.")
        return
    name = escaped(expert_name(layer, int(table["expert"].iloc[0]), names=trace.expert_names))
    tasks = [str(task) for task in table.index]

    def clicked(click: Click) -> None:
        task = (tasks[round(click.y)],)
        state.select(replace(selection, tasks=() if selection.tasks == task else task))

    left, right = st.columns(2, gap="large")
    with left:
        panel(
            f"Who overloads {name}, by task",
            contribution_dots(table, mode=mode()),
            key="load_cause_tasks",
            reading=told.of_tasks(
                table,
                layer=layer,
                names=trace.expert_names,
                factor=float(balance.loc[layer, "max_over_mean"]),
                threshold=threshold,
            ),
            table=lambda: table.reset_index(),
            definitions=("overload_tasks",),
            on_click=clicked,
        )
    with right:
        if trace.level == "counts" or trace.unit == "prompt":
            empty(
                "Which tokens bring the work is not told by this run.",
                "It takes a run whose router decides for every token, recorded at level `assignments` or `full`.",
            )
            return
        tokens = cache.answer(trace, overload_tokens, within=within, layer=layer)
        panel(
            f"Who overloads {name}, by token",
            contribution_dots(tokens, mode=mode()),
            key="load_cause_tokens",
            reading=told.of_tokens(tokens),
            table=lambda: tokens,
            definitions=("overload_tokens",),
        )


def course(trace: RoutingTrace, selection: Selection, *, balance: pd.DataFrame) -> None:
    """Draw how the load of a layer came to be while the run was recorded."""
    tables = _tables(trace, selection, load_questions.convergence_tables, what="The run is being retraced")
    if tables is None:
        return
    layer = _layer(selection, list(balance.index), balance=balance)
    table = tables["convergence"].set_index(["layer", "n_prompts"])
    if layer not in table.index.get_level_values("layer"):
        empty("No prompt of this selection was routed.", "Clear a task or a layer above.")
        return
    here = table.loc[layer]
    panel(
        f"How far the load of {escaped(layer)} still was from where it ended",
        convergence_curve(here, mode=mode()),
        key="load_convergence",
        reading=told.of_convergence(here, layer=layer),
        table=lambda: tables["convergence"],
        definitions=("load_convergence",),
    )


def _tables(
    trace: RoutingTrace,
    selection: Selection,
    function: Callable[..., load_questions.Tables],
    *,
    what: str,
    **options: object,
) -> load_questions.Tables | None:
    if trace.level == "counts":
        empty(
            "This run holds counts per task only, not which tokens went together.",
            "Record it with `--level assignments` or `--level full` to see this part.",
        )
        return None
    return slow_answers.tables(
        trace,
        function,
        what=what,
        slow=slow_answers.cells_to_scan(trace) > _MOST_AT_ONCE,
        within=replace(selection, experts=(), focus=None),
        **options,
    )


def _batch_control() -> None:
    choices.choose(
        "Prompts a batch",
        BATCHES,
        name="batch",
        default="16",
        help="The trace does not keep which prompts ran together, so they are put into batches anew.",
    )


def _layer(selection: Selection, layers: Sequence[str], *, balance: pd.DataFrame) -> str:
    """The layer to look into: of the picked expert, else as chosen, else the least even one."""
    picked = [layer for layer, _ in selection.experts if layer in layers]
    worst = picked[0] if picked else str(balance["max_over_mean"].idxmax())
    few = len(layers) <= _FEW
    common: dict[str, Any] = {"name": "layer", "default": worst}
    if few:
        return choices.choose("Layer", layers, **common)
    with st.container(width=160):
        return choices.choose("Layer", layers, kind="select", **common)
