"""Pairs of experts that work on the same tokens far more than their loads would have it."""

from __future__ import annotations

import numpy as np

from analysis.coactivation import coactivation
from analysis.findings.finding import Family, Finding, interval, p_text
from routing.selection import Selection, expert_name
from routing.trace import RoutingTrace

__all__ = ["working_together"]


def working_together(trace: RoutingTrace, *, seed: int) -> Family | None:
    """One question a pair of experts of a layer; one sentence a layer, about its closest pair."""
    if trace.level == "counts" or not trace.n_tokens or trace.dense_routing or trace.top_k < 2:
        return None
    table = coactivation(trace, seed=seed)
    # Each pair stands twice in the table and is one question.
    upper = np.triu(np.ones((trace.n_experts, trace.n_experts), bool), 1)
    p_LEE = np.where(upper, table["p_value"].values, np.nan)
    if not np.isfinite(p_LEE).any():
        return None
    lift, low, high = (table[name].values for name in ("lift", "lift_low", "lift_high"))
    floor = np.log2(1.5)
    candidates = []
    for layer, label in enumerate(trace.layers):
        sure = np.where(upper & np.isfinite(p_LEE[layer]) & (lift[layer] >= floor), low[layer], -np.inf)
        one, other = (int(each) for each in np.unravel_index(np.argmax(sure), sure.shape))
        if not sure[one, other] > 0:
            continue
        ratio, ends = 2 ** lift[layer, one, other], (2 ** low[layer, one, other], 2 ** high[layer, one, other])
        n_tokens = int(table["n_together"].values[layer, one, other])
        p = float(p_LEE[layer, one, other])
        first, second = (expert_name(label, each, names=trace.expert_names) for each in (one, other))
        finding = Finding(
            kind="together",
            sentence=(
                f"{first} and {second} work together: {n_tokens:,} {trace.unit}s select both, {ratio:.1f} "
                f"times{interval(*ends)} as many as their loads alone would bring together."
            ),
            effect=float(ratio),
            effect_low=float(ends[0]),
            effect_high=float(ends[1]),
            unit="times the tokens expected of their loads",
            # Togetherness often is what a common task makes of two specialists, which is then said first.
            strength=0.5 * (1 - 1 / float(ends[0])),
            p_value=p,
            uncertainty=(
                f"95 % interval from blocks of prompts left out; p {p_text(p)} against a draw that keeps both loads "
                "and never selects an expert twice"
            ),
            view="together",
            selection_query=Selection(experts=((label, one), (label, other))).to_query(),
            options={"part": "pairs", "layer": label},
        )
        candidates.append((int(np.ravel_multi_index((layer, one, other), p_LEE.shape)), finding))
    return Family(kind="together", p_values=p_LEE.ravel(), candidates=candidates)
