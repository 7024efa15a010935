"""Which experts serve which tasks: activation by task, with a null at the level of prompts.

Legend: L layer, E expert, P prompt (or task, where tasks are permuted), G group.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import xarray as xr

from analysis.measure import about, rate_unit
from analysis.nulls import Z_BINS, Dealer, PooledNull, q_values
from analysis.rates import (
    Over,
    PromptRates,
    decided_by_task,
    group_of_prompt,
    group_rates,
    lift_of,
    mean_over_prompts,
    prompt_rates,
    type_of_group,
)
from analysis.scan import require_tokens
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["Units", "layer_test", "specialization"]

Units = Literal["prompt", "task"]


def specialization(
    trace: RoutingTrace,
    *,
    over: Over = "task",
    units: Units = "prompt",
    n_permutations: int = 1000,
    seed: int = 0,
    fdr: float = 0.05,
) -> xr.Dataset:
    """How much more a group of prompts uses each expert than prompts do overall, and whether chance would do that.

    - `rate`: mean over the group's prompts of the share of their tokens that choose the expert. Prompts weigh the
      same, long or short.
    - `overall`: the same over all prompts.
    - `lift`: log2 of the ratio of load shares, slightly drawn towards 0 where there is little data
      (`rates.lift_of`).
    - `z`: (rate − overall) in standard deviations of the permuted difference, known exactly from the spread of the
      prompts.
    - `p_value`: two-sided, from permuting the groups of whole units. Own permutations decide where they reach the
      observed |z| often enough; the far tail is read from the |z| of all cells together (`nulls.PooledNull`).
    - `q_value`: Benjamini–Hochberg over all groups, layers and experts; `significant` is q ≤ `fdr`.

    Where the router decided once a task (`rates.decided_by_task`), prompts repeat their task: types are then tested by
    permuting tasks, and single tasks, one observation each, cannot be tested: their p_value is NaN.

    Args:
        trace: the trace.
        over: what prompts are grouped by.
        units: what is permuted. "prompt" asks whether these prompts differ; "task", only with over="task_type",
            asks whether tasks of a type differ from other tasks, which needs several tasks a type.
        n_permutations: 0 leaves out the null and works at every level of recording.
        seed: of the permutations.
        fdr: share of false ones to accept among those called significant.

    Returns:
        (group, layer, expert) · rate in share of tokens, lift in log2 ratio, z, p_value, q_value, significant ·
        rates 0 to 1; NaN where the layer lacks the expert or routed nothing of the group.

    Raises:
        SelectionError: `over` or `units` names something else than what it may.
        TraceError: permutations are asked of a trace of level "counts".

    References:
        Muennighoff et al. 2024, "OLMoE" (domain specialization); Benjamini & Hochberg 1995.
    """
    if units not in ("prompt", "task") or (units == "task" and over != "task_type"):
        msg = f"Groups over {over!r} cannot be tested by permuting {units!r}. Permute prompts, or tasks over task_type."
        raise SelectionError(msg)
    by_task = decided_by_task(trace)
    if by_task and over == "task_type":
        units = "task"
    groups, group_P = group_of_prompt(trace, over=over)
    cases: list[tuple[int, np.ndarray, np.ndarray]] = []
    if n_permutations:
        require_tokens(trace, for_what="a permutation of prompts")

        def noted(blocks: Iterator[PromptRates]) -> Iterator[PromptRates]:
            """The blocks of one scan, their layers kept for the test."""
            for block in blocks:
                cases.extend(_layers(trace, block, group_P=group_P, units=units))
                yield block

        rates = group_rates(trace, over=over, blocks=noted(prompt_rates(trace)))
    else:
        rates = group_rates(trace, over=over)
    lift = lift_of(rates.rate_GLE, overall_LE=rates.overall_LE, n_assignments_GL=rates.n_assignments_GL)
    z = np.full(rates.rate_GLE.shape, np.nan)
    p = z.copy()
    if n_permutations:
        n_exceeding = np.zeros(z.shape, dtype=np.int64)
        pooled = PooledNull()
        dealer = Dealer(n_permutations=n_permutations, seed=seed)
        with ThreadPoolExecutor() as pool:
            tested = pool.map(lambda each: layer_test(each[1], each[2], len(groups), dealer=dealer), cases)
            for (layer, _, _), (z_GE, exceeds_GE, spread) in zip(cases, tested, strict=True):
                z[:, layer], n_exceeding[:, layer] = z_GE, exceeds_GE
                pooled.add(spread)
        p = pooled.p_values(z, n_exceeding=n_exceeding, n_permutations=n_permutations)
        if by_task and over == "task":
            p = np.full(z.shape, np.nan)
    q = q_values(p)
    dims = ("group", "layer", "expert")
    return xr.Dataset(
        {
            "rate": (dims, rates.rate_GLE, {"unit": rate_unit(trace)}),
            "overall": (dims[1:], rates.overall_LE, {"unit": rate_unit(trace)}),
            "lift": (dims, lift, {"unit": "log2 ratio"}),
            "z": (dims, z, {"unit": "standard deviations of the null"}),
            "p_value": (dims, p, {"unit": "probability"}),
            "q_value": (dims, q, {"unit": "false-discovery rate"}),
            "significant": (dims, q <= fdr, {"unit": f"q at most {fdr}"}),
        },
        coords={
            "group": list(groups),
            "task_type": ("group", list(type_of_group(trace, over=over))),
            "n_prompts": ("group", np.bincount(group_P, minlength=len(groups))),
            "layer": list(trace.layers),
            "expert": np.arange(trace.n_experts),
        },
        attrs={
            "over": over,
            **about(trace),
            "units": units,
            "decided_by": "task" if by_task else trace.unit,
            "n_permutations": n_permutations,
            "seed": seed,
            "fdr": fdr,
            "weighting": rates.weighting,
        },
    )


def _layers(
    trace: RoutingTrace, block: PromptRates, *, group_P: np.ndarray, units: Units
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Of each layer of a block: its number, the rates of the units it routed, and their groups."""
    rate_PLE, labels = block.rate_PLE, group_P
    if units == "task":
        task_P = trace.task_of_prompt
        rate_PLE = np.stack([mean_over_prompts(rate_PLE[task_P == task]) for task in range(len(trace.tasks))])
        labels = np.array([group_P[task_P == task][0] for task in range(len(trace.tasks))])
    for number in range(rate_PLE.shape[1]):
        rate_PE = rate_PLE[:, number]
        routed = np.isfinite(rate_PE).any(axis=-1)
        yield block.layers.start + number, rate_PE[routed], labels[routed]


