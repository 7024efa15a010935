"""One expert beside the others: who is like it, and how its load went over the run.

Legend: I expert of any layer, S task, P prompt, L layer, E expert, H half of the prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.occurrences import expert_occurrences
from analysis.placement_study import prompt_halves
from analysis.rates import decided_by_task, lift_of, mean_over_prompts, prompt_rates
from analysis.signatures import signatures
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["ExpertLifts", "expert_lifts", "load_over_run", "similar_experts"]

_SMALLEST_SPREAD = 1e-9
_FEWEST_TASKS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertLifts:
    """What `similar_experts` reads off the whole trace, whichever expert is asked for.

    Attributes:
        names: layer and number of each expert.
        whole: (expert, task) lift over all prompts.
        halves: (expert, task) lifts of one half of each task's prompts, and of the other; no task where that cannot be.
    """

    names: list[tuple[str, int]]
    whole: np.ndarray
    halves: tuple[np.ndarray, np.ndarray]


def expert_lifts(trace: RoutingTrace) -> ExpertLifts:
    """Each expert's lift in each task, and on two halves of the prompts: a scan of all tokens, for many questions.

    Returns:
        (expert, task) · log2 ratio · NaN where the task has no token in the layer.
    """
    table = signatures(trace, of="expert", values="lift")
    names = list(zip(table["layer"].values.astype(str).tolist(), table["expert"].values.tolist(), strict=True))
    whole = table.to_numpy().astype(float)
    return ExpertLifts(names=names, whole=whole, halves=_halved_lifts(trace, whole))


def similar_experts(
    trace: RoutingTrace,
    *,
    layer: str,
    expert: int,
    n_permutations: int = 500,
    seed: int = 0,
    lifts: ExpertLifts | None = None,
) -> pd.DataFrame:
    """Experts of any layer that the same tasks use more or less than others do.

    `similarity` is the correlation, over tasks, of the two experts' lifts. `apart` is the same with this expert's lifts
    from one half of each task's prompts and the other's from the other half: experts that read the same prompts vary
    together from task to task even if tasks do not matter, and on different prompts they do not. Among many experts
    some are alike by chance: `beats_chance` tells whether `apart` is larger than the largest one to any expert in 99 %
    of the shuffles of this expert's lifts among tasks. `weight_similarity` is the cosine of the experts' weights,
    within the layer, where the trace holds it.

    Args:
        trace: the trace.
        layer: label of the layer.
        expert: number of the expert in it.
        n_permutations: shuffles for the null; 0 for none.
        seed: of the shuffles.
        lifts: of `expert_lifts` of the same trace, where many experts are asked for.

    Returns:
        (row) · layer, expert, similarity, apart, beats_chance, weight_similarity · correlation −1 to 1, most alike
        first; no row for an expert that was never chosen or a trace of fewer than 3 tasks; `apart` NaN, and nothing
        beats chance, where fewer than 3 tasks have two prompts or only counts are held.

    Raises:
        SelectionError: the trace has no such expert.
    """
    lifts = expert_lifts(trace) if lifts is None else lifts
    names, values_IS = lifts.names, lifts.whole
    if (layer, expert) not in names:
        msg = f"This trace has no expert {layer}·E{expert}; its layers are {list(trace.layers)}. Choose among them."
        raise SelectionError(msg)
    own = names.index((layer, expert))
    known_I = ~np.isnan(values_IS).all(axis=1)
    unit_IS = _standardized(values_IS)
    columns = ["layer", "expert", "similarity", "apart", "beats_chance", "weight_similarity"]
    if not known_I[own] or values_IS.shape[1] < _FEWEST_TASKS or not unit_IS[own].any():
        return pd.DataFrame(columns=columns)
    others = known_I & (np.arange(len(names)) != own)
    apart_I, bound = _judged_apart(*lifts.halves, own, others=others, n_permutations=n_permutations, seed=seed)
    found = pd.DataFrame(names, columns=["layer", "expert"]).assign(similarity=unit_IS @ unit_IS[own], apart=apart_I)
    found["beats_chance"] = found["apart"] > bound
    found["weight_similarity"] = _by_weight(trace, names, layer=layer, expert=expert)
    found = found[others].sort_values("similarity", ascending=False, kind="stable").reset_index(drop=True)
    units = {"similarity": "correlation", "apart": "correlation", "weight_similarity": "cosine"}
    found.attrs.update(unit=units, null_99=bound)
    return found[columns]


def load_over_run(trace: RoutingTrace, *, layer: str, expert: int, n_windows: int = 40) -> pd.DataFrame:
    """An expert's activation rate in windows of prompts, in the order in which they were recorded.

    The interval is that of a ratio over whole prompts (their tokens are alike), 1.96 standard errors wide either way.

    Args:
        trace: the trace.
        layer: label of the layer.
        expert: number of the expert in it.
        n_windows: most windows; each holds as many prompts as the others, one at least.

    Returns:
        (window) · first_prompt, last_prompt (rows of `trace.prompts`), n_prompts, n_tokens, rate, rate_low, rate_high,
        tasks (of its prompts) · share of tokens, 0 to 1; NaN where the layer routed none, interval NaN for one prompt.

    Raises:
        SelectionError: the trace has no such layer.
        TraceError: the trace holds counts only.
    """
    counts = expert_occurrences(trace, layer=layer, expert=expert)
    rows = np.flatnonzero(counts["n_routed"].to_numpy() > 0)
    tasks = trace.prompts["task"].to_numpy(dtype=object)
    found = []
    for window in np.array_split(rows, max(1, min(n_windows, len(rows)))):
        if not len(window):
            continue
        chosen, routed = (counts[name].to_numpy()[window].astype(float) for name in ("n_chosen", "n_routed"))
        rate = chosen.sum() / routed.sum()
        n = len(window)
        # Taylor's variance of a ratio of sums over prompts.
        residual = chosen - rate * routed
        spread = np.sqrt((residual**2).sum() * n / (n - 1)) / routed.sum() if n > 1 else np.nan
        found.append(
            {
                "first_prompt": int(window[0]),
                "last_prompt": int(window[-1]),
                "n_prompts": n,
                "n_tokens": int(routed.sum()),
                "rate": rate,
                "rate_low": max(0.0, rate - 1.96 * spread) if n > 1 else np.nan,
                "rate_high": min(1.0, rate + 1.96 * spread) if n > 1 else np.nan,
                "tasks": ", ".join(dict.fromkeys(map(str, tasks[window]))),
            }
        )
    names = ["first_prompt", "last_prompt", "n_prompts", "n_tokens", "rate", "rate_low", "rate_high", "tasks"]
    frame = pd.DataFrame(found, columns=names, index=pd.RangeIndex(len(found), name="window"))
    frame.attrs["unit"] = dict.fromkeys(("rate", "rate_low", "rate_high"), "share of tokens")
    return frame


def _halved_lifts(trace: RoutingTrace, values_IS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(I, S) lifts on two halves of the prompts, of the tasks that both halves have."""
    if trace.level == "counts":
        return values_IS[:, :0], values_IS[:, :0]
    if decided_by_task(trace):
        # A task is one decision there, and its prompts repeat it.
        return values_IS, values_IS
    task_P, exists_LE = trace.task_of_prompt, trace.expert_exists.to_numpy()
    halves = prompt_halves(trace)
    both = np.flatnonzero(
        np.all([np.bincount(task_P[half], minlength=len(trace.tasks)) > 0 for half in halves], axis=0)
    )
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for block in prompt_rates(trace):
        overall_LE = mean_over_prompts(block.rate_PLE)
        for half, part in zip(halves, parts, strict=True):
            of_task = [half[task_P[half] == task] for task in both]
            rate_SLE = np.array([mean_over_prompts(block.rate_PLE[rows]) for rows in of_task])
            n_SL = np.array([block.n_assignments_PL[rows].sum(axis=0) for rows in of_task])
            if len(both):
                lift_SLE = lift_of(rate_SLE, overall_LE=overall_LE, n_assignments_GL=n_SL)
                part.append(lift_SLE[:, exists_LE[block.layers]].T)
    if not parts[0]:
        return values_IS[:, :0], values_IS[:, :0]
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def _judged_apart(
    own_IS: np.ndarray, other_IS: np.ndarray, own: int, *, others: np.ndarray, n_permutations: int, seed: int
) -> tuple[np.ndarray, float]:
    """(I) similarity on different prompts, and what the largest of them stays below in 99 % of the shuffles."""
    if own_IS.shape[1] < _FEWEST_TASKS:
        return np.full(len(own_IS), np.nan), float("nan")
    mine_S, unit_IS = _standardized(own_IS)[own], _standardized(other_IS)
    if not (others.any() and n_permutations):
        return unit_IS @ mine_S, float("nan")
    rng = np.random.default_rng(seed)
    shuffled_NS = rng.permuted(np.broadcast_to(mine_S, (n_permutations, len(mine_S))), axis=1)
    largest_N = (unit_IS[others] @ shuffled_NS.T).max(axis=0)
    return unit_IS @ mine_S, float(np.quantile(largest_N, 0.99))


def _standardized(values_IS: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1."""
    # An expert that a task shuns altogether has no lift there: the lowest that any has stands for it.
    floor = np.nanmin(values_IS[np.isfinite(values_IS)], initial=0.0)
    values_IS = np.where(np.isfinite(values_IS), values_IS, floor)
    centered = values_IS - values_IS.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    unit: np.ndarray = np.where(length > _SMALLEST_SPREAD, centered / np.maximum(length, _SMALLEST_SPREAD), 0.0)
    return unit


def _by_weight(trace: RoutingTrace, names: list[tuple[str, int]], *, layer: str, expert: int) -> np.ndarray:
    table = trace.vectors.get("expert_weight_similarity") if trace.vectors else None
    if table is None or layer not in table["layer"].values.astype(str):
        return np.full(len(names), np.nan)
    row = table.sel(layer=layer).isel(expert=expert).to_numpy()
    return np.array([row[other] if each == layer and other < len(row) else np.nan for each, other in names])
