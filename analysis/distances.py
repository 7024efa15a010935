"""How far two sets of prompts are routed apart: distances of loads, against prompts dealt to the two at random.

Legend: P prompt, L layer, E expert, R permutation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.nulls import p_value, q_values
from analysis.rates import draws_of_prompts, prompt_rates
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["routing_distance"]


def routing_distance(
    one: RoutingTrace, other: RoutingTrace, *, n_permutations: int = 500, seed: int = 0
) -> pd.DataFrame:
    """How different the loads of two traces are, layer by layer, whatever their tokens.

    Loads are means over prompts of their shares. `js_bits`: Jensen–Shannon divergence, 0 the same to 1 disjoint;
    `total_variation`: share of assignments that would have to move. The null deals prompts to the two traces at random:
    where both hold the same prompts, each prompt's two routings change sides together or not; else all prompts are
    dealt, those of a task that both hold among that task. `excess_bits` = js_bits − mean of the null.

    Args:
        one: a trace, or a selection of one.
        other: another one, with the same layers.
        n_permutations: deals for the null; 0 for none.
        seed: of the deals.

    Returns:
        (layer) · js_bits, total_variation, null_mean, null_95, excess_bits, p_value, q_value, n_one, n_other · bits,
        share of assignments, prompts · 0 to 1; NaN where a side routed nothing.

    Raises:
        TraceError: a trace holds counts only, or layers or numbers of experts differ.

    References:
        Lin 1991 (Jensen–Shannon divergence).
    """
    mine, theirs = ([(each.label, each.n_experts) for each in trace.layer_facts] for trace in (one, other))
    if mine != theirs:
        msg = (
            f"The two traces have the layers (with experts) {mine} and {theirs}. "
            "Compare traces of models with the same routers, or select the layers that both have."
        )
        raise TraceError(msg)
    n_permutations = draws_of_prompts(one, n_permutations)
    ids = tuple(trace.prompts["prompt"].to_numpy(dtype=str) for trace in (one, other))
    paired = len(ids[0]) == len(ids[1]) and set(ids[0]) == set(ids[1])
    rng = np.random.default_rng(seed)
    shares = [_shares(trace) for trace in (one, other)]
    if paired:
        shares[1] = shares[1][_order_like(ids[0], ids[1])]
    rows = []
    tasks = tuple(trace.prompts["task"].to_numpy(dtype=str) for trace in (one, other))
    for layer, facts in enumerate(one.layer_facts):
        pair = [each[:, layer, : facts.n_experts] for each in shares]
        there = [np.isfinite(each).all(axis=1) for each in pair]
        if paired:
            there = [there[0] & there[1]] * 2
        pair = [each[known] for each, known in zip(pair, there, strict=True)]
        n = [len(each) for each in pair]
        row = dict.fromkeys(("js_bits", "total_variation", "null_mean", "null_95", "excess_bits", "p_value"), np.nan)
        if min(n):
            row["js_bits"], row["total_variation"] = _distances(pair[0].mean(axis=0), pair[1].mean(axis=0))
        if min(n) and n_permutations and sum(n) > 2:
            groups = np.concatenate([names[known] for names, known in zip(tasks, there, strict=True)])
            null = _null(pair, groups, paired=paired, n_permutations=n_permutations, rng=rng)
            row |= {"null_mean": null.mean(), "null_95": np.quantile(null, 0.95)}
            row["excess_bits"] = row["js_bits"] - row["null_mean"]
            row["p_value"] = float(p_value(int((null >= row["js_bits"] - 1e-12).sum()), n_permutations=n_permutations))
        rows.append(row | {"n_one": n[0], "n_other": n[1]})
    frame = pd.DataFrame(rows, index=pd.Index(list(one.layers), name="layer"))
    frame.insert(6, "q_value", q_values(frame["p_value"].to_numpy()))
    frame.attrs["unit"] = {
        **dict.fromkeys(("js_bits", "null_mean", "null_95", "excess_bits"), "bits"),
        "total_variation": "share of assignments",
        "p_value": "probability",
        "q_value": "false-discovery rate",
        "n_one": "prompts",
        "n_other": "prompts",
    }
    return frame


def _shares(trace: RoutingTrace) -> np.ndarray:
    """(P, L, E) a prompt's share of assignments; NaN where the layer routed none of it."""
    found = np.full((trace.n_prompts, trace.n_layers, trace.n_experts), np.nan)
    for block in prompt_rates(trace):
        total = np.nansum(block.rate_PLE, axis=2, keepdims=True)
        found[:, block.layers] = block.rate_PLE / np.where(total > 0, total, np.nan)
    return found


def _order_like(wanted: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Places in `given` of the ids in `wanted`, which are the same ids."""
    line_up = np.argsort(given, kind="stable")
    found: np.ndarray = line_up[np.searchsorted(given[line_up], wanted)]
    return found


def _distances(one_E: np.ndarray, other_E: np.ndarray) -> tuple[float, float]:
    middle_E = (one_E + other_E) / 2
    bits = 0.0
    for side in (one_E, other_E):
        there = side > 0
        bits += float((side[there] * np.log2(side[there] / middle_E[there])).sum()) / 2
    return max(0.0, bits), float(np.abs(one_E - other_E).sum() / 2)


def _null(
    pair: list[np.ndarray], groups: np.ndarray, *, paired: bool, n_permutations: int, rng: np.random.Generator
) -> np.ndarray:
    """Divergences with prompts dealt to the two sides at random."""
    found = np.zeros(n_permutations)
    pooled, n_one = np.concatenate(pair), len(pair[0])
    side = np.arange(len(pooled)) < n_one
    both = np.intersect1d(groups[side], groups[~side])
    # Tasks of one side only are dealt among each other, or the null would hold them fixed.
    strata = np.where(np.isin(groups, both), groups, "")
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    for number in range(n_permutations):
        if paired:
            swap = rng.random(n_one) < 0.5
            one, other = np.where(swap[:, None], pair[1], pair[0]), np.where(swap[:, None], pair[0], pair[1])
        else:
            dealt = side.copy()
            for mine in members:
                dealt[mine] = rng.permutation(side[mine])
            one, other = pooled[dealt], pooled[~dealt]
        found[number] = _distances(one.mean(axis=0), other.mean(axis=0))[0]
    return found
