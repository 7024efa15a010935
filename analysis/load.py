"""Who does the work: load of experts, how even it is, and who stands idle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from analysis.balance import BALANCE_UNITS, balance_metrics
from analysis.measure import about, rate_unit, share_unit
from analysis.rates import Over, decided_by_task, group_of_prompt
from analysis.redrawing import redrawn_sums
from analysis.scan import By, CountTable, count_table, prompt_blocks
from routing.trace import RoutingTrace

__all__ = ["activation_rate", "expert_load", "idle_experts", "load_balance"]


def expert_load(trace: RoutingTrace, *, by: By | None = None) -> xr.DataArray:
    """Share of a layer's assignments that each expert takes: c_e / Σ c.

    Every assignment counts once, so long prompts weigh more: this is the work that the hardware sees. Where every
    expert is always selected, it is the share of the routed weight; `attrs["measure"]` says so.

    Returns:
        ([by,] layer, expert) · share of assignments · 0 to 1, sums to 1 over expert; NaN where there is no
        expert or no token.

    Raises:
        SelectionError: `by` names something else than what it may.
        TraceError: a trace of level "counts" is asked for prompts or phases.
    """
    table = count_table(trace, by=by)
    total = table.assignments_GLE.sum(axis=-1, keepdims=True).astype(float)
    return _labelled(trace, table, total, by=by, name="load", unit=share_unit(trace))


def activation_rate(trace: RoutingTrace, *, by: By | None = "task") -> xr.DataArray:
    """Share of tokens that choose each expert: c_e / T; their mean weight where every expert is always selected.

    Returns:
        ([by,] layer, expert) · share of tokens · 0 to 1, sums to top-k over expert; NaN where there is no
        expert or no token.

    Raises:
        SelectionError: `by` names something else than what it may.
        TraceError: a trace of level "counts" is asked for prompts or phases.

    References:
        Muennighoff et al. 2024, "OLMoE: Open Mixture-of-Experts Language Models" (domain specialization).
    """
    table = count_table(trace, by=by)
    total = table.tokens_GL[..., None].astype(float)
    return _labelled(trace, table, total, by=by, name="activation_rate", unit=rate_unit(trace))


def load_balance(
    trace: RoutingTrace,
    *,
    by: Over | None = None,
    n_bootstrap: int = 200,
    seed: int = 0,
    cold_below: float = 0.1,
) -> pd.DataFrame:
    """How evenly each layer spreads its assignments, with 95 % intervals.

    The intervals come from drawing prompts (not tokens; whole tasks where the router decided once a task) with
    replacement, within each group; they are missing
    (NaN) where the trace does not tell prompts apart or a group has a single prompt. `hottest` is the expert
    with most assignments.

    Args:
        trace: the trace.
        by: one row a group and layer; None takes the trace as a whole.
        n_bootstrap: draws for the intervals; 0 for none.
        seed: of the draws.
        cold_below: an expert is cold if it has less than this share of the mean load.

    Returns:
        ([by,] layer) · n_experts, n_tokens, n_assignments, fair_share, hottest, and each of `BALANCE_UNITS`
        with its _low and _high · as the units say; NaN where nothing was routed.

    Raises:
        SelectionError: `by` names something else than what it may.
    """
    table = count_table(trace, by=by)
    exists_LE = trace.expert_exists.to_numpy()
    point = balance_metrics(table.assignments_GLE.astype(float), exists=exists_LE, cold_below=cold_below)
    bounds = {name: np.full((2, *values.shape), np.nan) for name, values in point.items()}
    if n_bootstrap and trace.level != "counts":
        for layers, group, draws_BLE in _bootstrap(trace, by=by, n_bootstrap=n_bootstrap, seed=seed):
            drawn = balance_metrics(draws_BLE, exists=exists_LE[layers], cold_below=cold_below)
            for name, values in drawn.items():
                routed = table.tokens_GL[group, layers] > 0
                low_high = np.full((2, len(routed)), np.nan)
                # A draw may hold no routed prompt; looking out for that costs ten times as much, so only where needed.
                missing = np.isnan(values[:, routed]).any()
                low_high[:, routed] = (np.nanquantile if missing else np.quantile)(
                    values[:, routed], [0.025, 0.975], axis=0
                )
                bounds[name][:, group, layers] = low_high
    n_experts_L = exists_LE.sum(axis=-1)
    n_groups = len(table.groups)
    assignments_GL = table.assignments_GLE.sum(axis=-1)
    columns: dict[str, np.ndarray] = {
        "n_experts": np.tile(n_experts_L, n_groups),
        "n_tokens": table.tokens_GL.ravel(),
        "n_assignments": assignments_GL.ravel(),
        "fair_share": np.tile(1 / n_experts_L, n_groups),
        "hottest": np.where(
            assignments_GL > 0, np.where(exists_LE, table.assignments_GLE, -1).argmax(axis=-1), -1
        ).ravel(),
    }
    for name, values in point.items():
        columns[name] = values.ravel()
        columns[f"{name}_low"], columns[f"{name}_high"] = (bound.ravel() for bound in bounds[name])
    layers_index = pd.Index(list(trace.layers), name="layer")
    index = pd.MultiIndex.from_product([table.groups, layers_index], names=[by, "layer"]) if by else layers_index
    frame = pd.DataFrame(columns, index=index)
    frame.attrs |= about(trace)
    frame.attrs["unit"] = {
        "n_experts": "experts",
        "n_tokens": "tokens",
        "n_assignments": "assignments",
        "fair_share": share_unit(trace),
        "hottest": "expert",
    } | {f"{name}{end}": unit for name, unit in BALANCE_UNITS.items() for end in ("", "_low", "_high")}
    return frame


def idle_experts(trace: RoutingTrace) -> pd.DataFrame:
    """Experts that no token chose, with the chance that a fair expert would stand idle as long.

    `chance_idle` = (1 − k/E)^T takes tokens as independent; `chance_idle_prompts` = (1 − k/E)^P takes each
    prompt as a single draw, as if all its tokens agreed. The truth lies between the two. Where the router decided
    once a task, `n_prompts` counts tasks and `chance_idle_prompts` takes each of them as a single draw.

    Returns:
        (row) · layer, expert, n_assignments, n_tokens, n_prompts, chance_idle, chance_idle_prompts · chances
        0 to 1; no row where every expert works or a layer routed nothing.
    """
    table = count_table(trace)
    counts_LE, tokens_L = table.assignments_GLE[0], table.tokens_GL[0]
    idle = trace.expert_exists.to_numpy() & (counts_LE == 0) & (tokens_L > 0)[:, None]
    layer, expert = np.nonzero(idle)
    n_prompts_L = np.full(trace.n_layers, trace.n_prompts)
    by_task, task_P = decided_by_task(trace), trace.task_of_prompt
    if trace.level != "counts" and len(layer):
        for layers, by_prompt in prompt_blocks(trace):
            routed_PL = by_prompt.tokens_GL > 0
            if by_task:
                routed_PL = np.stack([routed_PL[task_P == task].any(axis=0) for task in range(len(trace.tasks))])
            n_prompts_L[layers] = routed_PL.sum(axis=0)
    top_k = np.array([facts.top_k for facts in trace.layer_facts])
    passed_over = 1 - top_k / np.array([facts.n_experts for facts in trace.layer_facts])
    frame = pd.DataFrame(
        {
            "layer": np.array(trace.layers, dtype=object)[layer],
            "expert": expert,
            "n_assignments": np.zeros(len(layer), dtype=np.int64),
            "n_tokens": tokens_L[layer],
            "n_prompts": n_prompts_L[layer],
            "chance_idle": passed_over[layer] ** tokens_L[layer],
            "chance_idle_prompts": passed_over[layer] ** n_prompts_L[layer],
        }
    )
    frame.attrs["unit"] = {"chance_idle": "probability", "chance_idle_prompts": "probability"}
    return frame


def _labelled(
    trace: RoutingTrace, table: CountTable, total: np.ndarray, *, by: By | None, name: str, unit: str
) -> xr.DataArray:
    values = table.assignments_GLE / np.where(total > 0, total, np.nan)
    values = np.where(trace.expert_exists.to_numpy(), values, np.nan)
    coords = {
        by or "all": list(table.groups),
        "layer": list(trace.layers),
        "expert": np.arange(trace.n_experts),
    }
    array = xr.DataArray(values, dims=tuple(coords), coords=coords, name=name, attrs={"unit": unit, **about(trace)})
    return array if by else array.isel(all=0, drop=True)


def _bootstrap(
    trace: RoutingTrace, *, by: Over | None, n_bootstrap: int, seed: int
) -> Iterator[tuple[slice, int, np.ndarray]]:
    """Counts of redrawn sets of prompts: a slice of layers, a group, and (draw, L, E)."""
    groups, group_P = group_of_prompt(trace, over=by) if by else (("all",), np.zeros(trace.n_prompts, dtype=np.int64))
    # Where the router decided once a task, its prompts are one observation and are drawn together.
    unit_P = trace.task_of_prompt if decided_by_task(trace) else np.arange(trace.n_prompts)
    weights = {}
    for group in range(len(groups)):
        units, unit_of = np.unique(unit_P[group_P == group], return_inverse=True)
        if (n_units := len(units)) > 1:
            # The same draws serve every layer, whatever the size of the blocks that the layers come in.
            rng = np.random.default_rng([seed, group])
            drawn_BU = rng.multinomial(n_units, np.full(n_units, 1 / n_units), n_bootstrap).astype(float)
            weights[group] = drawn_BU[:, unit_of]
    for layers, table in prompt_blocks(trace):
        for group, weights_BP in weights.items():
            counts_PLE = table.assignments_GLE if by is None else table.assignments_GLE[group_P == group]
            yield layers, group, redrawn_sums(counts_PLE, weights_BP)
