"""Experts that prompts answered right choose more than prompts of the same task answered wrong.

Legend: P prompt, L layer, E expert, S task with both kinds of answers.
"""

from __future__ import annotations

import math

import numpy as np

from analysis.findings.finding import Family, Finding, interval, p_text
from analysis.rates import prompt_rates
from routing.selection import Selection, expert_name
from routing.trace import RoutingTrace

__all__ = ["right_answers"]

SMALLEST_RATIO = 1.25
FEWEST = 10
_Z_95 = 1.959963984540054


def right_answers(trace: RoutingTrace, *, seed: int) -> Family | None:  # noqa: ARG001 (families are asked alike)
    """One question an expert: within tasks, do prompts answered right choose it as often as those answered wrong?

    Only tokens that were read count: what is written differs between right and wrong answers anyway. A task weighs by
    how many prompts of both kinds it has; the variance is that of answers dealt to the task's prompts at random.
    """
    if trace.level == "counts" or trace.n_prompts < 2 * FEWEST:
        return None
    score_P = trace.prompts["score"].to_numpy(dtype=float)
    known_P = np.isfinite(score_P)
    right_P = score_P >= 0.5
    strata = [np.flatnonzero(known_P & (trace.task_of_prompt == task)) for task in range(len(trace.tasks))]
    strata = [rows for rows in strata if 0 < right_P[rows].sum() < len(rows)]
    n_right = sum(int(right_P[rows].sum()) for rows in strata)
    n_wrong = sum(len(rows) for rows in strata) - n_right
    if min(n_right, n_wrong) < FEWEST:
        return None
    p_LE = np.full(trace.expert_exists.shape, np.nan)
    candidates = []
    for block in prompt_rates(trace, phase="prompt"):
        for number in range(block.rate_PLE.shape[1]):
            layer = block.layers.start + number
            found = _stratified(block.rate_PLE[:, number], right_P, strata)
            p_LE[layer] = found["p"]
            for expert in np.flatnonzero(found["low"] > 1):
                if found["ratio"][expert] >= SMALLEST_RATIO:
                    one = {name: float(values[expert]) for name, values in found.items()}
                    candidates.append((layer * trace.n_experts + int(expert), _finding(trace, layer, int(expert), one)))
    if not np.isfinite(p_LE).any():
        return None
    return Family(kind="answers", p_values=p_LE.ravel(), candidates=candidates)


def _stratified(rate_PE: np.ndarray, right_P: np.ndarray, strata: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Weighted within-task means of both kinds, their ratio with its interval, and p of their difference."""
    n_experts = rate_PE.shape[1]
    total, mean_right, mean_wrong, variance = 0.0, *(np.zeros(n_experts) for _ in range(3))
    var_right, var_wrong = np.zeros(n_experts), np.zeros(n_experts)
    for rows in strata:
        there = rows[np.isfinite(rate_PE[rows]).any(axis=1)]
        mine, others = rate_PE[there[right_P[there]]], rate_PE[there[~right_P[there]]]
        if not (len(mine) and len(others)):
            continue
        weight = len(mine) * len(others) / (len(mine) + len(others))
        spread = np.concatenate([mine, others]).var(axis=0, ddof=1)
        total += weight
        mean_right += weight * mine.mean(axis=0)
        mean_wrong += weight * others.mean(axis=0)
        variance += weight**2 * spread * (1 / len(mine) + 1 / len(others))
        var_right += weight**2 * spread / len(mine)
        var_wrong += weight**2 * spread / len(others)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (mean_right - mean_wrong) / np.sqrt(variance)
        ratio = mean_right / mean_wrong
        reach = np.exp(_Z_95 * np.sqrt(var_right / mean_right**2 + var_wrong / mean_wrong**2))
        found = {
            "ratio": ratio,
            "low": ratio / reach,
            "high": ratio * reach,
            "right": mean_right / total if total else mean_right * np.nan,
            "wrong": mean_wrong / total if total else mean_wrong * np.nan,
        }
    found["low"] = np.where(np.isfinite(found["low"]), found["low"], 0.0)
    found["p"] = np.array([math.erfc(abs(each) / math.sqrt(2)) if np.isfinite(each) else np.nan for each in z])
    return found


def _finding(trace: RoutingTrace, layer: int, expert: int, found: dict[str, float]) -> Finding:
    label = trace.layers[layer]
    name = expert_name(label, expert, names=trace.expert_names)
    return Finding(
        kind="answers",
        sentence=(
            f"Within tasks, prompts that were answered right choose {name} "
            f"{found['ratio']:.1f} times{interval(found['low'], found['high'])} as often as those answered wrong: "
            f"{found['right']:.1%} of the {trace.unit}s read against {found['wrong']:.1%}."
        ),
        effect=found["ratio"],
        effect_low=found["low"],
        effect_high=found["high"],
        unit="times the rate of wrong answers",
        strength=max(0.0, 1 - 1 / found["low"]),
        p_value=found["p"],
        uncertainty=f"95 % interval over prompts; p {p_text(found['p'])} against answers dealt within tasks",
        view="tasks",
        selection_query=Selection(experts=((label, expert),)).to_query(),
    )
