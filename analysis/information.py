"""How much an expert says about the task, layer by layer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from analysis.nulls import Dealer, p_value
from analysis.rates import Over, decided_by_task, group_of_prompt, prompt_rates
from analysis.scan import Phase
from routing.trace import RoutingTrace

__all__ = ["informed", "task_information"]


def task_information(
    trace: RoutingTrace,
    *,
    over: Over = "task",
    phase: Phase | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mutual information of expert and task in each layer, beside what permuted prompts give.

    I = Σ_d P(d) Σ_e P(e|d) ln(P(e|d) / P(e)), P(e|d) the mean over the task's prompts of their load shares, P(d)
    the task's share of prompts. Estimated from few prompts it is never 0, so that only what goes beyond the
    permutations counts: `excess_nats` = information − mean of the permutations, and `share` = that over the entropy
    of the tasks, ln(tasks) where they are even.

    Where the router decided once a task, each task counts once: types are tested by permuting tasks, and for single
    tasks there is no null.

    Args:
        trace: the trace.
        over: what prompts are grouped by.
        phase: only tokens of this phase.
        n_permutations: for the null; 0 for none.
        seed: of the permutations.

    Returns:
        (layer) · information_nats, null_mean, null_95, excess_nats, share, p_value, n_prompts · nats, 0 and up;
        p-values 0 to 1, NaN without permutations or where there is nothing to tell apart.

    Raises:
        SelectionError: `over` names something else than what it may.
        TraceError: the trace holds counts only.

    References:
        Chen et al. 2023, "Mod-Squad" (mutual information of task and expert); Miller 1955 (bias of the estimate).
    """
    groups, group_P = group_of_prompt(trace, over=over)
    kept = np.arange(trace.n_prompts)
    if decided_by_task(trace):
        # Prompts repeat their task: it counts once, and which single task it is cannot be tested.
        kept = np.array([int(np.argmax(trace.task_of_prompt == task)) for task in range(len(trace.tasks))])
        n_permutations = n_permutations if over == "task_type" else 0
    cases: list[tuple[np.ndarray, np.ndarray]] = []
    for block in prompt_rates(trace, phase=phase):
        for number in range(block.rate_PLE.shape[1]):
            rate_PE = block.rate_PLE[kept, number]
            routed = np.isfinite(rate_PE).any(axis=-1)
            cases.append((np.nan_to_num(rate_PE[routed]), group_P[kept][routed]))
    dealer = Dealer(n_permutations=n_permutations, seed=seed)
    with ThreadPoolExecutor() as pool:
        rows = list(
            pool.map(
                lambda case: informed(case[0], case[1], len(groups), dealer=dealer if n_permutations else None), cases
            )
        )
    frame = pd.DataFrame(rows, index=pd.Index(list(trace.layers), name="layer"), columns=list(_UNITS))
    frame["n_prompts"] = frame["n_prompts"].astype(int)
    frame.attrs["unit"] = dict(_UNITS)
    return frame


_UNITS = {
    "information_nats": "nats",
    "null_mean": "nats",
    "null_95": "nats",
    "excess_nats": "nats",
    "share": "share of the entropy of tasks",
    "p_value": "probability",
    "n_prompts": "prompts",
}


def informed(rate_PE: np.ndarray, labels_P: np.ndarray, n_groups: int, *, dealer: Dealer | None) -> dict[str, float]:
    """A row of `task_information`, from rates of the prompts that the layer routed."""
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.kernels import frozen
    from analysis.null_kernels import permuted_information

    row = dict.fromkeys(_UNITS, np.nan) | {"n_prompts": len(rate_PE)}
    if not len(rate_PE):
        return row
    shares_PE = frozen(rate_PE / rate_PE.sum(axis=-1, keepdims=True))
    n_G = np.bincount(labels_P, minlength=n_groups)
    observed = float(permuted_information(shares_PE, labels_P[None].astype(np.int32), n_G)[0])
    row["information_nats"] = observed
    if dealer is None or (n_G > 0).sum() < 2:
        return row
    null = np.concatenate([permuted_information(shares_PE, dealt, n_G) for dealt in dealer.deal(labels_P)])
    share_G = n_G[n_G > 0] / len(rate_PE)
    row["null_mean"], row["null_95"] = float(null.mean()), float(np.quantile(null, 0.95))
    row["excess_nats"] = observed - row["null_mean"]
    row["share"] = row["excess_nats"] / float(-(share_G * np.log(share_G)).sum())
    row["p_value"] = float(p_value(int((null >= observed - 1e-12).sum()), n_permutations=len(null)))
    return row
