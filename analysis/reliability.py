"""Would specialization be found again, and is it there without training?

Legend: P prompt, G group, L layer, E expert, D deal into halves.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.controls import controlled_specialization
from analysis.gain_error import gain_error
from analysis.information import task_information
from analysis.nulls import p_value
from analysis.rates import Over, draws_of_prompts, group_of_prompt, prompt_rates
from analysis.scan import Phase
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["against_control", "split_half"]


def split_half(
    trace: RoutingTrace, *, over: Over = "task", n_splits: int = 10, n_permutations: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Whether two halves of the prompts agree on which group uses which expert.

    Each group's prompts are dealt to two halves; the differences of its rates from the overall ones, over groups and
    experts, are correlated between the halves (Spearman). Mean over `n_splits` deals, with the least and the largest.
    The null deals groups to prompts at random first, and takes the mean over as many deals into halves: a single deal
    scatters more than the mean of several, so that few would stand out from single ones. `whole`: what the
    Spearman–Brown formula makes of it for all prompts.

    Args:
        trace: the trace.
        over: what prompts are grouped by.
        n_splits: deals into halves.
        n_permutations: deals of groups for the null; 0 for none.
        seed: of the deals.

    Returns:
        (layer) · rho, rho_low, rho_high, whole, null_mean, null_95, p_value · rank correlation −1 to 1; NaN where a
        group has fewer than two prompts, or nothing varies.

    Raises:
        SelectionError: `over` names something else than what it may.
        TraceError: the trace holds counts only.

    References:
        Spearman 1910; Brown 1910.
    """
    n_splits = draws_of_prompts(trace, n_splits)
    n_permutations = draws_of_prompts(trace, n_permutations)
    _, group_P = group_of_prompt(trace, over=over)
    rows = []
    for block in prompt_rates(trace):
        for number in range(block.rate_PLE.shape[1]):
            rate_PE = block.rate_PLE[:, number]
            rate_PE = rate_PE[:, np.isfinite(rate_PE).any(axis=0)]
            routed = np.isfinite(rate_PE).all(axis=1) & (rate_PE.shape[1] > 0)
            rng = np.random.default_rng([seed, block.layers.start + number])
            values, labels = rate_PE[routed], group_P[routed]
            rho = _agreed(values, labels, n_splits, rng)
            known = np.isfinite(rho).any()
            mean = float(np.nanmean(rho)) if known else np.nan
            dealt = (
                _agreed(values, rng.permutation(labels), n_splits, rng) for _ in range(n_permutations if known else 0)
            )
            null = np.array([np.nanmean(each) if np.isfinite(each).any() else np.nan for each in dealt])
            told = known and np.isfinite(null).any()
            rows.append(
                {
                    "rho": mean,
                    "rho_low": float(np.nanmin(rho)) if known else np.nan,
                    "rho_high": float(np.nanmax(rho)) if known else np.nan,
                    "whole": 2 * mean / (1 + mean) if known and mean > -1 else np.nan,
                    "null_mean": float(np.nanmean(null)) if told else np.nan,
                    "null_95": float(np.nanquantile(null, 0.95)) if told else np.nan,
                    "p_value": float(p_value(int((null >= mean - 1e-12).sum()), n_permutations=len(null)))
                    if told
                    else np.nan,
                }
            )
    columns = ["rho", "rho_low", "rho_high", "whole", "null_mean", "null_95", "p_value"]
    frame = pd.DataFrame(rows, index=pd.Index(list(trace.layers), name="layer"), columns=columns)
    frame.attrs["unit"] = dict.fromkeys(columns, "rank correlation") | {"p_value": "probability"}
    return frame