def layer_test(
    rate_PE: np.ndarray, labels_P: np.ndarray, n_groups: int, *, dealer: Dealer
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observed z, how often permutations reach it, and the spread of permuted |z|, of one layer."""
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.kernels import frozen
    from analysis.null_kernels import count_exceedances

    n_prompts, n_experts = rate_PE.shape
    z_GE = np.full((n_groups, n_experts), np.nan)
    if n_prompts < 2:
        return z_GE, np.zeros(z_GE.shape, dtype=np.int64), np.zeros(Z_BINS[0], dtype=np.int64)
    values_PE = np.nan_to_num(rate_PE)
    n_G = np.bincount(labels_P, minlength=n_groups)
    center_E = values_PE.mean(axis=0)
    # Variance of the mean of n of P values drawn without replacement.
    variance_E = values_PE.var(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation_GE = np.sqrt(variance_E * ((1 / n_G) * (1 - n_G / n_prompts))[:, None])
        sums_GE = np.stack([np.bincount(labels_P, weights=each, minlength=n_groups) for each in values_PE.T], axis=1)
        tested_GE = (deviation_GE > 1e-12) & np.isfinite(deviation_GE)
        scale_GE = np.where(tested_GE, 1 / deviation_GE, 0.0)
        z_GE = (sums_GE / n_G[:, None] - center_E) * scale_GE
    # Where prompts are not split, or an expert not there, there is nothing to test.
    split_G = (n_G > 0) & (n_G < n_prompts)
    z_GE[~split_G] = np.nan
    z_GE[:, ~np.isfinite(rate_PE).any(axis=0)] = np.nan
    tested_GE &= np.isfinite(z_GE)
    exceeds_GE = np.zeros(z_GE.shape, dtype=np.int64)
    spread = np.zeros(Z_BINS[0], dtype=np.int64)
    limit_GE = np.nan_to_num(np.abs(z_GE)) - 1e-9
    for labels_BP in dealer.deal(labels_P):
        more, wider = count_exceedances(
            frozen(values_PE), labels_BP, n_G, center_E, scale_GE, limit_GE, tested_GE, Z_BINS
        )
        exceeds_GE += more
        spread += wider
    return z_GE, exceeds_GE, spread
