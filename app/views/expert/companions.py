"""Experts that work together with one, and those that would take its place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st
import xarray as xr

from analysis.coactivation import coactivation
from analysis.runners_up import runner_up_matrix
from app import cache, headings
from app.links import expert_link
from app.panel import data_popover, definitions_popover
from app.sentences import escaped, percent, times
from app.views.expert import sentences as expert_sentences
from routing import RoutingTrace, expert_name

__all__ = ["companion_panels", "expert_lines"]

_SHOWN = 6


def companion_panels(trace: RoutingTrace, *, layer: str, expert: int) -> None:
    """Draw who is chosen with an expert, who would come in for it, and for whom it would.

    Args:
        trace: the trace.
        layer: label of its layer.
        expert: its number.
    """
    facts = trace.layer_facts[trace.layers.index(layer)]
    name = expert_name(layer, expert, names=trace.expert_names)
    together, stands_in, stood_in = st.columns(3, gap="large")
    with together:
        if facts.top_k < 2 or trace.dense_routing:
            _none(
                "Works together with", "Each token of this layer selects one expert or all, so none works with another."
            )
        else:
            pairs = cache.answer(trace, coactivation).sel(layer=layer, expert=expert)
            found = _table(trace, pairs, layer=layer, share="rate", dim="other")
            _panel(
                trace, "Works together with", found, name=name, what="go with", key="together", source="coactivation"
            )
    if trace.n_ranks <= facts.top_k or facts.n_experts < 2:
        with stands_in:
            _none("Who would take its place", "This run holds no runners-up: record it with `--runners-up 4`.")
        return
    matrix = cache.answer(trace, runner_up_matrix, layer=layer)
    with stands_in:
        found = _table(trace, matrix.sel(expert=expert), layer=layer, share="share", dim="runner_up")
        _panel(
            trace,
            "Comes next where it is selected",
            found,
            name=name,
            what="stand behind",
            key="next",
            source="runner_up_matrix",
        )
    with stood_in:
        column = matrix.sel(runner_up=expert)
        # A token in which it comes next is counted once for each expert that the token selects.
        came_next = max(1.0, float(column["n_tokens"].sum()) / facts.top_k)
        column = column.assign(share=column["n_tokens"] / came_next)
        found = _table(trace, column, layer=layer, share="share", dim="expert")
        _panel(
            trace,
            "Is selected where it comes next",
            found,
            name=name,
            what="stand before",
            where="of the tokens where it comes next",
            key="before",
            source="runner_up_matrix",
        )


def _table(trace: RoutingTrace, row: xr.Dataset, *, layer: str, share: str, dim: str) -> pd.DataFrame:
    """Other experts, those that beat chance first, then by how many tokens they share with it."""
    found = pd.DataFrame(
        {
            "other": row[dim].to_numpy(),
            "share": row[share].to_numpy(),
            "lift": row["lift"].to_numpy(),
            "q_value": row["q_value"].to_numpy(),
            "significant": row["significant"].to_numpy().astype(bool) & (row["lift"].to_numpy() > 0),
        }
    )
    found = found[np.isfinite(found["share"]) & (found["share"] > 0)]
    found["name"] = [expert_name(layer, int(each), names=trace.expert_names) for each in found["other"]]
    return found.sort_values(["significant", "share"], ascending=False, kind="stable").reset_index(drop=True)


def _panel(
    trace: RoutingTrace,
    title: str,
    found: pd.DataFrame,
    *,
    name: str,
    what: str,
    where: str = "of its tokens",
    key: str,
    source: str,
) -> None:
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        headings.part(title, width="stretch")
        definitions_popover((source,), key=f"expert_{key}")
        data_popover(lambda: found, key=f"expert_{key}", definitions=(source,))
    layer = name.partition("·")[0]
    expert_lines(
        trace,
        [
            (layer, int(row.other), f"{percent(row.share)} · {times(float(np.exp2(row.lift)))} chance", row.significant)
            for row in found.head(_SHOWN).itertuples()
        ],
    )
    st.markdown(expert_sentences.companions_reading(found, name=name, what=what, where=where))


def _none(title: str, sentence: str) -> None:
    headings.part(title)
    st.markdown(sentence)


def expert_lines(trace: RoutingTrace, lines: Sequence[tuple[str, int, str, bool]]) -> None:
    """Draw a line an expert: a link to its page, a number, and whether it beats chance.

    Args:
        trace: that holds them.
        lines: layer, expert, what is said of it, whether it is beyond chance.
    """
    for layer, expert, text, sure in lines:
        with st.container(horizontal=True, wrap=False, gap="small", vertical_alignment="center"):
            with st.container(width=105):
                expert_link(trace, layer, expert, label=escaped(expert_name(layer, expert, names=trace.expert_names)))
            st.markdown(f"{text}" if sure else f":gray[{text} · perhaps chance]")
