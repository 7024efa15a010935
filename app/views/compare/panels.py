"""Panels of the Compare view: what two runs of the same tokens did otherwise, and what no expert's number enters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from analysis.information import task_information
from analysis.load import load_balance
from app import cache, headings, sentences, state
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.views.compare import change_sentences
from app.views.compare import pairing as comparing
from app.views.compare import sentences as told
from app.views.compare.answers import Sides
from figures.comparisons import churn_dots, difference_dots
from figures.curves import rank_curves
from figures.dots import interval_dots
from figures.lines import Track, layer_tracks
from figures.pieces import plotly_text
from figures.theme import PERCENT_TICKS
from routing import RoutingTrace

__all__ = [
    "balance_panels",
    "distance_panel",
    "information_panels",
    "routing_panels",
    "score_panel",
    "use_panel",
]

_TRACKS = (
    Track(column="max_over_mean", title="max ÷ mean load"),
    Track(column="entropy_normalized", title="normalized entropy (1 = even)", number_format=".3f"),
)
_SHOWN = 16


def routing_panels(sides: Sides) -> bool:
    """Draw what became of each token's experts; return whether anything changed."""
    if any(trace.dense_routing for trace in sides.matched.values()):
        table = sides.ask(comparing.overlap)
        panel(
            "Weight that both runs give to the same experts",
            cache.picture(
                _share_dots,
                [str(layer) for layer in table.index],
                {"same experts": (table["saturation"].to_numpy(float), None, None)},
                value_title="share of the weight",
                marks={"with another row": table["chance"].to_numpy(float)},
                number_format=".1%",
                mode=mode(),
            ),
            key="compare_overlap",
            reading=told.of_overlap(table, names=sides.names),
            table=table.reset_index,
            definitions=("saturation",),
        )
        return bool((table["saturation"] < 1 - 1e-3).any())
    changed = sides.ask(comparing.layer_churn)
    kept = sides.ask(comparing.kept_by_rank)
    if not changed["any_changed"].any():
        st.markdown(told.of_churn(changed, names=sides.names, unit=sides.trace.unit))
        return False
    left, right = st.columns(2, gap="large")
    with left:
        panel(
            "How much the routing changed",
            cache.picture(churn_dots, changed, mode=mode()),
            key="compare_churn",
            reading=told.of_churn(changed, names=sides.names, unit=sides.trace.unit),
            table=changed.reset_index,
            definitions=("churn",),
            on_click=_picks_layer(sides, [str(layer) for layer in changed.index]),
        )
    with right:
        panel(
            f"What {sentences.escaped(sides.names[0])} had already selected",
            cache.picture(rank_curves, kept, mode=mode()),
            key="compare_kept",
            reading=told.of_kept(kept, names=sides.names),
            table=kept.reset_index,
            definitions=("saturation_by_rank",),
        )
    return True


def use_panel(sides: Sides) -> None:
    """Draw which experts the same prompts use more, or less."""
    table = sides.ask(comparing.changes_of_use)
    shown = table.head(_SHOWN)

    def clicked(click: Click) -> None:
        row = round(click.y)
        if 0 <= row < len(shown):
            expert = (str(shown["layer"].iloc[row]), int(shown["expert"].iloc[row]))
            same = sides.selection.experts == (expert,)
            state.select(replace(sides.selection, experts=() if same else (expert,)))

    panel(
        "Experts used otherwise",
        cache.picture(difference_dots, shown, one=sides.names[1], other=sides.names[0], n_shown=_SHOWN, mode=mode()),
        key="compare_use",
        reading=told.of_use(table, names=sides.names, expert_names=sides.trace.expert_names)
        + told.of_picked(table, sides.selection.experts, names=sides.names, expert_names=sides.trace.expert_names)
        + " Filled is beyond chance; click a dot to pick that expert.",
        table=lambda: table,
        definitions=("paired_differential",),
        on_click=clicked,
    )


