"""Decisions that were lost, and decisions that could as well have been others."""

from __future__ import annotations

import numpy as np

from analysis.findings.finding import Family, Finding, beyond, interval, p_text
from analysis.runners_up import near_ties
from routing.errors import TraceError
from routing.selection import Selection
from routing.trace import RoutingTrace

__all__ = ["close_calls", "dropped"]

MOST_DROPPED = 0.01
MOST_TIED = 0.25
TIE = 0.01


def dropped(trace: RoutingTrace, *, seed: int) -> Family | None:  # noqa: ARG001 (families are asked alike)
    """One question a layer: did its capacity drop more than a hundredth of the assignments?"""
    if trace.level == "counts" or trace.dropped is None:
        return None
    shape = (trace.n_prompts, trace.n_layers)
    lost_PL, made_PL = np.zeros(shape), np.zeros(shape)
    top_k_L = np.array([facts.top_k for facts in trace.layer_facts])
    for chunk in trace.chunks(fields=("experts", "dropped")):
        if chunk.experts is None or chunk.dropped is None:
            return None
        width = chunk.dropped.shape[2]
        there = (chunk.experts[:, :, :width] != trace.absent) & (np.arange(width) < top_k_L[:, None])
        np.add.at(made_PL, chunk.prompt, there.sum(axis=2))
        np.add.at(lost_PL, chunk.prompt, (there & chunk.dropped).sum(axis=2))
    made_L, lost_L = made_PL.sum(axis=0), lost_PL.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate_L = lost_L / made_L
        # Ratio of sums over prompts.
        n = max(2, trace.n_prompts)
        error_L = np.sqrt(((lost_PL - rate_L * made_PL) ** 2).sum(axis=0) * n / (n - 1)) / made_L
    low_L, high_L = np.maximum(rate_L - 1.96 * error_L, 0.0), rate_L + 1.96 * error_L
    capped = np.array([facts.capacity is not None for facts in trace.layer_facts]) | (lost_L > 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor_L = np.exp(1.96 * error_L / rate_L)
        p_L = beyond(rate_L, rate_L / factor_L, rate_L * factor_L, limit=MOST_DROPPED)
    p_L = np.where(capped, np.nan_to_num(p_L, nan=1.0), np.nan)
    candidates = []
    for layer, label in enumerate(trace.layers):
        if capped[layer] and low_L[layer] > MOST_DROPPED:
            finding = Finding(
                kind="dropped",
                sentence=(
                    f"{label} dropped {rate_L[layer]:.1%} [{low_L[layer]:.1%}, {high_L[layer]:.1%}] of its "
                    f"{int(made_L[layer]):,} assignments, for its experts were full."
                ),
                effect=float(rate_L[layer]),
                effect_low=float(low_L[layer]),
                effect_high=float(high_L[layer]),
                unit="share of assignments",
                strength=float(low_L[layer]),
                p_value=float(p_L[layer]),
                uncertainty=f"95 % interval over prompts; p {p_text(p_L[layer])} against {MOST_DROPPED:.0%}",
                view="load",
                selection_query=Selection(layers=(label,)).to_query(),
            )
            candidates.append((layer, finding))
    return Family(kind="dropped", p_values=p_L, candidates=candidates)


def close_calls(trace: RoutingTrace, *, seed: int) -> Family | None:  # noqa: ARG001 (families are asked alike)
    """One question a layer: was more than a quarter of its choices as good as a tie?"""
    # A hundredth of a score is much where many experts share a score of one.
    tie = min(TIE, 0.1 / max(1, trace.n_experts))
    try:
        table = near_ties(trace, at_most=tie, by=None)
    except TraceError:
        # No scores, no runners-up: nothing is known of what came second.
        return None
    share, low, high = (table[name].to_numpy(float) for name in ("share", "share_low", "share_high"))
    known = np.isfinite(share)
    p = np.where(known, np.nan_to_num(beyond(share, low, high, limit=MOST_TIED), nan=1.0), np.nan)
    over = np.flatnonzero(known & (low > MOST_TIED))
    if not len(over):
        return Family(kind="close_calls", p_values=p, candidates=())
    at = int(over[np.argmax(share[over])])
    finding = Finding(
        kind="close_calls",
        sentence=(
            f"In {trace.layers[at]}, {share[at]:.0%}{interval(100 * low[at], 100 * high[at], digits=0)} of the choices "
            f"were as good as a tie: the last one selected and the first one left out differ by at most {tie:.2g} of "
            f"a score; more than {MOST_TIED:.0%} in {len(over)} of {len(share)} layers."
        ),
        effect=float(share[at]),
        effect_low=float(low[at]),
        effect_high=float(high[at]),
        unit="share of choices",
        # How decided a router is belongs to the layer; what single experts do is said before it.
        strength=0.5 * float(low[at]),
        p_value=float(p[at]),
        uncertainty=f"95 % interval over prompts; p {p_text(p[at])} against {MOST_TIED:.0%}",
        view="unselected",
        selection_query={},
        options={"tie": f"{tie:.5g}"},
    )
    return Family(kind="close_calls", p_values=p, candidates=((at, finding),))
