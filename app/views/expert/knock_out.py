"""What breaks when an expert is gone: knock-outs that were run on the model, or how to run one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from analysis.stored_studies import stored_studies
from app import headings
from app.panel import data_popover, definitions_popover
from app.sentences import and_list, count, escaped
from app.studies.asked import KnockOutRequest
from routing import RoutingTrace, expert_name

__all__ = ["effects_of", "knock_out_panel", "knock_out_reading"]

_COLUMNS = ("set", "group", "n_prompts", "nll_change", "low", "high", "random_mean", "p_value")


def knock_out_panel(trace: RoutingTrace, *, layer: str, expert: int) -> None:
    """Draw what the model lost without an expert, where somebody knocked it out.

    Args:
        trace: the trace.
        layer: label of the layer.
        expert: number of the expert.
    """
    # Read anew at each run: a study may end while the page is open, and its tables are small.
    tables = [study.tables for study in stored_studies(trace, name="knock-out")]
    found = effects_of(tables, layer=layer, expert=expert)
    name = expert_name(layer, expert, names=trace.expert_names)
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        headings.part("What breaks without it", width="stretch")
        if not found.empty:
            definitions_popover(("knock_out",), key="expert_knock_out")
            data_popover(lambda: found, key="expert_knock_out", definitions=("knock_out",))
    if found.empty:
        st.markdown(f"Nobody has knocked {escaped(name)} out yet. With the model at hand:")
        request = KnockOutRequest(trace=str(trace.path or "RUN"), experts=(expert_name(layer, expert),))
        st.code(request.command(), language="bash", wrap_lines=True)
        return
    st.dataframe(
        found,
        hide_index=True,
        height=min(360, 38 + 35 * len(found)),
        column_config={
            "set": st.column_config.TextColumn("taken out"),
            "group": st.column_config.TextColumn("prompts"),
            "n_prompts": st.column_config.NumberColumn("n"),
            "nll_change": st.column_config.NumberColumn("nll change (nats)", format="%.3f"),
            "low": st.column_config.NumberColumn("95 % from", format="%.3f"),
            "high": st.column_config.NumberColumn("to", format="%.3f"),
            "random_mean": st.column_config.NumberColumn("random sets", format="%.3f"),
            "p_value": st.column_config.NumberColumn("p", format="%.3f"),
        },
    )
    st.markdown(knock_out_reading(found, name=name))


def effects_of(studies: list, *, layer: str, expert: int) -> pd.DataFrame:
    """Effects of the sets that hold an expert, those that take out the fewest others first.

    Args:
        studies: tables "sets" and "effects" of each knock-out.
        layer: label of the layer.
        expert: number of the expert.

    Returns:
        (row) · set, n_experts, group, n_prompts, nll_change, low, high, random_mean, p_value.
    """
    parts = []
    for tables in studies:
        sets, effects = tables.get("sets"), tables.get("effects")
        if sets is None or effects is None:
            continue
        chosen = sets[sets["random"] == 0]
        holding = chosen[(chosen["layer"] == layer) & (chosen["expert"] == expert)]["set"].unique()
        sizes = chosen.groupby("set").size()
        part = effects[effects["set"].isin(holding)].reindex(columns=list(_COLUMNS))
        parts.append(part.assign(n_experts=part["set"].map(sizes)))
    if not parts:
        return pd.DataFrame(columns=["n_experts", *_COLUMNS])
    found = pd.concat(parts, ignore_index=True)
    return found.sort_values("n_experts", kind="stable").reset_index(drop=True)


def knock_out_reading(found: pd.DataFrame, *, name: str) -> str:
    """Whether the loss goes beyond that of random experts of like load, and for which prompts.

    Args:
        found: of `effects_of`, at least one row.
        name: of the expert.
    """
    first = found[found["set"] == found["set"].iloc[0]]
    others = int(first["n_experts"].iloc[0]) - 1
    who = escaped(name) if not others else f"{escaped(name)} and {count(others, 'other')}"
    everyone = first[first["group"] == "all"]
    row = (everyone if len(everyone) else first).iloc[0]
    text = f"Without {who} the targets cost {row['nll_change']:+.3f} nats a token"
    if np.isfinite(row["random_mean"]):
        text += f", without random experts of like load {row['random_mean']:+.3f} on average"
    if np.isfinite(row["p_value"]):
        beyond = row["p_value"] <= 0.05
        text += f": {'more' if beyond else 'no more'} than chance (p = {row['p_value']:.3f})"
    groups = first[(first["group"] != "all") & (first["p_value"] <= 0.05) & (first["nll_change"] > 0)]
    named = [escaped(str(group)) for group in groups.sort_values("nll_change", ascending=False)["group"]]
    return text + (f". Most hurt beyond chance: {and_list(named)}." if named else ".")
