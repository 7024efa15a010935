"""What changed since an earlier run of the same prompts, such as a snapshot of training.

Legend: P prompt that both runs hold, L layer, E expert.
"""

from __future__ import annotations

import math

import numpy as np

from analysis.findings.finding import Family, Finding, interval, p_text
from analysis.rates import prompt_rates
from routing.selection import Selection, expert_name
from routing.trace import RoutingTrace

__all__ = ["changed_since"]

SMALLEST_RATIO = 1.5
FEWEST_PROMPTS = 8
_Z_95 = 1.959963984540054


def changed_since(trace: RoutingTrace, before: RoutingTrace, *, seed: int) -> Family | None:  # noqa: ARG001
    """One question an expert that both runs have: do the same prompts choose it more, or less, than before?

    The rates of a prompt in both runs are a pair; p from the mean of the differences over their standard error. Only
    tokens that were read count, which are the same in both: what each run writes is another text.
    """
    if "counts" in (trace.level, before.level):
        return None
    shared = [label for label in trace.layers if label in before.layers]
    places = {name: row for row, name in enumerate(before.prompts["prompt"])}
    now = [row for row, name in enumerate(trace.prompts["prompt"]) if name in places]
    then = [places[name] for name in trace.prompts["prompt"].iloc[now]]
    if len(now) < FEWEST_PROMPTS or not shared:
        return None
    mine, theirs = _rates(trace), _rates(before)
    n_experts = max(trace.n_experts, before.n_experts)
    p_LE = np.full((len(trace.layers), n_experts), np.nan)
    candidates = []
    for label in shared:
        layer = trace.layers.index(label)
        width = min(each.n_experts for each in (trace.layer_facts[layer], _facts(before, label)))
        new_PE, old_PE = mine[layer][now, :width], theirs[before.layers.index(label)][then, :width]
        there = np.isfinite(new_PE[:, 0]) & np.isfinite(old_PE[:, 0])
        new_PE, old_PE, n = new_PE[there], old_PE[there], int(there.sum())
        if n < FEWEST_PROMPTS:
            continue
        change_PE = new_PE - old_PE
        error_E = change_PE.std(axis=0, ddof=1) / math.sqrt(n)
        new_E, old_E = new_PE.mean(axis=0), old_PE.mean(axis=0)
        for expert in range(width):
            if error_E[expert] <= 1e-12:
                p_LE[layer, expert] = 1.0 if abs(new_E[expert] - old_E[expert]) < 1e-12 else 0.0
            else:
                z = abs(new_E[expert] - old_E[expert]) / error_E[expert]
                p_LE[layer, expert] = math.erfc(z / math.sqrt(2))
            finding = _finding(
                trace, label, expert, p=float(p_LE[layer, expert]), new_P=new_PE[:, expert], old_P=old_PE[:, expert]
            )
            if finding is not None:
                candidates.append((layer * n_experts + expert, finding))
    if not np.isfinite(p_LE).any():
        return None
    return Family(kind="changed", p_values=p_LE.ravel(), candidates=candidates)


def _finding(
    trace: RoutingTrace, label: str, expert: int, *, p: float, new_P: np.ndarray, old_P: np.ndarray
) -> Finding | None:
    new, old, n = float(new_P.mean()), float(old_P.mean()), len(new_P)
    if min(new, old) <= 0:
        return None
    more = new >= old
    ratio = new / old if more else old / new
    # Delta method on the logarithm of a ratio of paired means.
    residual_P = new_P / new - old_P / old
    spread = math.exp(_Z_95 * float(residual_P.std(ddof=1)) / math.sqrt(n))
    low, high = ratio / spread, ratio * spread
    if low < SMALLEST_RATIO:
        return None
    name = expert_name(label, expert, names=trace.expert_names)
    return Finding(
        kind="changed",
        sentence=(
            f"{name} is chosen {ratio:.1f} times{interval(low, high)} {'as often as' if more else 'less often than'} "
            f"before, by the same {n:,} prompts: {old:.1%} of the {trace.unit}s read then, {new:.1%} now."
        ),
        effect=ratio,
        effect_low=low,
        effect_high=high,
        unit="times the earlier rate" if more else "times less than the earlier rate",
        strength=1 - 1 / low,
        p_value=p,
        uncertainty=f"95 % interval from the scatter of prompts, each compared with itself; p {p_text(p)}",
        view="compare",
        selection_query=Selection(experts=((label, expert),)).to_query(),
    )


def _rates(trace: RoutingTrace) -> list[np.ndarray]:
    """Of each layer, (P, E) activation rates over the tokens that were read."""
    blocks = prompt_rates(trace, phase="prompt")
    return [block.rate_PLE[:, number] for block in blocks for number in range(block.rate_PLE.shape[1])]


def _facts(trace: RoutingTrace, label: str):  # type: ignore[no-untyped-def]
    return trace.layer_facts[trace.layers.index(label)]
