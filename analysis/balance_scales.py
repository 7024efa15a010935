"""Balance within a sequence, within a batch and over the whole run; load by position.

Legend: P prompt, B batch, L layer, E expert, G group, R resampling.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from analysis.balance import BALANCE_UNITS, balance_metrics, max_over_mean
from analysis.intervals import interval_95
from analysis.passes import BatchOrder, batches_of
from analysis.positions import bin_names, bin_of_position, n_position_bins
from analysis.rates import draws_of_prompts
from analysis.redrawing import redrawn_sums
from analysis.scan import By, keyed_blocks, mapped_chunks, prompt_blocks, require_tokens, token_groups
from analysis.size_effects import chance_of_sizes
from routing.chunks import Chunk
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["balance_scales", "importance", "load_by_position"]


def balance_scales(
    trace: RoutingTrace,
    *,
    batch_size: int = 16,
    order: BatchOrder = "recorded",
    n_bootstrap: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """How even the load is within a text, within a batch of texts, and over all of them.

    At each scale, max_over_mean of the assignments of one sequence (prompt with its answer), one batch, or the run; the
    mean over sequences or batches where there are several. `even_router` is what as many independent tokens of an even
    router give; `load_alone` what they give at the layer's load over the run. A layer may be even over the run and
    uneven within each text: then texts are routed apart, and a loss that asks for evenness within each sequence would
    work against that.

    Args:
        trace: the trace.
        batch_size: prompts a batch.
        order: how prompts are put into batches.
        n_bootstrap: draws of prompts (or batches) for the intervals; 0 for none.
        seed: of the draws.

    Returns:
        (scale, layer) · n, max_over_mean, max_over_mean_low, max_over_mean_high, load_alone, even_router · ratio; NaN
        where nothing was routed, or an interval cannot be given.

    Raises:
        SelectionError: the batch size is below 1, or the order has another name.
        TraceError: the trace holds counts only.

    References:
        Wang et al. 2024 (batch and global MaxVio); Qiu et al. 2025, "Demons in the Detail" (scale of the balance).
    """
    n_bootstrap = draws_of_prompts(trace, n_bootstrap)
    batch_P = batches_of(trace, batch_size=batch_size, order=order, seed=seed)
    n_batches = int(batch_P.max(initial=-1)) + 1
    exists_LE = trace.expert_exists.to_numpy()
    rows: dict[tuple[str, str], dict[str, float]] = {}
    rng = np.random.default_rng(seed)
    for layers, table in prompt_blocks(trace):
        counts_PLE, tokens_PL = table.assignments_GLE, table.tokens_GL
        counts_BLE = np.zeros((n_batches, *counts_PLE.shape[1:]), dtype=np.int64)
        there_P = batch_P >= 0
        np.add.at(counts_BLE, batch_P[there_P], counts_PLE[there_P])
        tokens_BL = np.zeros((n_batches, counts_PLE.shape[1]), dtype=np.int64)
        np.add.at(tokens_BL, batch_P[there_P], tokens_PL[there_P])
        scales = {
            "sequence": (counts_PLE, tokens_PL),
            "batch": (counts_BLE, tokens_BL),
            "run": (counts_PLE.sum(axis=0)[None], tokens_PL.sum(axis=0)[None]),
        }
        for number in range(tokens_PL.shape[1]):
            facts = trace.layer_facts[layers.start + number]
            overall_E = counts_PLE[:, number, : facts.n_experts].sum(axis=0).astype(float)
            for scale, (counts_GLE, tokens_GL) in scales.items():
                routed = tokens_GL[:, number] > 0
                exists_E = exists_LE[layers.start + number]
                value = max_over_mean(counts_GLE[routed, number].astype(float), exists=exists_E)
                low = high = np.nan
                if n_bootstrap and len(value) > 1:
                    means = rng.choice(value, size=(n_bootstrap, len(value))).mean(axis=1)
                    low, high = np.quantile(means, [0.025, 0.975])
                chance = [
                    _mean(
                        chance_of_sizes(
                            tokens_GL[routed, number],
                            rate_E=rate_E,
                            top_k=facts.top_k,
                            metric="max_over_mean",
                            seed=seed + layers.start + number,
                        )
                    )
                    for rate_E in (overall_E, np.ones(facts.n_experts))
                ]
                rows[scale, facts.label] = {
                    "n": int(routed.sum()),
                    "max_over_mean": _mean(value),
                    "max_over_mean_low": low,
                    "max_over_mean_high": high,
                    "load_alone": chance[0],
                    "even_router": chance[1],
                }
    index = pd.MultiIndex.from_product([("sequence", "batch", "run"), trace.layers], names=["scale", "layer"])
    frame = pd.DataFrame([rows[key] for key in index], index=index)
    names = ("max_over_mean", "max_over_mean_low", "max_over_mean_high", "load_alone", "even_router")
    frame.attrs["unit"] = dict.fromkeys(names, "ratio") | {"n": "sequences, batches or runs"}
    return frame


def load_by_position(trace: RoutingTrace, *, n_bootstrap: int = 200, seed: int = 0) -> xr.Dataset:
    """Load of each expert, and how even it is, by position in the text.

    Positions 0 and 1 stand alone, then they are taken by octave: 2–3, 4–7, 8–15. Positions of a decoder's stack count
    in that stack. Intervals come from drawing prompts again. `even_router`: what as many independent tokens of an even
    router give.

    Returns:
        (position, layer, expert) · load; (position, layer) · n_tokens, hottest, even_router and each of `BALANCE_UNITS`
        with max_over_mean_low and max_over_mean_high · share of assignments, and units as the names say · loads 0 to 1;
        NaN where nothing was routed.

    Raises:
        TraceError: the trace holds counts only.
    """
    n_bootstrap = draws_of_prompts(trace, n_bootstrap)
    n_bins = n_position_bins(trace)
    shape = (n_bins, trace.n_layers)
    counts_GLE = np.zeros((*shape, trace.n_experts), dtype=np.int64)
    bounds = np.full((2, *shape), np.nan)
    exists_LE = trace.expert_exists.to_numpy()
    rng = np.random.default_rng(seed)
    n_prompts = trace.n_prompts
    weights_RP = rng.multinomial(n_prompts, np.full(n_prompts, 1 / max(1, n_prompts)), n_bootstrap).astype(float)
    tokens_GL = np.zeros(shape, dtype=np.int64)
    for number in range(n_bins):

        def keys(chunk: Chunk, number: int = number) -> np.ndarray:
            return np.where(bin_of_position(chunk.position) == number, chunk.prompt, -1)

        for layers, table in keyed_blocks(trace, keys, n_groups=n_prompts):
            counts_GLE[number, layers] = table.assignments_GLE.sum(axis=0)
            tokens_GL[number, layers] = table.tokens_GL.sum(axis=0)
            if n_bootstrap and n_prompts > 1:
                drawn_RLE = redrawn_sums(table.assignments_GLE, weights_RP)
                value_RL = max_over_mean(drawn_RLE, exists=exists_LE[layers])
                bounds[:, number, layers] = interval_95(value_RL)
    metrics = balance_metrics(counts_GLE.astype(float), exists=exists_LE)
    total = counts_GLE.sum(axis=2, keepdims=True)
    load = np.where(exists_LE & (total > 0), counts_GLE / np.maximum(total, 1), np.nan)
    even = np.full(shape, np.nan)
    for layer, facts in enumerate(trace.layer_facts):
        even[:, layer] = chance_of_sizes(
            tokens_GL[:, layer],
            rate_E=np.ones(facts.n_experts),
            top_k=facts.top_k,
            metric="max_over_mean",
            seed=seed + layer,
        )
    dims = ("position", "layer")
    hottest = np.where(total[..., 0] > 0, np.where(exists_LE, counts_GLE, -1).argmax(axis=2), -1)
    variables = {
        "load": ((*dims, "expert"), load, {"unit": "share of assignments"}),
        "n_tokens": (dims, tokens_GL, {"unit": "tokens"}),
        "hottest": (dims, hottest, {"unit": "expert"}),
        "even_router": (dims, even, {"unit": "ratio"}),
        "max_over_mean_low": (dims, bounds[0], {"unit": "ratio"}),
        "max_over_mean_high": (dims, bounds[1], {"unit": "ratio"}),
    }
    variables |= {name: (dims, metrics[name], {"unit": unit}) for name, unit in BALANCE_UNITS.items()}
    coords = {"position": bin_names(n_bins), "layer": list(trace.layers), "expert": np.arange(trace.n_experts)}
    return xr.Dataset(variables, coords=coords, attrs={"n_bootstrap": n_bootstrap, "seed": seed})


def importance(trace: RoutingTrace, *, by: By | None = None) -> xr.DataArray:
    """Share of the applied weight that each expert gets: Σ_t g_te / Σ_t Σ_e g_te.

    Returns:
        ([by,] layer, expert) · share of the applied weight · 0 to 1 where weights are positive, sums to 1 over expert;
        NaN where there is no expert or no token.

    Raises:
        SelectionError: `by` names something else than what it may.
        TraceError: the trace holds counts only, or no weights.

    References:
        Shazeer et al. 2017, "Outrageously Large Neural Networks" (importance).
    """
    require_tokens(trace, for_what="the importance of experts")
    if trace.storage.rows("weights") is None:
        msg = "This trace holds no applied weights, which importance adds up. Import or record it with them."
        raise TraceError(msg)
    groups, keys = token_groups(trace, by=by)
    n_layers, n_experts = trace.n_layers, trace.n_experts

    def of_chunk(chunk: Chunk) -> np.ndarray:
        assert chunk.experts is not None
        assert chunk.weights is not None
        sums = np.zeros((n_layers, len(groups) * (n_experts + 1)))
        group_T = keys(chunk).astype(np.int64)
        for layer, facts in enumerate(trace.layer_facts):
            slots = np.minimum(chunk.experts[:, layer, : facts.top_k].astype(np.int64), n_experts)
            weight = np.nan_to_num(chunk.weights[:, layer, : facts.top_k].astype(np.float64))
            at = group_T[:, None] * (n_experts + 1) + slots
            there = np.broadcast_to(group_T[:, None] >= 0, at.shape)
            sums[layer] += np.bincount(at[there], weights=weight[there], minlength=sums.shape[1])
        return sums.reshape(n_layers, len(groups), n_experts + 1)[:, :, :n_experts].transpose(1, 0, 2)

    total_GLE = np.zeros((len(groups), n_layers, n_experts))
    for part in mapped_chunks(trace, of_chunk, fields=("experts", "weights")):
        total_GLE += part
    sums = total_GLE.sum(axis=2, keepdims=True)
    values = np.where(trace.expert_exists.to_numpy() & (sums != 0), total_GLE / np.where(sums != 0, sums, 1), np.nan)
    coords = {by or "all": list(groups), "layer": list(trace.layers), "expert": np.arange(n_experts)}
    array = xr.DataArray(
        values, dims=tuple(coords), coords=coords, name="importance", attrs={"unit": "share of the applied weight"}
    )
    return array if by else array.isel(all=0, drop=True)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
