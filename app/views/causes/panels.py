"""Panels of what interventions on a run's model came to, or how to make them."""

from __future__ import annotations

import shlex

import numpy as np
import streamlit as st

from analysis.prototypes import exchange_relation
from app import headings
from app.panel import mode, panel
from app.views.causes.stored import (
    OVERRIDES,
    exchanged_prototypes,
    of_effects,
    of_exchange,
    of_exchange_relation,
    selection_effects,
)
from figures.bars import task_bars
from figures.grid import ColorScale
from figures.square import matrix_heatmap
from figures.theme import NUMBER_TICKS
from routing import RoutingTrace

__all__ = ["effects_panel", "exchange_panel"]


def effects_panel(trace: RoutingTrace) -> None:
    """Draw what replacing the selection embedding does to the loss."""
    title = "Does the model use its selection embeddings?"
    found = selection_effects(trace)
    if found is None:
        _how_to(title, trace, "evaluates the model with each embedding replaced, and keeps the result beside the run.")
        return
    group = next(name for name in ("group", "task", "task_type") if name in found)
    whole = found[found[group] == "all"].set_index("override")
    shown = whole.rename(columns={"nll_change": "value", "low": "value_low", "high": "value_high"})
    shown = shown.loc[[name for name in OVERRIDES if name in shown.index]].rename(index=OVERRIDES)
    panel(
        title,
        task_bars(
            shown,
            value_title="change of the loss (nats a token)",
            task_types=dict.fromkeys(shown.index, "put in its place"),
            value_format="+.3f",
            mode=mode(),
        ),
        key="unselected_effects",
        reading=of_effects(whole),
        table=lambda: found,
        definitions=("selection_embedding_effects",),
    )


def exchange_panel(trace: RoutingTrace) -> None:
    """Draw what running each task with every task's prototype does to the loss."""
    title = "What does a foreign prototype cost?"
    found = exchanged_prototypes(trace)
    if found is None:
        _how_to(title, trace, "runs every task with every task's prototype, and keeps the result beside the run.")
        return
    values = found.change.to_numpy(float)
    limit = max(1e-6, float(np.nanquantile(np.abs(values), 0.98)))
    panel(
        title,
        matrix_heatmap(
            values,
            rows=[str(name) for name in found.change.index],
            columns=[str(name) for name in found.change.columns],
            scale=ColorScale(
                title="nats a token", low=-limit, high=limit, diverging=True, tick_format=f"+{NUMBER_TICKS}"
            ),
            value_text="%{z:+.3f} nats a token against the own prototype",
            row_title="prompts of",
            column_title="prototype of",
            row_types=trace.task_types,
            mode=mode(),
        ),
        key="adapters_exchange",
        reading=f"{of_exchange(found)} {of_exchange_relation(exchange_relation(trace, found.change))}".strip(),
        table=lambda: found.tasks,
        definitions=("prototype_exchange", "exchange_relation"),
    )


def _how_to(title: str, trace: RoutingTrace, what: str) -> None:
    headings.part(title)
    st.markdown(f"Nobody has asked the model of this run. This {what}")
    st.code(f"routescope intervene {shlex.quote(str(trace.path))}", language="bash")
