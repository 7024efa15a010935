"""Experts that serve a type of task: the task is the unit of chance, and the other half of the prompts must agree.

Legend: S task, H half of the prompts.
"""

from __future__ import annotations

import numpy as np

from analysis.correlation import feature_correlation
from analysis.findings.finding import Family, Finding, interval, p_text
from analysis.rates import group_rates, prompt_rates
from routing.selection import Selection, expert_name
from routing.trace import RoutingTrace

__all__ = ["serving_types"]

N_BOOTSTRAP = 2000
SMALLEST_R = 0.5
SMALLEST_RATIO = 1.25


def serving_types(trace: RoutingTrace, *, seed: int) -> Family | None:
    """One question a type, asked of the expert that correlates best with it."""
    table = feature_correlation(trace, seed=seed)
    if not table.sizes["feature"]:
        return None
    rate_SLE = group_rates(trace, over="task").rate_GLE
    types = np.array(list(trace.task_types.values()))
    p_values, candidates = [], []
    for number, feature in enumerate(table["feature"].values):
        r = table["r"].values[number]
        if not np.isfinite(r).any():
            p_values.append(np.nan)
            continue
        layer, expert = (int(each) for each in np.unravel_index(np.nanargmax(r), r.shape))
        # Against the largest |r| of all experts; an expert that a type avoids is no finding of its own.
        p = float(table["p_value"].values[number, layer, expert])
        p_values.append(p)
        inside_S = types == feature
        ratio, low, high = _ratio(rate_SLE[:, layer, expert], inside_S, seed=seed)
        stable = _split_half(trace, layer=layer, expert=expert)
        if not (low > 1 and ratio >= SMALLEST_RATIO) or (np.isfinite(stable) and stable < SMALLEST_R):
            continue
        limit = float(table["null_95"].values[number])
        again = f", stable across halves of the prompts (r {stable:.2f})" if np.isfinite(stable) else ""
        name = expert_name(trace.layers[layer], expert, names=trace.expert_names)
        finding = Finding(
            kind="task_type",
            sentence=(
                f"{name} serves {feature} tasks: {ratio:.1f} times{interval(low, high)} the rate of all tasks{again}; "
                f"r = {r[layer, expert]:.2f} over {len(trace.tasks)} tasks, where the best of all experts stays below "
                f"{limit:.2f} in 95 % of random groupings."
            ),
            effect=ratio,
            effect_low=low,
            effect_high=high,
            unit="times the rate of all tasks",
            strength=max(0.0, 1 - 1 / low),
            p_value=p,
            uncertainty=f"p {p_text(p)} against types dealt to tasks at random, over all experts",
            view="tasks",
            selection_query=Selection(experts=((trace.layers[layer], expert),)).to_query(),
            options={"part": "features", "feature": "task_type"},
        )
        candidates.append((number, finding))
    return Family(kind="task_type", p_values=np.array(p_values), candidates=candidates)


def _ratio(rate_S: np.ndarray, inside_S: np.ndarray, *, seed: int) -> tuple[float, float, float]:
    """Mean rate of the type's tasks over that of all, with an interval from drawing tasks again."""
    known = np.isfinite(rate_S)
    mine, rest = rate_S[known & inside_S], rate_S[known & ~inside_S]
    weight = len(mine) / max(1, len(mine) + len(rest))
    rng = np.random.default_rng(seed)
    means = [
        np.concatenate([[part.mean()], rng.choice(part, (N_BOOTSTRAP, len(part))).mean(axis=1)]) if len(part) else 0.0
        for part in (mine, rest)
    ]
    overall = weight * means[0] + (1 - weight) * means[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(means[0] / overall)
    if not np.isfinite(ratio).all():
        return float("nan"), float("nan"), float("nan")
    low, high = np.quantile(ratio[1:], [0.025, 0.975])
    return float(ratio[0]), float(low), float(high)


def _split_half(trace: RoutingTrace, *, layer: int, expert: int) -> float:
    """Correlation over tasks of the expert's rate in every other prompt with that in the rest; NaN where unknown."""
    if trace.level == "counts":
        return float("nan")
    for block in prompt_rates(trace):
        if not block.layers.start <= layer < block.layers.stop:
            continue
        rate_P = block.rate_PLE[:, layer - block.layers.start, expert]
        task_P = trace.task_of_prompt
        halves_SH = np.full((len(trace.tasks), 2), np.nan)
        for task in range(len(trace.tasks)):
            mine = rate_P[(task_P == task) & np.isfinite(rate_P)]
            for half in range(2):
                if len(mine[half::2]):
                    halves_SH[task, half] = mine[half::2].mean()
        both = halves_SH[np.isfinite(halves_SH).all(axis=1)]
        if len(both) < 3 or (both.std(axis=0) < 1e-12).any():
            return float("nan")
        return float(np.corrcoef(both.T)[0, 1])
    return float("nan")