def against_control(
    trace: RoutingTrace,
    control: RoutingTrace,
    *,
    over: Over = "task",
    smallest: float = 0.1,
    phase: Phase | None = "prompt",
    n_permutations: int = 200,
    n_blocks: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """How much of the specialization is there in an untrained model, or at an earlier checkpoint.

    Random routers send like tokens to like experts, so tasks of different words are told apart without any training. Of
    both traces, by layer: `share` of what there is to know about the group that an expert tells (`task_information`,
    beyond its null), and `n_cells`, how many of a layer's group × expert cells are significant with a rate at least
    `smallest` from the overall one. `gain`: share less the control's, with a 95 % interval from
    leaving out blocks of prompts, of both traces where both hold them. By default only tokens of the prompt count: what
    an untrained model writes is the same noise for all prompts of a length.

    Args:
        trace: the trace.
        control: that of an untrained or earlier model, of the same tasks.
        over: what prompts are grouped by.
        smallest: difference of rates from which on a cell counts.
        phase: only tokens of this phase; None takes all.
        n_permutations: of prompts, for the nulls.
        n_blocks: blocks of prompts for the interval; 0 for none.
        seed: of the permutations.

    Returns:
        (layer) · share, share_control, gain, gain_low, gain_high, p_value, p_value_control, n_cells, n_cells_control ·
        share of the entropy of groups, probability, cells · 0 to 1.

    Raises:
        SelectionError: `over` names something else than what it may.
        TraceError: a trace holds counts only, or tasks or layers differ.
    """
    if trace.layers != control.layers or set(trace.tasks) != set(control.tasks):
        msg = (
            f"The two traces have the layers {trace.layers} and {control.layers}, and share "
            f"{len(set(trace.tasks) & set(control.tasks))} of {len(set(trace.tasks) | set(control.tasks))} tasks. "
            "Record the control over the same tasks."
        )
        raise TraceError(msg)
    columns: dict[str, np.ndarray] = {}
    for each, end in ((trace, ""), (control, "_control")):
        told = task_information(each, over=over, phase=phase, n_permutations=n_permutations, seed=seed)
        cells = controlled_specialization(each, over=over, phase=phase, n_permutations=n_permutations, seed=seed)
        with np.errstate(invalid="ignore"):
            counted = cells["significant"].to_numpy() & (np.abs(cells["difference"].to_numpy()) >= smallest)
        columns[f"share{end}"] = told["share"].to_numpy()
        columns[f"p_value{end}"] = told["p_value"].to_numpy()
        columns[f"n_cells{end}"] = counted.sum(axis=(0, 2))
    columns["gain"] = columns["share"] - columns["share_control"]
    reach = _reach(n_blocks) * gain_error(
        trace, control, over=over, phase=phase, n_permutations=n_permutations, n_blocks=n_blocks, seed=seed
    )
    columns |= {"gain_low": columns["gain"] - reach, "gain_high": columns["gain"] + reach}
    gains, p_values = ["gain", "gain_low", "gain_high"], ["p_value", "p_value_control"]
    names = ["share", "share_control", *gains, *p_values, "n_cells", "n_cells_control"]
    frame = pd.DataFrame(columns, index=pd.Index(list(trace.layers), name="layer"))[names]
    frame.attrs["unit"] = {
        **dict.fromkeys(("share", "share_control", *gains), "share of the entropy of groups"),
        **dict.fromkeys(("p_value", "p_value_control"), "probability"),
        **dict.fromkeys(("n_cells", "n_cells_control"), "cells"),
    }
    return frame


def _reach(n_blocks: int) -> float:
    """Standard errors of a jackknife over so many blocks that a 95 % interval reaches to either side."""
    from scipy.stats import t

    return float(t.ppf(0.975, n_blocks - 1)) if n_blocks > 1 else float("nan")


def _agreed(rate_PE: np.ndarray, labels_P: np.ndarray, n_deals: int, rng: np.random.Generator) -> np.ndarray:
    """(D,) rank correlation between the halves of each deal; NaN where there is nothing to correlate."""
    # Slow to import, and not every view needs it.
    from scipy.stats import rankdata

    _, group_P, size_G = np.unique(labels_P, return_inverse=True, return_counts=True)
    # A group of a single prompt has it in one half only.
    told_G = size_G >= 2
    if not n_deals or told_G.sum() * rate_PE.shape[1] < 3:
        return np.full(n_deals, np.nan)
    n_prompts, n_groups = len(group_P), len(size_G)
    line_up_DP = np.argsort(rng.random((n_deals, n_prompts)) + group_P, axis=1)
    sorted_P = np.repeat(np.arange(n_groups), size_G)
    is_first_P = np.arange(n_prompts) - (np.cumsum(size_G) - size_G)[sorted_P] < (size_G // 2)[sorted_P]
    half_DP = np.zeros((n_deals, n_prompts), dtype=bool)
    np.put_along_axis(half_DP, line_up_DP, is_first_P[None], axis=1)
    ranks = []
    for side_DP in (half_DP, ~half_DP):
        member_DGP = np.zeros((n_deals, n_groups, n_prompts))
        member_DGP[:, group_P, np.arange(n_prompts)] = side_DP
        sums_DGE = (member_DGP.reshape(-1, n_prompts) @ rate_PE).reshape(n_deals, n_groups, -1)
        overall_DE = sums_DGE.sum(axis=1) / side_DP.sum(axis=1)[:, None]
        mean_DGE = sums_DGE[:, told_G] / member_DGP.sum(axis=2)[:, told_G, None]
        profile = (mean_DGE - overall_DE[:, None]).reshape(n_deals, -1)
        # Sums in another order differ in their last digits, and equal rates must stay tied.
        rank = rankdata(np.round(profile, 12), axis=1)
        ranks.append(rank - rank.mean(axis=1, keepdims=True))
    one, other = ranks
    length_D = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = np.where(length_D > 1e-12, (one * other).sum(axis=1) / length_D, np.nan)
    return found