def score_panel(sides: Sides) -> None:
    """Draw whose answers got better or worse."""
    table = cache.answer_over(_beside(sides), comparing.changes_of_scores)
    if table is None:
        headings.part("Whose answers changed")
        empty("No prompt has a score in both runs.", "Record both over tasks with targets to see what changed.")
        return
    ordered = table.sort_values("difference", ascending=False, kind="stable")
    tasks = [str(task) for task in ordered.index]

    def clicked(click: Click) -> None:
        task = tasks[round(click.y)]
        state.select(replace(sides.selection, tasks=() if sides.selection.tasks == (task,) else (task,)))

    middle, low, high = (ordered[f"difference{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    panel(
        "Whose answers changed",
        cache.picture(
            interval_dots,
            tasks,
            {"difference": (middle, low, high)},
            value_title=f"mean score of {plotly_text(sides.names[1])} − {plotly_text(sides.names[0])}",
            strong=(ordered["q_value"] <= 0.05).to_numpy(bool),
            zero_line=True,
            number_format="+.2f",
            mode=mode(),
        ),
        key="compare_scores",
        reading=change_sentences.of_scores(table, names=sides.names),
        table=table.reset_index,
        definitions=("score_changes",),
        on_click=clicked,
    )


def distance_panel(sides: Sides) -> None:
    """Draw how far the loads of two runs of different tokens are apart."""
    table = sides.ask(comparing.distances)
    panel(
        "How differently the layers are loaded",
        cache.picture(
            _dots_from_zero,
            [str(layer) for layer in table.index],
            {"distance of the loads": (table["js_bits"].to_numpy(float), None, None)},
            value_title="Jensen–Shannon divergence (bits)",
            marks={"95 % of prompts dealt at random": table["null_95"].to_numpy(float)},
            strong=(table["q_value"] <= 0.05).to_numpy(bool),
            mode=mode(),
        ),
        key="compare_distance",
        reading=told.of_distances(table, names=sides.names),
        table=table.reset_index,
        definitions=("routing_distance",),
        on_click=_picks_layer(sides, [str(layer) for layer in table.index]),
    )


def information_panels(sides: Sides) -> None:
    """Draw what experts of both runs tell about the task: side by side where layers match, else run by run."""
    if sides.found.matched is None:
        for column, name, trace in zip(st.columns(2, gap="large"), sides.names, _pair(sides), strict=True):
            with column:
                _information_alone(name, trace)
        return
    table = sides.ask(comparing.information)
    if table[["share", "share_control"]].isna().all(axis=None):
        headings.part("What experts tell about the task")
        empty(told.of_information(table, names=sides.names, untrained=sides.untrained), "Clear a task above.")
        return
    before, after = (table[name].to_numpy(float) for name in ("share_control", "share"))
    panel(
        "What experts tell about the task",
        cache.picture(
            _share_dots,
            [str(layer) for layer in table.index],
            {sides.names[1]: (after, None, None), sides.names[0]: (before, None, None)},
            value_title="share of what there is to know, beyond chance",
            strong=((table["gain_low"] > 0) | (table["gain_high"] < 0)).to_numpy(bool),
            number_format=".1%",
            mode=mode(),
        ),
        key="compare_information",
        reading=told.of_information(table, names=sides.names, untrained=sides.untrained),
        table=table.reset_index,
        definitions=("against_control", "task_information"),
        on_click=_picks_layer(sides, [str(layer) for layer in table.index]),
    )


def _information_alone(name: str, trace: RoutingTrace) -> None:
    table = cache.answer(trace, task_information, phase="prompt", n_permutations=200)
    known = table.dropna(subset=["share"])
    panel(
        f"What experts of {sentences.escaped(name)} tell about the task",
        cache.picture(
            _share_dots,
            [str(layer) for layer in table.index],
            {"share": (table["share"].to_numpy(float), None, None)},
            value_title="share of what there is to know, beyond chance",
            strong=(table["p_value"] <= 0.05).to_numpy(bool),
            number_format=".1%",
            mode=mode(),
        ),
        key=f"compare_information_{trace.digest[:8]}",
        reading=told.of_information_alone(known),
        table=table.reset_index,
        definitions=("task_information",),
    )


def balance_panels(sides: Sides) -> None:
    """Draw how even the layers of both runs are."""
    here, there = _pair(sides)[sides.here], _pair(sides)[1 - sides.here]
    name = sides.names[1 - sides.here]
    mine, theirs = (cache.answer(trace, load_balance) for trace in (here, there))
    if sides.found.matched is None:
        for column, each, table in zip(
            st.columns(2, gap="large"), (sides.names[sides.here], name), (mine, theirs), strict=True
        ):
            with column:
                panel(
                    f"How even the layers of {sentences.escaped(each)} are",
                    cache.picture(layer_tracks, table, _TRACKS, mode=mode()),
                    key=f"compare_balance_{'here' if table is mine else 'there'}",
                    reading=sentences.of_balance(table, threshold=1.5),
                    table=table.reset_index,
                    definitions=("load_balance", "max_over_mean"),
                )
        return
    panel(
        "How even the layers are",
        cache.picture(layer_tracks, mine, _TRACKS, other=theirs, names=(sides.names[sides.here], name), mode=mode()),
        key="compare_balance",
        reading=sentences.of_comparison(mine, theirs, name=name),
        table=lambda: pd.concat({sides.names[sides.here]: mine, name: theirs}, names=["run", "layer"]).reset_index(),
        definitions=("load_balance", "max_over_mean"),
    )


def _share_dots(*things: Any, **options: Any) -> go.Figure:
    return interval_dots(*things, **options).update_layout(xaxis_tickformat=PERCENT_TICKS)


def _dots_from_zero(*things: Any, **options: Any) -> go.Figure:
    return interval_dots(*things, **options).update_layout(xaxis_rangemode="tozero")


def _pair(sides: Sides) -> tuple[RoutingTrace, RoutingTrace]:
    assert sides.found.beside is not None
    return sides.found.beside if sides.found.matched is None else sides.found.matched


def _beside(sides: Sides) -> dict[str, RoutingTrace]:
    assert sides.found.beside is not None
    return dict(zip(("before", "after"), sides.found.beside, strict=True))


def _picks_layer(sides: Sides, layers: list[str]) -> Callable[[Click], None]:
    def clicked(click: Click) -> None:
        layer = layers[round(click.y)]
        same = sides.selection.layers == (layer,)
        state.select(replace(sides.selection, layers=() if same else (layer,)))

    return clicked
