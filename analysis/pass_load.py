"""Load pass by pass: what a run's average hides.

Legend: P prompt, B batch, L layer, E expert, G pass, R resampling.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from analysis.balance import balance_metrics, max_over_mean
from analysis.nulls import p_value
from analysis.passes import BatchOrder, Passes, passes_of
from analysis.rates import draws_of_prompts
from analysis.scan import Phase, count_table, keyed_blocks, prompt_blocks
from analysis.size_effects import chance_of_sizes
from routing.trace import RoutingTrace

__all__ = ["pass_load", "worst_passes"]

_PHASES: tuple[Phase, ...] = ("prompt", "generated")
_METRICS = ("max_over_mean", "min_over_mean", "cv", "entropy_normalized")
_UNITS = {
    "batch": "batch",
    "step": "generated token",
    "phase": "phase",
    "n_tokens": "tokens",
    "hottest": "expert",
    "max_over_mean": "ratio",
    "min_over_mean": "ratio",
    "cv": "ratio",
    "entropy_normalized": "share of ln(experts)",
    "load_alone": "ratio",
    "even_router": "ratio",
}


def pass_load(
    trace: RoutingTrace, *, batch_size: int = 16, order: BatchOrder = "recorded", seed: int = 0
) -> pd.DataFrame:
    """How even each pass is in each layer, beside what so few tokens give by chance.

    Passes are those of `passes.passes_of`: a batch's prompts together, then its n-th generated tokens together. A pass
    of few tokens is uneven whatever the router does, so two numbers stand beside `max_over_mean`:

    - `even_router`: mean of max_over_mean over draws of as many independent tokens from an even router;
    - `load_alone`: the same, drawn at the layer's own load over all tokens of the phase. What goes beyond it comes from
      tokens of a pass being alike.

    Args:
        trace: the trace.
        batch_size: prompts a batch.
        order: how prompts are put into batches.
        seed: of the shuffle and the draws.

    Returns:
        (pass, layer) · batch, step, phase, n_tokens, hottest, max_over_mean, min_over_mean, cv, entropy_normalized,
        load_alone, even_router · units of `BALANCE_UNITS`; no row where the layer routed none of the pass.

    Raises:
        SelectionError: the batch size is below 1, or the order has another name.
        TraceError: the trace holds counts only.

    References:
        Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing Strategy" (MaxVio of a batch).
    """
    passes = passes_of(trace, batch_size=batch_size, order=order, seed=seed)
    return _pass_load(trace, passes, seed=seed)


def worst_passes(
    trace: RoutingTrace,
    *,
    batch_size: int = 16,
    order: BatchOrder = "recorded",
    n_bootstrap: int = 200,
    n_permutations: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """What the passes of each phase and layer are like: the usual one, and the worst.

    - `mean` and `q95` of max_over_mean over passes; `mean_low` and `mean_high` from drawing batches again.
    - `worst`: the largest, among passes with at least one assignment an expert if there are any, for a pass of a single
      token is always as uneven as can be; `worst_pass`, and the expert that was `hottest` in it.
    - `whole_run`: max_over_mean of all the phase's tokens together, `load_alone` and `even_router` as in `pass_load`.
    - `slowdown_bound`: Σ max / Σ mean over passes; with experts on devices of their own, the layer takes at least so
      many times as long as an even one.
    - `shuffled_mean`, `p_value`: the mean of passes over prompts when prompts are dealt to batches at random, and how
      often that is as uneven as this order of prompts. Only for the phase "prompt".

    Returns:
        (phase, layer) · n_passes, mean, mean_low, mean_high, q95, worst, worst_pass, hottest, whole_run, load_alone,
        even_router, slowdown_bound, shuffled_mean, p_value · ratio; NaN where it cannot be told.

    Raises:
        SelectionError: the batch size is below 1, or the order has another name.
        TraceError: the trace holds counts only.
    """
    n_bootstrap = draws_of_prompts(trace, n_bootstrap)
    n_permutations = draws_of_prompts(trace, n_permutations)
    passes = passes_of(trace, batch_size=batch_size, order=order, seed=seed)
    table = _pass_load(trace, passes, seed=seed).reset_index()
    shuffled = _shuffled(trace, passes, n_permutations=n_permutations, seed=seed) if n_permutations else {}
    rng = np.random.default_rng(seed)
    n_batches = max(1, passes.n_batches)
    draws = rng.multinomial(n_batches, np.full(n_batches, 1 / n_batches), n_bootstrap)
    rows, index = [], []
    for phase in _PHASES:
        whole = count_table(trace, phase=phase)
        metrics = balance_metrics(whole.assignments_GLE[0].astype(float), exists=trace.expert_exists.to_numpy())
        for number, layer in enumerate(trace.layers):
            part = table[(table["phase"] == phase) & (table["layer"] == layer)]
            if part.empty:
                continue
            value = part["max_over_mean"].to_numpy(float)
            facts = trace.layer_facts[number]
            large = part[part["n_tokens"] * facts.top_k >= facts.n_experts]
            considered = part if large.empty else large
            worst = considered.loc[considered["max_over_mean"].idxmax()]
            low = high = np.nan
            if n_bootstrap and passes.n_batches > 1:
                low, high = _interval(part, draws, n_batches=passes.n_batches)
            mean_load = part["n_tokens"] * facts.top_k / facts.n_experts
            null = shuffled.get(layer) if phase == "prompt" else None
            index.append((phase, layer))
            rows.append(
                {
                    "n_passes": len(part),
                    "mean": value.mean(),
                    "mean_low": low,
                    "mean_high": high,
                    "q95": np.quantile(value, 0.95),
                    "worst": float(worst["max_over_mean"]),
                    "worst_pass": int(worst["pass"]),
                    "hottest": int(worst["hottest"]),
                    "whole_run": metrics["max_over_mean"][number],
                    "load_alone": part["load_alone"].mean(),
                    "even_router": part["even_router"].mean(),
                    "slowdown_bound": float((value * mean_load).sum() / mean_load.sum()),
                    "shuffled_mean": np.nan if null is None else float(null.mean()),
                    "p_value": np.nan
                    if null is None
                    else float(p_value(int((null >= value.mean() - 1e-12).sum()), n_permutations=len(null))),
                }
            )
    frame = pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(index, names=["phase", "layer"]), columns=_SUMMARY)
    frame.attrs["unit"] = dict.fromkeys(_SUMMARY, "ratio") | {
        "n_passes": "passes",
        "worst_pass": "pass",
        "hottest": "expert",
        "p_value": "probability",
    }
    return frame


_SUMMARY = [
    "n_passes",
    "mean",
    "mean_low",
    "mean_high",
    "q95",
    "worst",
    "worst_pass",
    "hottest",
    "whole_run",
    "load_alone",
    "even_router",
    "slowdown_bound",
    "shuffled_mean",
    "p_value",
]


def _pass_load(trace: RoutingTrace, passes: Passes, *, seed: int) -> pd.DataFrame:
    # A generated token is routed otherwise than one that was read, so each phase has its own load.
    load_phase = {phase: count_table(trace, phase=phase).assignments_GLE[0].astype(float) for phase in _PHASES}
    exists_LE = trace.expert_exists.to_numpy()
    parts = []
    for layers, counts in keyed_blocks(trace, passes.key, n_groups=len(passes.table)):
        metrics = balance_metrics(counts.assignments_GLE.astype(float), exists=exists_LE[layers])
        hottest_GL = np.where(exists_LE[layers], counts.assignments_GLE, -1).argmax(axis=2)
        for number in range(counts.tokens_GL.shape[1]):
            layer = layers.start + number
            facts = trace.layer_facts[layer]
            there = np.flatnonzero(counts.tokens_GL[:, number])
            n_tokens = counts.tokens_GL[there, number]
            chance = partial(chance_of_sizes, top_k=facts.top_k, metric="max_over_mean", seed=seed + layer)
            own = np.full(len(there), np.nan)
            for phase, load_LE in load_phase.items():
                of_phase = passes.table["phase"].to_numpy()[there] == phase
                own[of_phase] = chance(n_tokens[of_phase], rate_E=load_LE[layer, : facts.n_experts])
            even = chance(n_tokens, rate_E=np.ones(facts.n_experts))
            columns = {name: passes.table[name].to_numpy()[there] for name in ("batch", "step", "phase")}
            columns |= {"n_tokens": n_tokens, "hottest": hottest_GL[there, number]}
            columns |= {name: metrics[name][there, number] for name in _METRICS}
            columns |= {"load_alone": own, "even_router": even}
            parts.append(pd.DataFrame({"pass": there, "layer": facts.label, **columns}))
    empty = pd.DataFrame(columns=["pass", "layer", *_UNITS])
    frame = pd.concat(parts, ignore_index=True) if parts else empty
    frame = frame.set_index(["pass", "layer"]).sort_index(level="pass", sort_remaining=False, kind="stable")
    frame.attrs["unit"] = dict(_UNITS)
    return frame


def _interval(part: pd.DataFrame, draws_RB: np.ndarray, *, n_batches: int) -> tuple[float, float]:
    """95 % interval of the mean over passes, batches drawn again."""
    batch = part["batch"].to_numpy(int)
    sums_B = np.bincount(batch, weights=part["max_over_mean"].to_numpy(float), minlength=n_batches)
    n_B = np.bincount(batch, minlength=n_batches)
    n_R = draws_RB @ n_B
    means_R = (draws_RB @ sums_B)[n_R > 0] / n_R[n_R > 0]
    low, high = np.quantile(means_R, [0.025, 0.975])
    return float(low), float(high)


def _shuffled(trace: RoutingTrace, passes: Passes, *, n_permutations: int, seed: int) -> dict[str, np.ndarray]:
    """Of each layer, the mean of max_over_mean over batches of prompts dealt at random."""
    rng = np.random.default_rng(seed)
    sizes = np.bincount(passes.batch_P[passes.batch_P >= 0], minlength=passes.n_batches)
    starts = np.concatenate([[0], sizes.cumsum()[:-1]]).astype(np.int64)
    recorded = np.flatnonzero(passes.batch_P >= 0)
    orders = [rng.permutation(recorded) for _ in range(n_permutations)] if passes.n_batches > 1 else []
    exists_LE = trace.expert_exists.to_numpy()
    found: dict[str, list[float]] = {layer: [] for layer in trace.layers}
    for layers, table in prompt_blocks(trace, phase="prompt"):
        for lined_up in orders:
            counts_BLE = np.add.reduceat(table.assignments_GLE[lined_up], starts, axis=0)
            value_BL = max_over_mean(counts_BLE.astype(float), exists=exists_LE[layers])
            n_L = np.isfinite(value_BL).sum(axis=0)
            for number in np.flatnonzero(n_L):
                found[trace.layers[layers.start + number]].append(float(np.nansum(value_BL[:, number]) / n_L[number]))
    return {layer: np.array(values) for layer, values in found.items() if values}
