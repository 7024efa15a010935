"""Experts that serve a task, each held up to everything that could make it appear by chance.

Legend: P prompt, C candidate: a task, a layer and an expert.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.measure import measure_of, rate_unit
from analysis.rates import group_of_prompt, prompt_rates
from analysis.specialization import specialization
from routing.trace import RoutingTrace

__all__ = ["specialists"]

_COLUMNS = (
    "task",
    "layer",
    "expert",
    "rate",
    "overall",
    "ratio",
    "ratio_low",
    "ratio_high",
    "lift_first_half",
    "lift_second_half",
    "q_value",
)

# 97.5th percentile of the normal distribution.
_Z_95 = 1.959963984540054


def specialists(
    trace: RoutingTrace,
    *,
    fdr: float = 0.01,
    smallest_lift: float = 1.0,
    n_permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Experts that a task's prompts choose much more than prompts do on average.

    Statistical significance is cheap with thousands of tokens, so an expert is listed only if all of this holds:

    - q ≤ `fdr` against permuted prompts (`specialization`);
    - log2(rate / overall) ≥ `smallest_lift`: at 1, twice as often;
    - the task's prompts choose it at least as often as a fair expert is chosen, k / E: an expert that is rare
      everywhere serves nobody;
    - the lift reaches half of `smallest_lift` in each half of the task's prompts and of the others.

    `ratio_low` and `ratio_high` are a 95 % interval of rate / overall: of its logarithm, from the scatter of the
    task's prompts and of the others (delta method).

    Args:
        trace: the trace.
        fdr: share of false ones to accept among those that are significant.
        smallest_lift: effect below which nothing is listed, in log2.
        n_permutations: of prompts, for q.
        seed: of the permutations.

    Returns:
        (row) · task, layer, expert, rate, overall, ratio, ratio_low, ratio_high, lift_first_half, lift_second_half,
        q_value · rates in share of tokens, lifts in log2; the largest rate − overall first; no row where nothing
        holds.

    Raises:
        TraceError: the trace holds counts only.
    """
    tested = specialization(trace, n_permutations=n_permutations, seed=seed, fdr=fdr)
    rate_GLE, overall_LE = tested["rate"].to_numpy(), tested["overall"].to_numpy()
    # Rates of a layer add up to what a token gives in all, so their mean is k / E, or the even share of the weight.
    fair_L = np.nansum(overall_LE, axis=-1) / trace.expert_exists.to_numpy().sum(axis=-1) * (1 - 1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        candidate_GLE = tested["significant"].to_numpy() & (np.log2(rate_GLE / overall_LE) >= smallest_lift)
        candidate_GLE &= rate_GLE >= fair_L[:, None]
    groups, group_P = group_of_prompt(trace, over="task")
    parts = [pd.DataFrame(columns=list(_COLUMNS))]
    for block in prompt_rates(trace):
        for group in range(len(groups)):
            number, expert = np.nonzero(candidate_GLE[group, block.layers])
            if not len(number):
                continue
            layer = block.layers.start + number
            measured = _measured(block.rate_PLE[:, number, expert], group_P == group)
            measured.insert(0, "task", groups[group])
            measured.insert(1, "layer", np.array(trace.layers, dtype=object)[layer])
            measured.insert(2, "expert", expert)
            measured.insert(3, "rate", rate_GLE[group, layer, expert])
            measured.insert(4, "overall", overall_LE[layer, expert])
            measured["q_value"] = tested["q_value"].to_numpy()[group, layer, expert]
            held = measured[["lift_first_half", "lift_second_half"]].min(axis=1) >= smallest_lift / 2
            if held.any():
                parts.append(measured[held])
    frame = pd.concat(parts[1:] or parts, ignore_index=True)
    frame = frame.sort_values("rate", key=lambda rate: rate - frame["overall"], ascending=False, kind="stable")
    unit = rate_unit(trace)
    frame.attrs["unit"] = {"rate": unit, "overall": unit, "ratio": "ratio"}
    frame.attrs["measure"] = measure_of(trace)
    return frame.reset_index(drop=True)


def _measured(rate_PC: np.ndarray, inside_P: np.ndarray) -> pd.DataFrame:
    """Ratio to the overall rate with its interval, and lifts in the two halves of the prompts."""
    mine, others = _moments(rate_PC[inside_P]), _moments(rate_PC[~inside_P])
    weight = mine.n / (mine.n + others.n)
    overall = weight * mine.mean + (1 - weight) * others.mean
    variance = mine.variance * (1 / mine.mean - weight / overall) ** 2
    variance += others.variance * ((1 - weight) / overall) ** 2
    ratio, spread = mine.mean / overall, np.exp(_Z_95 * np.sqrt(variance))
    columns = {"ratio": ratio, "ratio_low": ratio / spread, "ratio_high": ratio * spread}
    # Every other prompt, so that both halves cover the whole of a task that was sorted.
    for name, start in (("lift_first_half", 0), ("lift_second_half", 1)):
        half, rest = _moments(rate_PC[inside_P][start::2]), _moments(rate_PC[~inside_P][start::2])
        n_all = np.maximum(half.n + rest.n, 1)
        all_of_half = (half.n * half.mean + rest.n * rest.mean) / n_all
        with np.errstate(divide="ignore", invalid="ignore"):
            lift = np.log2(half.mean / all_of_half)
        columns[name] = np.where(np.isfinite(lift), lift, -np.inf)
    return pd.DataFrame(columns)


@dataclass(frozen=True, kw_only=True)
class _Moments:
    """Of some prompts: how many were routed, their mean, and the variance of that mean."""

    n: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def _moments(rate_PC: np.ndarray) -> _Moments:
    there = np.isfinite(rate_PC)
    n = there.sum(axis=0)
    mean = np.where(there, rate_PC, 0.0).sum(axis=0) / np.maximum(n, 1)
    squares = (np.where(there, rate_PC - mean, 0.0) ** 2).sum(axis=0)
    return _Moments(n=n, mean=mean, variance=squares / np.maximum(n - 1, 1) / np.maximum(n, 1))
