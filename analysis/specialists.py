"""Experts that serve a task, each held up to everything that could make it appear by chance.

Legend: P prompt, E expert, B bootstrap draw.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

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


def specialists(
    trace: RoutingTrace,
    *,
    fdr: float = 0.01,
    smallest_lift: float = 1.0,
    n_permutations: int = 1000,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Experts that a task's prompts choose much more than prompts do on average.

    Statistical significance is cheap with thousands of tokens, so an expert is listed only if all of this holds:

    - q ≤ `fdr` against permuted prompts (`specialization`);
    - log2(rate / overall) ≥ `smallest_lift`: at 1, twice as often;
    - the task's prompts choose it at least as often as a fair expert is chosen, k / E: an expert that is rare
      everywhere serves nobody;
    - the lift reaches half of `smallest_lift` in each half of the task's prompts and of the others.

    `ratio_low` and `ratio_high` are a 95 % interval of rate / overall, from drawing the task's prompts and the
    others with replacement.

    Args:
        trace: the trace.
        fdr: share of false ones to accept among those that are significant.
        smallest_lift: effect below which nothing is listed, in log2.
        n_permutations: of prompts, for q.
        n_bootstrap: draws for the interval.
        seed: of both.

    Returns:
        (row) · task, layer, expert, rate, overall, ratio, ratio_low, ratio_high, lift_first_half, lift_second_half,
        q_value · rates in share of tokens, lifts in log2; the largest rate − overall first; no row where nothing
        holds.

    Raises:
        TraceError: the trace holds counts only.
    """
    tested = specialization(trace, n_permutations=n_permutations, seed=seed, fdr=fdr)
    rate_GLE, overall_LE = tested["rate"].to_numpy(), tested["overall"].to_numpy()
    fair_L = np.array([facts.top_k / facts.n_experts for facts in trace.layer_facts])
    with np.errstate(divide="ignore", invalid="ignore"):
        candidate_GLE = tested["significant"].to_numpy() & (np.log2(rate_GLE / overall_LE) >= smallest_lift)
        candidate_GLE &= rate_GLE >= fair_L[:, None]
    groups, group_P = group_of_prompt(trace, over="task")
    rows = []
    for block in prompt_rates(trace):
        inside = candidate_GLE[:, block.layers]
        for group, number, expert in zip(*np.nonzero(inside), strict=True):
            layer = block.layers.start + int(number)
            rate_P = block.rate_PLE[:, number, expert]
            routed = np.isfinite(rate_P)
            measured = _measured(
                rate_P[routed], group_P[routed] == group, n_bootstrap=n_bootstrap, seed=[seed, layer, int(expert)]
            )
            if min(measured["lift_first_half"], measured["lift_second_half"]) < smallest_lift / 2:
                continue
            rows.append(
                {
                    "task": groups[group],
                    "layer": trace.layers[layer],
                    "expert": int(expert),
                    "rate": rate_GLE[group, layer, expert],
                    "overall": overall_LE[layer, expert],
                    "q_value": float(tested["q_value"][group, layer, expert]),
                }
                | measured
            )
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    frame = frame.sort_values("rate", key=lambda rate: rate - frame["overall"], ascending=False, kind="stable")
    frame.attrs["unit"] = {"rate": "share of tokens", "overall": "share of tokens", "ratio": "ratio"}
    return frame.reset_index(drop=True)


def _measured(rate_P: np.ndarray, inside_P: np.ndarray, *, n_bootstrap: int, seed: list[int]) -> dict[str, float]:
    """Ratio to the overall rate with its interval, and lifts in the two halves of the prompts."""
    mine, others = rate_P[inside_P], rate_P[~inside_P]
    n_all = len(rate_P)
    rng = np.random.default_rng(seed)
    mine_B = rng.choice(mine, size=(n_bootstrap, len(mine))).mean(axis=1)
    others_B = rng.choice(others, size=(n_bootstrap, len(others))).mean(axis=1)
    overall_B = (len(mine) * mine_B + len(others) * others_B) / n_all
    ratio_B = mine_B / np.where(overall_B > 0, overall_B, np.nan)
    low, high = np.nanquantile(ratio_B, [0.025, 0.975])
    # Every other prompt, so that both halves cover the whole of a task that was sorted.
    halves = [_lift(mine[start::2], others[start::2]) for start in (0, 1)]
    return {
        "ratio": float(mine.mean() / rate_P.mean()),
        "ratio_low": float(low),
        "ratio_high": float(high),
        "lift_first_half": halves[0],
        "lift_second_half": halves[1],
    }


def _lift(mine: np.ndarray, others: np.ndarray) -> float:
    overall = float(np.concatenate([mine, others]).mean()) if len(mine) and len(others) else 0.0
    return float(np.log2(mine.mean() / overall)) if overall > 0 and mine.mean() > 0 else float("-inf")
